"""A webdataset sample as a record: our own shards, RSTeller, RS5M, {image, short, long}, and plain captions."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from training.data.errors import DataError
from training.data.images import SUFFIXES
from training.data.schema import Record, parse_record

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

PICTURES = (*SUFFIXES, "img_content")
TEXTS = ("json", "txt", "caption", "img_name")
"""Members that hold a sample's texts; all others, such as masks, are left alone."""
SHORT_KEYS = ("short", "short_caption", "brief", "brief_caption")
LONG_KEYS = ("long", "long_caption", "long_description", "detailed", "detailed_caption")
OURS = "rsfg"
"""Key that marks the JSON of our own shards; its value is the schema's version."""
_OURS = (OURS, "regions", "brief_caption", "detailed_caption")
_CAPTIONS = ("caption", "captions", "text", "title")


def picture_of(names: Container[str]) -> str | None:
    """Return which of a sample's members is its picture."""
    return next((suffix for suffix in PICTURES if suffix in names), None)


def sample_record(read: Callable[[str], bytes], names: Container[str], *, image: str, where: str) -> Record:
    """Build the record of a sample.

    Args:
        read: Gives the bytes of a member.
        names: The sample's members by what follows the first dot.
        image: What the record's ``image`` becomes.
        where: Archive and sample, for errors.

    Raises:
        DataError: Its JSON is damaged, breaks the schema, or it holds no text.
    """
    if "json" in names:
        try:
            item = json.loads(read("json"))
        except (ValueError, RecursionError) as error:
            raise DataError("holds JSON that cannot be read", path=where, measured=str(error)[:80]) from error
        record = from_item(item, image=image, where=where)
        if record is not None:
            return _with_text_file(record, read, where) if "txt" in names else record
    if "img_name" in names or "caption" in names:  # RS5M
        captions = _lines(read("caption"), where) if "caption" in names else []
        name = _lines(read("img_name"), where)[:1] if "img_name" in names else []
        return _captioned(captions, image, source="RS5M", extra={"img_name": name[0]} if name else {})
    if "txt" in names:
        return _captioned(_lines(read("txt"), where), image)
    raise DataError("holds no text", path=where, remedy="a sample needs a .json, .txt or .caption beside its picture")


def _with_text_file(record: Record, read: Callable[[str], bytes], where: str) -> Record:
    """Return the record with those lines of the .txt that the .json does not say (img2dataset writes both alike)."""
    told = {record.brief_caption, record.detailed_caption, *record.captions}
    more = tuple(line for line in _lines(read("txt"), where) if line not in told)
    return replace(record, captions=(*record.captions, *more)) if more else record


def from_item(item: Any, *, image: str, where: str) -> Record | None:  # noqa: ANN401 - a parsed JSON value
    """Return the record of a sample's JSON object, or None when it holds no text that is known here.

    Raises:
        DataError: It is a record of ours and breaks the schema.
    """
    if not isinstance(item, dict):
        return None
    annotations = item.get("annotations")
    if isinstance(annotations, list) and isinstance(item.get("metadata"), dict):
        return _rsteller(item["metadata"], annotations, image)
    if any(key in item for key in _OURS):
        left = {key: value for key, value in item.items() if key != OURS}
        return parse_record({**left, "image": image}, where=where)
    return short_long(item, image) or _plain(item, image)


def _plain(item: Mapping[str, Any], image: str) -> Record | None:
    texts = next((item[key] for key in _CAPTIONS if isinstance(item.get(key), (str, list))), None)
    if texts is not None:
        texts = [texts] if isinstance(texts, str) else [text for text in texts if isinstance(text, str)]
        left = {key: value for key, value in item.items() if key not in (*_CAPTIONS, "image")}
        return _captioned(texts, image, extra=left)
    return None


def short_long(item: Mapping[str, Any], image: str) -> Record | None:
    """Return the record of ``{short, long}``, under the names that are about, or None."""
    short = next((item[key] for key in SHORT_KEYS if isinstance(item.get(key), str)), None)
    long = next((item[key] for key in LONG_KEYS if isinstance(item.get(key), str)), None)
    if short is None and long is None:
        return None
    left = {key: value for key, value in item.items() if key not in (*SHORT_KEYS, *LONG_KEYS, "image")}
    width, height = left.pop("width", None), left.pop("height", None)
    known = isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0
    record = Record(image=image, brief_caption=short, detailed_caption=long, extra=left)
    return replace(record, width=width, height=height) if known else record


def _rsteller(metadata: Mapping[str, Any], annotations: list[Any], image: str) -> Record:
    """RSTeller: one text of task 1 (area) or 2 (no area) and up to four revisions of it (task 3)."""
    told = [entry for entry in annotations if isinstance(entry, dict) and isinstance(entry.get("text"), str)]
    scene = metadata.get("image_name")
    tasks = [entry.get("task") for entry in told]
    record = _captioned([entry["text"] for entry in told], image, source="RSTeller", extra={"tasks": tasks})
    return replace(record, scene=scene if isinstance(scene, str) else None)


def _captioned(
    texts: list[str], image: str, *, source: str | None = None, extra: Mapping[str, Any] | None = None
) -> Record:
    texts = [text.strip() for text in texts if text.strip()]
    return Record(
        image=image, source=source, brief_caption=texts[0] if texts else None, captions=tuple(texts[1:]),
        extra=extra or {},
    )  # fmt: skip


def _lines(payload: bytes, where: str) -> list[str]:
    try:
        return [line.strip() for line in payload.decode("utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError("holds a text that is not UTF-8", path=where, measured=str(error)[:80]) from error
