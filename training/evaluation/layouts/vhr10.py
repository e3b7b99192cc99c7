"""NWPU VHR-10: ``positive image set/001.jpg`` and ``ground truth/001.txt`` with lines ``(x1,y1),(x2,y2),class``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from training.data.errors import DataError
from training.evaluation.layouts.regions import Boxed, gather, no_splits

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = (
    "airplane", "ship", "storage tank", "baseball diamond", "tennis court", "basketball court", "ground track field",
    "harbor", "bridge", "vehicle",
)  # fmt: skip
"""Numbered from 1, as the data set's readme has them (Cheng et al. 2014)."""
PICTURES, TRUTH = "positive image set", "ground truth"
_LINE = re.compile(r"\(\s*(-?\d+)\s*,\s*(-?\d+)\s*\)\s*,\s*\(\s*(-?\d+)\s*,\s*(-?\d+)\s*\)\s*,\s*(\d+)\s*")


def _top(path: Path) -> Path | None:
    """Return the folder that has both folders: the given one or the only one inside it that does."""
    if not path.is_dir():
        return None
    candidates = [path, *sorted(entry for entry in path.iterdir() if entry.is_dir())]
    return next((top for top in candidates if (top / TRUTH).is_dir() and (top / PICTURES).is_dir()), None)


def detect(path: Path) -> bool:
    """Say whether a folder holds the two folders."""
    return _top(path) is not None


def read(path: Path, split: str | None = None) -> Boxed:
    """Read the boxes.

    Raises:
        DataError: A line is damaged or of no class (file and line are named), or a split is asked for.
    """
    no_splits(path, split)
    top, scenes = _top(path) or path, []
    for file in sorted((top / TRUTH).glob("*.txt")):
        boxes, labels = [], []
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise DataError("cannot be read", path=file, measured=str(error)[:60]) from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            found = _LINE.fullmatch(line.strip())
            if found is None or not 1 <= int(found[5]) <= len(CLASSES):
                raise DataError(
                    "is not (x1,y1),(x2,y2),class", path=f"{file}:{number}", measured=line.strip()[:60],
                    remedy=f"classes are 1 to {len(CLASSES)}",
                )  # fmt: skip
            x1, y1, x2, y2 = (int(found[group]) for group in range(1, 5))
            boxes.append((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
            labels.append(int(found[5]) - 1)
        scenes.append(gather(f"{PICTURES}/{file.stem}.jpg", boxes, labels))
    return Boxed(path.resolve().name, top, "vhr10", tuple(scenes), CLASSES)
