"""Images with one class each: SkyScript's tables with ``classnames.txt``, folders by class, records with labels."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from training.data.errors import DataError
from training.data.images import SUFFIXES
from training.data.readers import detect, open_source
from training.evaluation.layouts.captions import chosen_split, parts_note
from training.evaluation.layouts.tables import IMAGES, read_table, root_of, table_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES = "classnames.txt"
_LABELS = ("label", "class", "classname", "category")
_FEW = 2
_SPLITS = {"train", "val", "valid", "validation", "test"}


@dataclass(frozen=True, slots=True)
class Labelled:
    """N images in C classes."""

    name: str
    root: Path
    images: tuple[str, ...]
    labels: NDArray[np.int64]
    """(N,) places in ``classes``."""
    classes: tuple[str, ...]
    """Names as the data has them."""
    words: tuple[str, ...]
    """What a model is told of each class."""
    split: str | None = None
    without: int = 0
    """Images left out because they have no label."""
    note: str = ""

    def take(self, places: Iterable[int]) -> Labelled:
        """Return some of the images; all classes stay candidates."""
        chosen = [int(place) for place in places]
        return replace(self, images=tuple(self.images[place] for place in chosen), labels=self.labels[chosen])


def in_words(name: str) -> str:
    """Return a folder's name in words: ``BareLand`` and ``bare_land`` give ``bare land``."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return " ".join(re.sub(r"[_\-]+", " ", apart).lower().split()) or name


def read_classes(path: Path, *, split: str | None = None) -> Labelled:
    """Read SkyScript's layout: a table with ``filepath`` and ``label``, and ``classnames.txt`` beside it.

    Labels are names of the file, or, where every one is a whole number, places in it.

    Raises:
        DataError: A file is missing, or a label is unknown; its line is named.
    """
    if not path.exists():
        raise DataError("is missing", path=path, remedy="give the data set's folder or its table")
    if path.is_dir() and not any(path.glob("*.[ct]sv")):
        raise DataError(
            "has no table of images and labels", path=path,
            remedy="take --protocol zsc-folders where each class has a folder, or give the table",
        )  # fmt: skip
    table = read_table(table_of(path, split))
    classes = class_names(table.path.parent / CLASSES)
    rows = list(table.cells(table.need(IMAGES), table.need(_LABELS)))
    labelled = [(where, image, label) for where, (image, label) in rows if label]
    places = {name: place for place, name in enumerate(classes)}
    if not set(places) & {label for _, _, label in labelled}:
        places = {str(place): place for place in range(len(classes))}
    labels = []
    for where, image, label in labelled:
        if not image or label not in places:
            what = "a label is not in classnames.txt" if image else "a row has no image"
            raise DataError(what, path=where, measured=label[:60], remedy=f"check {CLASSES}")
        labels.append(places[label])
    root, images = root_of(table.path.parent, [image for _, image, _ in labelled])
    name = table.path.parent.name if path.is_dir() else table.path.stem
    return _checked(
        Labelled(name, root, images, np.array(labels, np.int64), classes, classes, split, len(rows) - len(labelled)),
        path,
    )


def class_names(path: Path) -> tuple[str, ...]:
    """Return the lines of a file of class names.

    Raises:
        DataError: It is missing, no text, or names a class twice.
    """
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError("is missing or no text", path=path, remedy="write one class a line, in order") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError("names a class twice", path=path, measured=twice[0][:60])
    return tuple(names)


def read_folders(path: Path, *, split: str | None = None, words: Path | None = None) -> Labelled:
    """Read images in one folder per class, or records with labels in any layout that the readers know.

    Args:
        path: The folder; with ``split``, the folder of that name inside it where there is one.
        split: The part.
        words: JSON object from class to what a model is told; others are put into words by :func:`in_words`.

    Raises:
        DataError: There are no images, fewer than two classes, or the words are damaged.
    """
    if not path.exists():
        raise DataError("is missing", path=path, remedy="give a folder with one folder per class")
    told = {} if words is None else read_words(words)
    if detect(path) is not None:
        return _checked(_from_records(path, split, told), path)
    if not path.is_dir():
        raise DataError("is no folder of classes", path=path, remedy="give a folder with one folder per class")
    if split is not None and not (path / split).is_dir():
        raise DataError(f"has no folder {split!r}", path=path, remedy="leave the split out, or give another")
    top = path if split is None else path / split
    found: dict[str, list[str]] = {}
    for folder in sorted(entry for entry in top.iterdir() if entry.is_dir() and not _foreign(entry)):
        files = sorted(
            file.relative_to(top).as_posix()
            for file in folder.rglob("*")
            if file.suffix[1:].lower() in SUFFIXES and not _foreign(file)
        )
        found[folder.name] = files
    empty = [name for name, files in found.items() if not files]
    found = {name: files for name, files in found.items() if files}
    if found and {name.lower() for name in found} <= _SPLITS:
        raise DataError("has splits in place of classes", path=top, measured=", ".join(found), remedy="choose a split")
    classes = tuple(found)
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in found.values()])
    images = tuple(file for files in found.values() for file in files)
    named = path.resolve().name
    note = f"Folders without pictures are no classes here: {', '.join(empty)[:90]}." if empty else ""
    return _checked(Labelled(named, top, images, labels, classes, _told(classes, told, words), split, note=note), path)


def _foreign(path: Path) -> bool:
    """Say whether a file or folder is a program's own: ``.ipynb_checkpoints``, and ``._a.jpg`` of macOS."""
    return path.name.startswith(".") or path.name == "__MACOSX"


def _from_records(path: Path, split: str | None, told: Mapping[str, str]) -> Labelled:
    source = open_source(path)
    records = list(source.records())
    part = chosen_split(records, split, path)
    taken = [record for record in records if part is None or record.split == part]
    kept = [(record.image, record.label) for record in taken if record.label]
    classes = tuple(sorted({record.label for record in records if record.label}))
    places = {name: place for place, name in enumerate(classes)}
    labels = np.array([places[label] for _, label in kept], np.int64)
    images = tuple(image for image, _ in kept)
    return Labelled(
        source.name, source.root, images, labels, classes, _told(classes, told, None), part, len(taken) - len(kept),
        parts_note(records, split),
    )  # fmt: skip


def read_words(path: Path) -> dict[str, str]:
    """Return what a model is told of classes, from a JSON object.

    Raises:
        DataError: The file is missing or of another shape.
    """
    if not path.is_file():
        raise DataError("is missing", path=path, remedy='write {"class": "its words"}')
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(told, dict) or not all(isinstance(value, str) and value.strip() for value in told.values()):
            raise ValueError("not an object of texts")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            "has no words for classes", path=path, measured=str(error)[:60], remedy='write {"class": "its words"}'
        ) from error
    return told


def _told(classes: tuple[str, ...], told: Mapping[str, str], path: Path | None) -> tuple[str, ...]:
    unknown = sorted(set(told) - set(classes))
    if unknown:
        raise DataError("has words for a class that is not there", path=path, measured=unknown[0][:60])
    return tuple(told.get(name, in_words(name)) for name in classes)


def _checked(found: Labelled, path: Path) -> Labelled:
    if not found.images:
        raise DataError("has no images with a class", path=path, remedy="check the layout and the split")
    if len(found.classes) < _FEW:
        raise DataError(
            "has fewer than two classes", path=path, measured=", ".join(found.classes),
            remedy="give the folder that the classes' folders lie in",
        )  # fmt: skip
    return found
