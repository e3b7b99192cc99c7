"""Captioned pictures: RSICD, RSITMD and UCM-captions in Karpathy's layout, and JSON lines with classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from training.data.errors import DataError
from training.data.images import SUFFIXES
from training.data.readers.base import Placed, Reader, json_items, load_json, need, parent, peek, place, text_or_none
from training.data.schema import Record
from training.data.shards import index_tar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FILE = "captions.jsonl"
_FOLDERS = ("images", "Images", "RSICD_images", "imgs")


def _captioned(image: str, texts: list[str], **values: str | None) -> Record:
    """The first text is the brief caption, the others are further captions."""
    return Record(image=image, brief_caption=texts[0] if texts else None, captions=tuple(texts[1:]), **values)  # type: ignore[arg-type]


def detect_karpathy(path: Path) -> bool:
    """Say whether a file is an object whose images have sentences."""
    first = peek(path)
    images = first.get("images") if isinstance(first, dict) else None
    return isinstance(images, list) and bool(images) and isinstance(images[0], dict) and "sentences" in images[0]


def read_karpathy(path: Path, images: Path | None) -> Iterator[Placed]:
    """Yield the records of ``{dataset, images: [{filename, split, sentences: [{raw}]}]}``.

    Raises:
        DataError: The file holds something else.
    """
    whole, root = load_json(path), images or path.parent
    source = text_or_none(whole.get("dataset")) if isinstance(whole, dict) else None
    for index, item in enumerate(need(whole, "images", list, str(path))):
        where = f"{path}: images[{index}]"
        sentences = need(item, "sentences", list, where)
        texts = [text for entry in sentences if (text := text_or_none(need(entry, "raw", str, where)))]
        name = place(need(item, "filename", str, where), root, _FOLDERS)
        yield where, _captioned(name, texts, source=source or path.stem, split=text_or_none(item.get("split")))


def detect_lines(path: Path) -> bool:
    """Say whether a file of JSON lines, or a folder's ``captions.jsonl``, has images with lists of captions."""
    first = peek(path / FILE if path.is_dir() else path)
    return isinstance(first, dict) and "image" in first and "class" in first and isinstance(first.get("captions"), list)


def read_lines(path: Path, images: Path | None) -> Iterator[Placed]:
    """Yield the records of ``{image, class, split, captions}`` lines; pictures lie in folders or in tars beside it.

    Raises:
        DataError: A line is damaged or lacks a key, or an archive is damaged.
    """
    path = path / FILE if path.is_dir() else path
    root = images or path.parent
    packed = _packed(root)
    for where, item in json_items(path):
        name = need(item, "image", str, where)
        texts = [text for value in need(item, "captions", list, where) if (text := text_or_none(value))]
        record = _captioned(packed.get(name) or place(name, root, _FOLDERS), texts, label=_class(item, where))
        left = {key: value for key, value in item.items() if key not in ("image", "class", "split", "captions")}
        split, source = text_or_none(item.get("split")), text_or_none(left.pop("source", None))
        yield where, replace(record, split=split, source=source or root.resolve().name, extra=left)


def _class(item: Mapping[str, object], where: str) -> str | None:
    value = item.get("class")
    if value is not None and not isinstance(value, str):
        raise DataError("a class is not a text", path=where, measured=f"{value!r:.60}")
    return value


def _packed(root: Path) -> dict[str, str]:
    """Return the names of pictures in the archives of a folder, and how a record calls them."""
    places: dict[str, str] = {}
    for archive in sorted(root.glob("*.tar")):
        index = index_tar(archive)
        for position in range(len(index)):
            name = index.name(position)
            if name.rpartition(".")[2].lower() in SUFFIXES:
                places.setdefault(name, f"{archive.name}!{name}")
    return places


KARPATHY = Reader(
    "captions", "RSICD, RSITMD, UCM-captions: dataset_*.json with sentences", detect_karpathy, read_karpathy, parent
)
LINES = Reader("caption-lines", "{image, class, split, captions} as JSON lines", detect_lines, read_lines, parent)
