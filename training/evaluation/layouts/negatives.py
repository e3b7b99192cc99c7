"""Regions with a true text and nearly true ones: FG-OVD's lines, as FG-CLIP's evaluator reads them, and RSFG records.

A line of FG-OVD has ``img_path``, ``bbox`` (left, top, width, height in pixels), ``pos_expression`` and
``neg_expression``, lists of texts. ``image``, ``positive(s)`` and ``negatives`` do as well; ``box_xyxy`` holds left,
top, right, bottom; without a box the item is the whole image. A record gives an item for each region that has a
phrase and hard negatives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from training.data.errors import DataError
from training.data.readers.base import json_items, numbers, peek, sized
from training.evaluation.layouts.captions import chosen_split
from training.evaluation.layouts.records import NEGATIVES, open_records
from training.evaluation.layouts.tables import root_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from training.data.readers import Source

_IMAGE = ("img_path", "image", "image_path", "file_name", "filename")
_POSITIVE = ("pos_expression", "positive", "positives", "pos")
_NEGATIVE = ("neg_expression", "negatives", "negative", "neg")
_SUFFIXES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True, slots=True)
class Item:
    """One region and its candidate texts."""

    image: str
    box_xyxy: tuple[float, float, float, float] | None
    """In pixels of the image; None for the whole image."""
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    where: str
    """File and line, or the record."""

    @property
    def texts(self) -> tuple[str, ...]:
        """All candidates, the positives first."""
        return self.positives + self.negatives


@dataclass(frozen=True, slots=True)
class Regions:
    """Items of a data set."""

    name: str
    root: Path
    items: tuple[Item, ...]
    without: int
    """Regions left out because they have no negatives."""

    def take(self, places: Iterable[int]) -> Regions:
        """Return some of the items."""
        return replace(self, items=tuple(self.items[int(place)] for place in places))


def read_negatives(path: Path, *, images: Path | None = None, split: str | None = None) -> Regions:
    """Read items.

    Args:
        path: JSON lines or a JSON list, a folder with one such file, or RSFG records.
        images: Folder of the pictures, by default the one of the file.
        split: Part of the records; lines have no parts.

    Raises:
        DataError: The layout is another, or an item is damaged; file and line are named.
    """
    if not path.exists():
        raise DataError("is missing", path=path, remedy="give a file of JSON lines or a folder of records")
    file = _file_of(path)
    if file is None:
        found = _from_records(open_records(path, NEGATIVES, images=images), split)
    else:
        if split is not None:
            raise DataError("has no splits", path=file, remedy="leave the split out")
        found = _from_lines(file, images)
    if not found.items:
        raise DataError("has no regions with negatives", path=path, remedy="check the layout and the split")
    return found


def _file_of(path: Path) -> Path | None:
    """Return the file of lines that a path means, None where it holds something else."""
    files = [path] if path.is_file() else [item for item in sorted(path.iterdir()) if item.suffix.lower() in _SUFFIXES]
    mine = [file for file in files if isinstance(first := peek(file), dict) and _first(first, _NEGATIVE) is not None]
    if len(mine) > 1:
        names = ", ".join(file.name for file in mine[:6])
        raise DataError("holds several sets of negatives", path=path, measured=names, remedy="give one of the files")
    return mine[0] if mine else None


def _first(item: Mapping[str, Any], keys: Iterable[str]) -> Any:  # noqa: ANN401 - a value of JSON
    return next((item[key] for key in keys if item.get(key) is not None), None)


def _from_lines(path: Path, images: Path | None) -> Regions:
    items, without = [], 0
    for where, entry in json_items(path):
        if not isinstance(entry, dict):
            raise DataError("is not an object", path=where, measured=f"{entry!r:.40}")
        image = _first(entry, _IMAGE)
        if not isinstance(image, str) or not image:
            raise DataError("has no image", path=where, remedy=f"name it with {_IMAGE[0]}")
        positives, negatives = (_texts(_first(entry, keys), where) for keys in (_POSITIVE, _NEGATIVE))
        if not positives:
            raise DataError("has no true text", path=where, remedy=f"give it with {_POSITIVE[0]}")
        if negatives:
            items.append(Item(image, _box(entry, where), positives, negatives, where))
        else:
            without += 1
    root, names = root_of(images or path.parent, [item.image.lstrip("/") for item in items])
    kept = tuple(replace(item, image=name) for item, name in zip(items, names, strict=True))
    return Regions(path.stem, root, kept, without)


def _texts(value: Any, where: str) -> tuple[str, ...]:  # noqa: ANN401 - a value of JSON
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError("texts are not a list of texts", path=where, measured=f"{value!r:.60}")
    return tuple(text.strip() for text in texts if text.strip())


def _box(entry: Mapping[str, Any], where: str) -> tuple[float, float, float, float] | None:
    corners = entry.get("box_xyxy")
    given = corners if corners is not None else entry.get("bbox")
    if given is None:
        return None
    a, b, c, d = numbers(given, 4, where)
    left, top, right, bottom = (a, b, c, d) if corners is not None else (a, b, a + c, b + d)
    if not all(map(math.isfinite, (left, top, right, bottom))) or right <= left or bottom <= top:
        raise DataError("a box has no area", path=where, measured=f"{given!r:.60}", remedy="give x, y, width, height")
    return left, top, right, bottom


def _from_records(source: Source, split: str | None) -> Regions:
    records = list(source.records())
    part = chosen_split(records, split, source.path)
    items, without = [], 0
    for record in records:
        told = [(number, region) for number, region in enumerate(record.regions) if region.phrase or region.description]
        if not told or (part is not None and record.split != part):
            continue
        without += sum(not region.hard_negatives for _, region in told)
        wanted = [(number, region) for number, region in told if region.hard_negatives]
        if not wanted:
            continue
        where = f"{source.path}: {record.image}"
        width, height = sized(record.width, record.height, source.root, record.image, where)
        for number, region in wanted:
            left, top, right, bottom = region.bbox
            items.append(
                Item(
                    record.image, (left * width, top * height, right * width, bottom * height),
                    (region.phrase or region.description or "",), tuple(text.text for text in region.hard_negatives),
                    f"{where} region {number}",
                )
            )  # fmt: skip
    return Regions(source.name, source.root, tuple(items), without)
