"""DIOR-RSVG: Pascal VOC's XML with a description for each object.

``train.txt``, ``val.txt`` and ``test.txt`` hold numbers of objects, counted from 0 through all XML files in the order
of their names [C RSVG-pytorch: data_loader.py counts in the order in which the system lists them]. So one image may
have objects in several splits; it becomes a record in each. Older lists of file names are understood too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from training.data.errors import DataError
from training.data.readers.base import Placed, Reader, numbers, place, shares, sized, text_or_none
from training.data.schema import Record, Region

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SPLITS = ("train", "val", "test")
_FOLDERS = ("JPEGImages", "images", "../JPEGImages")
_TRIED = 8


@dataclass(frozen=True, slots=True)
class _Splits:
    """Which objects, by number, or files, by stem, belong to which split."""

    objects: dict[int, str]
    files: dict[str, str]

    def of(self, number: int, stem: str) -> str | None:
        return self.objects.get(number, self.files.get(stem))


def _folder(path: Path) -> Path:
    return path / "Annotations" if (path / "Annotations").is_dir() else path


def root(path: Path) -> Path:
    """Return the folder above that of the XML files."""
    return path.parent if path.name == "Annotations" else path


def detect(path: Path) -> bool:
    """Say whether the first sound XML file of a folder has objects with descriptions: reading names a damaged one."""
    try:
        first = first_tree(path) if path.is_dir() else None
    except DataError:
        return False
    return first is not None and first.find("object/description") is not None


def first_tree(path: Path) -> ET.Element | None:
    """Return the first XML file of a folder that can be read, of a few; None where there is none at all.

    Raises:
        DataError: All of these are damaged; the first is named.
    """
    damage: DataError | None = None
    for file in sorted(_folder(path).glob("*.xml"))[:_TRIED]:
        try:
            return _parsed(file)
        except DataError as error:
            damage = damage or error
    if damage is not None:
        raise damage
    return None


def read(path: Path, images: Path | None) -> Iterator[Placed]:
    """Yield a record for each XML file and split that it has objects of.

    Raises:
        DataError: A file is damaged, an object has no box, or the lists name no object.
    """
    top = images or root(path)
    splits, number = _splits(root(path)), 0
    for file in sorted(_folder(path).glob("*.xml")):
        tree = _parsed(file)
        name = text_or_none(tree.findtext("filename")) or file.stem
        image = place(name, top, _FOLDERS)
        told_width, told_height = (_number(tree.findtext(f"size/{side}")) for side in ("width", "height"))
        width, height = sized(told_width, told_height, top, image, str(file))
        scene = name.rpartition(".")[0] or name
        record = Record(image=image, width=width, height=height, source="DIOR-RSVG", scene=scene)
        groups: dict[str | None, list[Region]] = {}
        for index, item in enumerate(tree.findall("object")):
            region = _region(item, width, height, f"{file}: object {index}")
            groups.setdefault(splits.of(number, file.stem), []).append(region)
            number += 1
        for split, regions in groups.items():
            yield str(file), replace(record, split=split, regions=tuple(regions))
    if splits.objects and max(splits.objects) >= number:
        raise DataError(
            "the split lists number more objects than there are",
            path=root(path),
            measured=f"object {max(splits.objects)} of {number}",
            remedy="give the whole data set",
        )


def _splits(folder: Path) -> _Splits:
    objects: dict[int, str] = {}
    files: dict[str, str] = {}
    for split in _SPLITS:
        try:
            entries = (folder / f"{split}.txt").read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError):
            continue
        if any((len(entry) > 1 and entry.startswith("0")) or not entry.isdigit() for entry in entries):
            files.update((entry.rpartition(".")[0] or entry, split) for entry in entries)
        else:
            objects.update((int(entry), split) for entry in entries)
    return _Splits(objects, files)


def _parsed(file: Path) -> ET.Element:
    try:
        data = file.read_bytes()
        if b"<!ENTITY" in data:
            raise DataError("defines entities, which annotations never do", path=file)
        return ET.fromstring(data)  # nosec B314 - entities are refused above
    except ET.ParseError as error:
        raise DataError("is not XML", path=f"{file}:{error.position[0]}", measured=str(error)) from error
    except (OSError, ValueError, LookupError) as error:
        raise DataError("cannot be read", path=file, measured=str(error)[:80]) from error


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _region(item: ET.Element, width: int, height: int, where: str) -> Region:
    box = [item.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
    return Region(
        bbox=shares(numbers(box, 4, where), width, height),
        category=text_or_none(item.findtext("name")),
        phrase=text_or_none(item.findtext("description")),
    )


READER = Reader("dior-rsvg", "DIOR-RSVG: VOC XML with descriptions", detect, read, root)
