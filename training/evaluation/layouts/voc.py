"""Pascal VOC's XML as DIOR has it: ``Annotations``, ``ImageSets/Main/test.txt`` and folders of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from training.data.errors import DataError
from training.data.readers.base import numbers, place, text_or_none
from training.evaluation.layouts.regions import Boxed, gather

if TYPE_CHECKING:
    from pathlib import Path

ANNOTATIONS = ("Annotations/Horizontal Bounding Boxes", "Annotations")
_PICTURES = ("JPEGImages", "JPEGImages-test", "JPEGImages-trainval", "JPEGImages-val", "images")
_LISTS = ("ImageSets/Main", "Main", "")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def _folder(path: Path) -> Path | None:
    return next((path / name for name in ANNOTATIONS if next((path / name).glob("*.xml"), None)), None)


def detect(path: Path) -> bool:
    """Say whether there is a folder of XML files."""
    return path.is_dir() and _folder(path) is not None


def read(path: Path, split: str | None = None) -> Boxed:
    """Read the boxes; ``difficult`` ones are marked.

    Args:
        path: The folder above ``Annotations``.
        split: Name of a list of images; by default ``test`` where there is such a list, else all images.

    Raises:
        DataError: A file is damaged, a listed image has no XML, or the list is missing or no list of images.
    """
    folder = _folder(path) or path
    lists = {name: path / top / f"{name}.txt" for top in reversed(_LISTS) for name in {split or "test"}
             if (path / top / f"{name}.txt").is_file()}  # fmt: skip
    if split is not None and split not in lists:
        raise DataError(f"has no list {split}.txt", path=path / _LISTS[0], remedy="give another split, or none")
    split = split or next(iter(lists), None)
    files = sorted(folder.glob("*.xml")) if split is None else _listed(lists[split], folder)
    found = {file: _objects(file) for file in files}
    classes = sorted({name for _, objects in found.values() for _, name, _ in objects})
    places = {name: number for number, name in enumerate(classes)}
    scenes = tuple(
        gather(
            place(image, path, _PICTURES), [box for box, _, _ in objects], [places[name] for _, name, _ in objects],
            [hard for _, _, hard in objects],
        )
        for image, objects in found.values()
    )  # fmt: skip
    return Boxed(path.resolve().name, path, "voc", scenes, tuple(classes), split)


def _listed(file: Path, folder: Path) -> list[Path]:
    try:
        names = [line.split()[0] for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError("is no list of images", path=file, measured=str(error)[:60]) from error
    stems = [name.rpartition(".")[0] or name for name in names]
    missing = [stem for stem in stems if not (folder / f"{stem}.xml").is_file()]
    if missing:
        raise DataError(
            "lists an image without annotations", path=file, measured=f"{missing[0][:60]}; {len(missing)} in all",
            remedy="complete the folder of annotations",
        )  # fmt: skip
    return [folder / f"{stem}.xml" for stem in dict.fromkeys(stems)]


def _objects(file: Path) -> tuple[str, list[tuple[tuple[float, ...], str, bool]]]:
    """Return the picture's name, and box, class and difficulty of each object."""
    try:
        data = file.read_bytes()
        if b"<!ENTITY" in data:
            raise DataError("defines entities, which annotations never do", path=file)
        tree = ET.fromstring(data)  # nosec B314 - entities are refused above
    except ET.ParseError as error:
        raise DataError("is not XML", path=f"{file}:{error.position[0]}", measured=str(error)) from error
    except (OSError, ValueError, LookupError) as error:
        raise DataError("cannot be read", path=file, measured=str(error)[:80]) from error
    objects = []
    for number, item in enumerate(tree.findall("object")):
        where = f"{file}: object {number}"
        name = text_or_none(item.findtext("name"))
        if name is None:
            raise DataError("an object has no name", path=where)
        box = numbers([item.findtext(f"bndbox/{side}") for side in _SIDES], 4, where)
        objects.append((box, name, (item.findtext("difficult") or "0").strip() not in ("", "0")))
    return file.stem, objects
