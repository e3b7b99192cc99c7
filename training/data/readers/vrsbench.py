"""VRSBench: a JSON for each picture with a caption and objects with referring sentences, boxes as shares."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from training.data.readers.base import Placed, Reader, load_json, need, numbers, peek, place, text_or_none
from training.data.schema import Record, Region

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_SPLITS = ("train", "val", "test")
_PARENT = re.compile(r"_\d+$")
"""``P0003_0002`` and ``00002_0000`` are patches of DOTA's P0003 and DIOR's 00002."""
_KNOWN = ("image", "caption", "objects")
_KNOWN_OBJECT = ("obj_coord", "obj_corner", "obj_cls", "referring_sentence")


def _folders(path: Path) -> list[tuple[Path, str | None]]:
    """Return the folders of annotations, and their splits."""
    found = [(path / f"Annotations_{split}", split) for split in _SPLITS]
    found = [(folder, split) for folder, split in found if folder.is_dir()]
    if found:
        return [*found]
    split = path.name.removeprefix("Annotations_")
    return [(path, split if split in _SPLITS else None)]


def detect(path: Path) -> bool:
    """Say whether the first JSON of a folder has an image and objects with ``obj_coord`` or ``obj_cls``."""
    if not path.is_dir():
        return False
    first = next(iter(sorted(_folders(path)[0][0].glob("*.json"))), None)
    item = peek(first) if first else None
    objects = item.get("objects") if isinstance(item, dict) and "image" in item else None
    objects = [objects] if isinstance(objects, dict) else objects
    return isinstance(objects, list) and all(isinstance(entry, dict) and "obj_cls" in entry for entry in objects)


def root(path: Path) -> Path:
    """Return the folder above that of the annotations."""
    return path.parent if path.name.startswith("Annotations_") else path


def read(path: Path, images: Path | None) -> Iterator[Placed]:
    """Yield a record for each annotation file, sorted by name.

    Raises:
        DataError: A file is damaged, or an object has no box.
    """
    top = images or root(path)
    for folder, split in _folders(path):
        for file in sorted(folder.glob("*.json")):
            item = load_json(file)
            name = need(item, "image", str, str(file))
            objects = item.get("objects") or []
            objects = [objects] if isinstance(objects, dict) else objects
            record = Record(
                image=place(name, top, (f"Images_{split}", "images", "Images")),
                source="VRSBench",
                scene=_PARENT.sub("", name.rpartition(".")[0] or name),
                split=split,
                detailed_caption=text_or_none(item.get("caption")),
                regions=tuple(_region(entry, f"{file}: objects[{index}]") for index, entry in enumerate(objects)),
                extra={key: value for key, value in item.items() if key not in _KNOWN},
            )
            yield str(file), record


def _region(entry: Mapping[str, Any], where: str) -> Region:
    left, top, right, bottom = numbers(need(entry, "obj_coord", list, where), 4, where)
    corners = entry.get("obj_corner")
    obb: Any = numbers(corners, 8, where) if isinstance(corners, list) and len(corners) == 8 else None
    category = text_or_none(entry.get("obj_cls"))
    return Region(
        bbox=(left, top, right, bottom),
        obb=obb,
        category=category.replace("-", " ") if category else None,
        phrase=text_or_none(entry.get("referring_sentence")),
        extra={key: value for key, value in entry.items() if key not in _KNOWN_OBJECT},
    )


READER = Reader("vrsbench", "VRSBench: one JSON per picture", detect, read, root)
