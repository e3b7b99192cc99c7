"""Pictures with a short and a long text (DGTRSD and its like), as JSON, JSON lines, or RSTeller's JSON files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from training.data.errors import DataError
from training.data.readers.base import Placed, Reader, json_items, load_json, need, parent, peek, place
from training.data.webdataset import LONG_KEYS, SHORT_KEYS, from_item, short_long

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FOLDERS = ("images", "Images", "imgs")


def detect(path: Path) -> bool:
    """Say whether the first record has an image, a short and a long text, and nothing of RSFG's own."""
    first = peek(path)
    if not isinstance(first, dict) or not isinstance(first.get("image"), str) or "regions" in first:
        return False
    return any(key in first for key in SHORT_KEYS[:2]) and any(key in first for key in LONG_KEYS[:3])


def read(path: Path, images: Path | None) -> Iterator[Placed]:
    """Yield the records of ``{image, short, long}`` objects.

    Raises:
        DataError: An object lacks its image or has neither text.
    """
    root = images or path.parent
    for where, item in json_items(path):
        image = place(need(item, "image", str, where), root, _FOLDERS)
        record = short_long(item, image)
        if record is None:
            raise DataError('has neither "short" nor "long"', path=where, remedy="mend it; it may be of another layout")
        yield where, record


def detect_rsteller(path: Path) -> bool:
    """Say whether a folder holds a JSON file with ``metadata.patch_id`` and ``annotations``."""
    first = next(iter(sorted(path.glob("*.json"))[:1]), None) if path.is_dir() else None
    item = peek(first) if first else None
    return isinstance(item, dict) and "annotations" in item and "patch_id" in (item.get("metadata") or {})


def read_rsteller(path: Path, images: Path | None) -> Iterator[Placed]:
    """Yield the records of a folder of unpacked RSTeller patches: ``607.jpg`` and ``607.json``.

    Raises:
        DataError: A JSON file is damaged or holds something else.
    """
    root = images or path
    for file in sorted(path.glob("*.json")):
        record = from_item(load_json(file), image=place(file.stem, root), where=str(file))
        if record is None:
            raise DataError("is no patch of RSTeller", path=file, remedy="move other files away")
        yield str(file), replace(record, source="RSTeller")


READER = Reader("short-long", "{image, short, long} as JSON or JSON lines (DGTRSD)", detect, read, parent)
RSTELLER = Reader("rsteller", "RSTeller, unpacked: one JSON per picture", detect_rsteller, read_rsteller, parent)
