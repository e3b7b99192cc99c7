"""DOTA: text files with four corners, a category and a difficulty for each object, and the pictures beside them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from training.data.errors import DataError
from training.data.readers.base import Placed, Reader, bounds, corner_shares, numbers, place, shares, sized
from training.data.schema import Record, Region

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LABELS = ("labelTxt", "labelTxt-v1.0", "labelTxt-v1.5", "labelTxt-v2.0", "annfiles", "labels")
_PICTURES = ("images", "image", "../images")
_META = re.compile(r"(imagesource|gsd):(.*)", re.IGNORECASE)
_PATCH = re.compile(r"__\d+__.*$")
"""What DOTA's splitting tools append to the name of the parent image."""


def _folder(path: Path) -> Path | None:
    """Return the folder of the text files."""
    if not path.is_dir():
        return None
    return next((path / name for name in _LABELS if (path / name).is_dir()), path)


def _objects(text: str) -> list[tuple[int, list[str]]]:
    lines = [(number, line.split()) for number, line in enumerate(text.split("\n"), start=1)]
    return [(number, words) for number, words in lines if words and not _META.match(words[0])]


def detect(path: Path) -> bool:
    """Say whether the first text file that is not empty has lines of eight numbers, a category and a difficulty."""
    folder = _folder(path)
    for file in sorted(folder.glob("*.txt"))[:20] if folder else ():
        try:
            objects = _objects(file.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if objects:
            words = objects[0][1]
            return len(words) in (9, 10) and all(re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", word) for word in words[:8])
    return False


def root(path: Path) -> Path:
    """Return the folder above that of the text files."""
    return path.parent if path.name in _LABELS else path


def read(path: Path, images: Path | None) -> Iterator[Placed]:
    """Yield a record for each text file. Without the size of the picture, which its header tells, it cannot.

    Raises:
        DataError: A line is no object, or a picture is missing.
    """
    top, folder = images or root(path), _folder(path)
    for file in sorted(folder.glob("*.txt")) if folder else ():
        try:
            text = file.read_text(encoding="utf-8-sig", errors="replace")
        except OSError as error:
            raise DataError("cannot be read", path=file, measured=error.strerror or str(error)) from error
        image = place(file.stem, top, _PICTURES)
        width, height = sized(None, None, top, image, str(file))
        meta = {key.lower(): value.strip() for key, value in _META.findall(text) if value.strip() not in ("", "null")}
        record = Record(
            image=image,
            width=width,
            height=height,
            source="DOTA",
            scene=_PATCH.sub("", file.stem),
            regions=tuple(_region(words, width, height, f"{file}:{number}") for number, words in _objects(text)),
            extra=meta,
        )
        yield str(file), record


def _region(words: list[str], width: int, height: int, where: str) -> Region:
    if len(words) not in (9, 10):
        raise DataError("is not an object of DOTA", path=where, measured=f"{len(words)} words, not 9 or 10")
    corners = numbers(words[:8], 8, where)
    difficulty = int(words[9]) if len(words) == 10 and words[9].isdigit() else 0
    return Region(
        bbox=shares(bounds(corners), width, height),
        obb=corner_shares(corners, width, height),
        category=words[8].replace("-", " "),
        extra={"difficult": difficulty} if difficulty else {},
    )


READER = Reader("dota", "DOTA text files with oriented boxes", detect, read, root)
