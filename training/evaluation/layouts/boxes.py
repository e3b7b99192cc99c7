"""Images with boxes by category, from any layout that ``geoalign-data`` reads (COCO, our records, DOTA and others)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.errors import UsageError
from training.data.errors import DataError
from training.data.images import decode, picture_size, read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from training.data.schema import Record

_DECIMALS = 6
"""Of box pixels: boxes come as shares, which whole pixels must survive."""


@dataclass(frozen=True, slots=True)
class BoxedScene:
    """An image and its true boxes."""

    root: Path
    image: str
    """From ``root``."""
    width_px: int
    height_px: int
    boxes_xyxy_px: Mapping[str, NDArray[np.float64]]
    """By category, (N, 4); they may leave the image."""

    def pixels(self) -> NDArray[np.uint8]:
        """Decode the image into uint8 RGB (H, W, 3).

        Raises:
            DataError: It is damaged, or of another size than its boxes were drawn on.
        """
        image = decode(read_bytes(self.root, self.image), self.image)
        if image.shape[:2] != (self.height_px, self.width_px):
            raise DataError(
                "an image has another size than its annotations say", path=self.root / self.image,
                measured=f"{image.shape[1]} × {image.shape[0]}, not {self.width_px} × {self.height_px} px",
                remedy="take the images that the boxes were drawn on",
            )  # fmt: skip
        return image

    def all_boxes(self) -> NDArray[np.float64]:
        """Return (N, 4) boxes of all categories."""
        return np.concatenate([np.zeros((0, 4)), *self.boxes_xyxy_px.values()])


@dataclass(frozen=True, slots=True)
class Boxes:
    """A data set of boxes."""

    name: str
    scenes: tuple[BoxedScene, ...]
    """Sorted by image."""
    categories: tuple[str, ...]
    unnamed: int
    """Boxes without a category, which are left out."""


def read_boxes(path: Path, *, split: str | None = None, names: Sequence[str] | None = None) -> Boxes:
    """Read the boxes of a data set; no picture is decoded.

    Args:
        path: Its folder or file.
        split: Only images of this part.
        names: Only images whose file name, or path from the folder, is one of these.

    Raises:
        DataError: The data is missing or of no known layout, no box has a category, or nothing is left.
    """
    from training.evaluation.layouts.records import CATEGORIES, open_records

    source = open_records(path, CATEGORIES)
    wanted = None if names is None else set(names)
    scenes, unnamed = [], 0
    for record in source.records():
        if (split is not None and record.split != split) or (
            wanted is not None and not {record.image, Path(record.image).name} & wanted
        ):
            continue
        scenes.append(_scene(record, source.root))
        unnamed += sum(not region.category for region in record.regions)
    if not scenes:
        raise DataError(
            "has no image that was asked for", path=path, measured=f"split {split}" if split else None,
            remedy="check the split and the list of names",
        )  # fmt: skip
    categories = sorted({name for scene in scenes for name in scene.boxes_xyxy_px})
    if not categories:
        raise DataError("has no box with a category", path=path, remedy="give boxes with category names")
    scenes.sort(key=lambda scene: scene.image)
    return Boxes(source.name, tuple(scenes), tuple(categories), unnamed)


def _scene(record: Record, root: Path) -> BoxedScene:
    if record.width is None or record.height is None:
        width, height = picture_size(read_bytes(root, record.image), record.image)
    else:
        width, height = record.width, record.height
    found: dict[str, list[Any]] = {}
    for region in record.regions:
        if region.category:
            found.setdefault(region.category, []).append(region.bbox)
    sides = np.array([width, height, width, height])
    boxes = {name: np.round(np.array(items, np.float64) * sides, _DECIMALS) for name, items in found.items()}
    return BoxedScene(root, record.image, width, height, boxes)


def read_names(path: Path) -> list[str]:
    """Read a file of image names, one a line.

    Raises:
        UsageError: It cannot be read, or is empty.
    """
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError("is no list of images", path=path, remedy="give a text file, one name a line") from error
    if not names:
        raise UsageError("names no image", path=path, remedy="give one name a line")
    return names


def words_for(categories: Sequence[str], given: str | None) -> dict[str, tuple[str, ...]]:
    """Return what is asked for each category, by default its name in plain words (``small-vehicle``: small vehicle).

    Args:
        categories: Of the data.
        given: ``car=car|sedan;pool=swimming pool``, or a JSON file ``{"car": ["car", "sedan"], …}``; categories that
            it does not name are not asked for.

    Raises:
        UsageError: It names no category of the data, or no words.
    """
    if given is None:
        return {name: (" ".join(name.replace("_", " ").replace("-", " ").lower().split()),) for name in categories}
    table = word_table(given)
    unknown = [name for name in table if name not in categories]
    if unknown or not table:
        raise UsageError(
            "words are given for a category that the data does not have", measured=", ".join(unknown)[:80] or "none",
            remedy=f"use {', '.join(categories[:12])}",
        )  # fmt: skip
    return table


def word_table(given: str) -> dict[str, tuple[str, ...]]:
    """Return lists of words by name, from ``name=word|word;name=word`` or a JSON file.

    Raises:
        UsageError: It is neither, or a name has no words.
    """
    remedy = "write CATEGORY=word|word;CATEGORY=word, or give a JSON file of lists"
    if "=" in given:
        pairs = [part.partition("=") for part in given.split(";") if part.strip()]
        table: Any = {name.strip(): words.split("|") for name, _, words in pairs}
    else:
        try:
            table = json.loads(Path(given).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise UsageError("are no words", measured=given[:60], remedy=remedy) from error
    if not isinstance(table, dict):
        raise UsageError("are no words", measured=type(table).__name__, remedy=remedy)
    found = {}
    for name, words in table.items():
        listed = [words] if isinstance(words, str) else words
        if not isinstance(listed, list) or not all(isinstance(word, str) and word.strip() for word in listed or [0]):
            raise UsageError("has no words", measured=f"{name} = {words!r:.40}", remedy=remedy)
        found[name] = tuple(word.strip() for word in listed)
    return found
