"""DOTA's text files: four corners, class and difficulty of each object; the pictures beside need not be there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from training.data.errors import DataError
from training.data.readers.base import numbers, place
from training.evaluation.layouts.regions import Boxed, gather

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = ("labelTxt-v1.0", "labelTxt", "labelTxt-v1.5", "labelTxt-v2.0", "annfiles")
_PICTURES = ("images", "image", "../images")
_ABOUT = re.compile(r"(imagesource|gsd):", re.IGNORECASE)
_WORDS = (9, 10)


def _folder(path: Path, split: str | None) -> Path | None:
    tops = [path / split, path] if split else [path]
    for top in tops:
        for name in FOLDERS:
            if (top / name).is_dir():
                inner = top / name / split if split and top == path else top / name
                return inner if inner.is_dir() else None
    return path if path.name in FOLDERS else None


def detect(path: Path) -> bool:
    """Say whether there is a folder of DOTA's text files, in the folder or in one of its parts."""
    if not path.is_dir():
        return False
    return _folder(path, None) is not None or any(_folder(path, part) for part in ("train", "val", "test"))


def read(path: Path, split: str | None = None) -> Boxed:
    """Read the boxes.

    Args:
        path: The data set's folder, or that of the text files.
        split: A folder above or below that of the text files.

    Raises:
        DataError: A line is damaged (file and line are named), or the split has no folder.
    """
    folder = _folder(path, split)
    if folder is None:
        raise DataError(
            "has no text files here", path=path, measured=f"split {split}",
            remedy=f"put them into {FOLDERS[0]}, or name the part with --split train or val",
        )  # fmt: skip
    root = folder.parent if folder.name in FOLDERS else folder.parent.parent
    files = {file: _objects(file) for file in sorted(folder.glob("*.txt"))}
    classes = sorted({name for objects in files.values() for _, name, _ in objects})
    places = {name: number for number, name in enumerate(classes)}
    scenes = tuple(
        gather(
            place(file.stem, root, (*_PICTURES, *((f"images/{split}",) if split else ()))), [],
            [places[name] for _, name, _ in objects], [hard for _, _, hard in objects],
            corners=[corners for corners, _, _ in objects],
        )
        for file, objects in files.items()
    )  # fmt: skip
    return Boxed(path.resolve().name, root, "dota", scenes, tuple(classes), split)


def _objects(file: Path) -> list[tuple[tuple[float, ...], str, bool]]:
    try:
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise DataError("cannot be read", path=file, measured=error.strerror or str(error)) from error
    objects = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or _ABOUT.match(words[0]):
            continue
        where = f"{file}:{number}"
        if len(words) not in _WORDS:
            raise DataError("is not an object of DOTA", path=where, measured=f"{len(words)} words, not 9 or 10")
        hard = len(words) == max(_WORDS) and words[9] != "0"
        objects.append((numbers(words[:8], 8, where), words[8], hard))
    return objects
