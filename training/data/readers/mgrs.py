"""MGRS-200k, FarSLIP's training set: ``text_info.json`` with boxes in pixels, and ``global_imgs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.data.errors import DataError
from training.data.readers.base import (
    Placed,
    Reader,
    json_items,
    need,
    numbers,
    parent,
    peek,
    place,
    shares,
    text_or_none,
)
from training.data.schema import Record, Region

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE = "text_info.json"
_NAMES = ("x1", "y1", "x2", "y2", "W", "H")
_FOLDERS = ("global_imgs",)
_KNOWN = ("global_filepath", "global_caption", "detailed_caption", "brief_caption", "segment")


def detect(path: Path) -> bool:
    """Say whether the first record has ``global_filepath``."""
    first = peek(path / FILE if path.is_dir() else path)
    return isinstance(first, dict) and "global_filepath" in first


def read(path: Path, images: Path | None) -> Iterator[Placed]:
    """Yield the records. Boxes are read by the names of their values, and by their order where the names are others.

    Raises:
        DataError: A record lacks its picture, or a box cannot be understood.
    """
    path = path / FILE if path.is_dir() else path
    root = images or path.parent
    for where, item in json_items(path):
        sizes: list[tuple[int, int]] = []
        regions = tuple(_region(entry, where, sizes) for entry in item.get("segment") or ())
        width, height = sizes[0] if sizes else (None, None)
        brief = text_or_none(item.get("brief_caption"))
        record = Record(
            image=place(need(item, "global_filepath", str, where), root, _FOLDERS),
            width=width,
            height=height,
            source="MGRS-200k",
            brief_caption=brief or text_or_none(item.get("global_caption")),
            detailed_caption=text_or_none(item.get("detailed_caption")),
            regions=regions,
            extra={key: value for key, value in item.items() if key not in _KNOWN},
        )
        yield where, record


def _region(entry: Any, where: str, sizes: list[tuple[int, int]]) -> Region:  # noqa: ANN401
    box = need(entry, "bbox", dict, where)
    has_names = all(name in box for name in _NAMES)
    values = numbers([box[name] for name in _NAMES] if has_names else list(box.values()), len(_NAMES), where)
    width, height = values[4:]
    if not (width >= 1 and height >= 1 and width < 1e9 and height < 1e9):
        raise DataError("a box names no size of its image", path=where, measured=f"{box!r:.90}")
    sizes.append((int(width), int(height)))
    number = entry.get("category_id")
    known = ("bbox", "category", "category_id", "cap")
    return Region(
        bbox=shares(values[:4], *sizes[-1]),
        category=text_or_none(entry.get("category")),
        category_id=number if isinstance(number, int) else None,
        phrase=text_or_none(entry.get("cap")),
        extra={key: value for key, value in entry.items() if key not in known},
    )


READER = Reader("mgrs", "MGRS-200k (FarSLIP) text_info.json", detect, read, parent)
