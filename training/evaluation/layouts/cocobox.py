"""COCO's instances with what measuring needs: crowds are kept, as difficult boxes, and so are ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.data.errors import DataError
from training.data.readers.base import load_json, need, numbers, peek, place
from training.evaluation.layouts.regions import Boxed, gather

if TYPE_CHECKING:
    from pathlib import Path

_PICTURES = ("images", "positive image set", "JPEGImages", "val2017", "train2017", "../images")
_CORNERS = 8


def find(path: Path) -> Path | None:
    """Return the COCO file that a path means, None where there is none.

    Raises:
        DataError: A folder has several.
    """
    if path.is_file():
        return path if _is_coco(path) else None
    places = (path, path / "annotations")
    files = [file for top in places if top.is_dir() for file in sorted(top.glob("*.json")) if _is_coco(file)]
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:6])
        raise DataError("holds several COCO files", path=path, measured=names, remedy="give one of the files")
    return files[0] if files else None


def _is_coco(file: Path) -> bool:
    first = peek(file)
    return isinstance(first, dict) and {"images", "annotations", "categories"} <= set(first)


def read(file: Path, split: str | None = None) -> Boxed:
    """Read the boxes; oriented ones where every annotation has one ring of four corners that is not upright.

    Args:
        file: The JSON file; pictures lie beside it or in one of the usual folders.
        split: Part by the images' own ``split``.

    Raises:
        DataError: Something is missing or of another kind; the entry is named.
    """
    whole: Any = load_json(file)
    categories = [
        (
            need(item, "id", int, f"{file}: categories[{number}]"),
            need(item, "name", str, f"{file}: categories[{number}]"),
        )
        for number, item in enumerate(need(whole, "categories", list, str(file)))
    ]
    places = {key: number for number, (key, _) in enumerate(categories)}
    images = {need(item, "id", int, f"{file}: images[{number}]"): item
              for number, item in enumerate(need(whole, "images", list, str(file)))}  # fmt: skip
    if len(places) < len(categories) or len(images) < len(whole["images"]):
        raise DataError("gives an id twice", path=file)
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    found: dict[int, list[Any]] = {key: [] for key in images}
    for number, item in enumerate(need(whole, "annotations", list, str(file))):
        where = f"{file}: annotations[{number}]"
        key = need(item, "image_id", int, where)
        label = places.get(need(item, "category_id", int, where))
        if key not in images or label is None:
            raise DataError("names an image or a category that is not listed", path=where, measured=str(item)[:60])
        x, y, width, height = numbers(need(item, "bbox", list, where), 4, where)
        hard = bool(item.get("iscrowd") or item.get("ignore") or item.get("difficult"))
        found[key].append(((x, y, x + width, y + height), label, hard, _ring(item)))
    scenes = []
    oriented = any(found.values()) and all(ring for items in found.values() for *_, ring in items)
    for key, entry in images.items():
        if split is not None and entry.get("split") != split:
            continue
        items = found[key]
        scenes.append(gather(
            place(need(entry, "file_name", str, f"{file}: image {key}"), root, _PICTURES), [box for box, *_ in items],
            [item[1] for item in items], [item[2] for item in items],
            corners=[item[3] for item in items] if oriented else None, number=key,
        ))  # fmt: skip
    name = root.resolve().name
    return Boxed(name, root, "coco", tuple(scenes), tuple(title for _, title in categories), split, places)


def _ring(item: Any) -> list[float] | None:  # noqa: ANN401 - a parsed annotation
    """Return the four corners of an oriented box, None where the polygon is something else."""
    polygons = item.get("segmentation")
    ring = polygons[0] if isinstance(polygons, list) and len(polygons) == 1 else None
    if not isinstance(ring, list) or len(ring) != _CORNERS:
        return None
    return [float(value) for value in ring]
