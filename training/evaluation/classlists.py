"""Classes to segment, as data: one class a line, commas between its words; tables of the colours of masks.

The lists of the eight sets are SegEarth-OV's (``configs/cls_*.txt``), FarSLIP uses the same. The order is that of the
labels. A class is as likely at a pixel as the likeliest of its words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "classlists"
UNLABELLED = -1
"""The label of pixels that do not count."""
_NOTHING = "unlabelled"


@dataclass(frozen=True, slots=True)
class ClassList:
    """C classes and their Q words."""

    names: tuple[str, ...]
    """The first word of each."""
    words: tuple[str, ...]
    owners: NDArray[np.int64]
    """(Q,) the class of each word."""


@dataclass(frozen=True, slots=True)
class KnownSet:
    """What has to be known of a published set besides its classes."""

    id: str
    """As in the catalogue; the list of its classes is called the same."""
    background: int
    """The class of pixels that are not likely enough to be anything."""
    zero_is_unlabelled: bool
    """Whether masks count classes from 1 and 0 does not count (mmseg's ``reduce_zero_label``)."""
    mask_ending: str
    """What masks have behind the name of their image."""
    split: str
    """The part that the published figures are of."""


def _known() -> dict[str, KnownSet]:
    found = json.loads((FOLDER / "sets.json").read_text(encoding="utf-8"))
    return {name: KnownSet(id=name, **item) for name, item in found.items()}


SETS: Mapping[str, KnownSet] = _known()
"""By id."""


def list_file(name: str) -> Path:
    """Return the file of a published set's classes."""
    return FOLDER / f"{name}.txt"


def colour_file(name: str) -> Path | None:
    """Return the file of a published set's colours, None where its masks hold labels only."""
    path = FOLDER / f"{name}.colours.txt"
    return path if path.is_file() else None


def read_class_list(path: Path) -> ClassList:
    """Read classes, one a line with commas between words; ``#`` begins a comment line.

    Raises:
        DataError: The file is missing or no text, gives a word twice, or has fewer than two classes.
    """
    rows = []
    for number, line in _lines(path):
        row = tuple(word.strip() for word in line.split(",") if word.strip())
        if not row:
            raise DataError("a class has no words", path=f"{path}:{number}", remedy="write word, other word")
        rows.append(row)
    names = [row[0] for row in rows]
    words = [word for row in rows for word in row]
    twice = sorted({word for word in words if words.count(word) > 1})
    if twice:  # the later class could never be the likeliest
        raise DataError("names a class twice", path=path, measured=twice[0][:60], remedy="give a word to one class")
    if len(rows) < 2:
        raise DataError("has fewer than two classes", path=path, remedy="write one class a line")
    return ClassList(
        tuple(names),
        tuple(words),
        np.repeat(np.arange(len(rows)), [len(row) for row in rows]).astype(np.int64),
    )


def read_colours(path: Path, classes: ClassList) -> dict[int, int]:
    """Read ``red green blue class`` lines into label by colour, 65536 red + 256 green + blue.

    The class is a name of the list, its place from 0, or ``unlabelled``.

    Raises:
        DataError: The file is missing or no text, or a line is none of these; it is named.
    """
    places = {name: place for place, name in enumerate(classes.names)}
    places |= {str(place): place for place in range(len(classes.names))} | {_NOTHING: UNLABELLED}
    found: dict[int, int] = {}
    for number, line in _lines(path):
        parts = line.replace(",", " ").split(maxsplit=3)
        shades = [int(part) for part in parts[:3] if part.isascii() and part.isdigit() and int(part) < 256]
        if len(shades) < 3 or len(parts) < 4 or parts[3] not in places:
            raise DataError(
                "is no colour with a class", path=f"{path}:{number}", measured=line[:60],
                remedy="write red green blue class, 0 to 255",
            )  # fmt: skip
        colour = (shades[0] << 16) + (shades[1] << 8) + shades[2]
        if found.setdefault(colour, places[parts[3]]) != places[parts[3]]:
            raise DataError("gives a colour two classes", path=f"{path}:{number}", measured=line[:60])
    if not found:
        raise DataError("holds no colours", path=path, remedy="write red green blue class, a line each")
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield numbers, from 1, and texts of the lines that are not empty and no comment."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError("is missing or no text", path=path, remedy="give a text file") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()
