"""COCO instances: boxes and, where polygons have four corners, oriented boxes; also what ``geoalign-tile`` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.data.errors import DataError
from training.data.readers.base import (
    Placed,
    Reader,
    bounds,
    corner_shares,
    load_json,
    need,
    numbers,
    parent,
    peek,
    place,
    shares,
    sized,
    text_or_none,
)
from training.data.schema import Record, Region

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FILE = "annotations.coco.json"
_FOLDERS = ("images", "Images", "train2017", "val2017", "JPEGImages")
_KNOWN = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "score", "caption")


def detect(path: Path) -> bool:
    """Say whether a file, or a folder's ``annotations.coco.json``, has images, annotations and categories."""
    first = peek(path / FILE if path.is_dir() else path)
    return isinstance(first, dict) and "annotations" in first and "images" in first


def read(path: Path, images: Path | None) -> Iterator[Placed]:
    """Yield a record for each image, with the boxes that are no crowds; images without boxes too.

    Raises:
        DataError: The file holds something else, or an annotation names an unknown image.
    """
    path = path / FILE if path.is_dir() else path
    whole, root = load_json(path), images or path.parent
    names = {
        need(item, "id", int, f"{path}: categories[{index}]"): text_or_none(item.get("name"))
        for index, item in enumerate(whole.get("categories") or () if isinstance(whole, dict) else ())
    }
    pictures = need(whole, "images", list, str(path))
    found: dict[Any, list[tuple[str, Any]]] = {item.get("id"): [] for item in pictures if isinstance(item, dict)}
    for index, item in enumerate(need(whole, "annotations", list, str(path))):
        where = f"{path}: annotations[{index}]"
        number = item.get("image_id") if isinstance(item, dict) else None
        if number not in found:
            raise DataError("names an image that is not listed", path=where, measured=f"image_id {number!r:.40}")
        if not item.get("iscrowd"):
            found[number].append((where, item))
    for index, item in enumerate(pictures):
        where = f"{path}: images[{index}]"
        name = place(need(item, "file_name", str, where), root, _FOLDERS)
        width, height = sized(item.get("width"), item.get("height"), root, name, where)
        record = Record(
            image=name,
            width=width,
            height=height,
            source=_source(whole, root),
            split=text_or_none(item.get("split")),
            regions=tuple(_region(entry, names, width, height, where) for where, entry in found[item.get("id")]),
        )
        yield where, record


def _source(whole: Mapping[str, Any], root: Path) -> str:
    info = whole.get("info")
    return (text_or_none(info.get("source")) if isinstance(info, dict) else None) or root.resolve().name


def _region(item: Mapping[str, Any], names: Mapping[int, str | None], width: int, height: int, where: str) -> Region:
    x, y, box_width, box_height = numbers(need(item, "bbox", list, where), 4, where)
    number = item.get("category_id")
    polygons = item.get("segmentation")
    ring = polygons[0] if isinstance(polygons, list) and len(polygons) == 1 else None
    corners = numbers(ring, 8, where) if isinstance(ring, list) and len(ring) == 8 else None
    is_upright = corners is None or _is_rectangle(corners)
    score = item.get("score")
    return Region(
        bbox=shares((x, y, x + box_width, y + box_height), width, height),
        obb=None if corners is None or is_upright else corner_shares(corners, width, height),
        category=names.get(number) if isinstance(number, int) else None,
        category_id=number if isinstance(number, int) else None,
        phrase=text_or_none(item.get("caption")),
        score=score if isinstance(score, float) else None,
        extra={key: value for key, value in item.items() if key not in _KNOWN},
    )


def _is_rectangle(corners: tuple[float, ...]) -> bool:
    """Say whether four corners are those of their upright box, which needs no telling."""
    left, top, right, bottom = bounds(corners)
    return all(x in (left, right) for x in corners[::2]) and all(y in (top, bottom) for y in corners[1::2])


READER = Reader("coco", "COCO instances", detect, read, parent)
