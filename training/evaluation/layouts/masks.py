"""Images with a mask each: folders paired by name, labels as numbers, palette places or colours."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from training.data.errors import DataError
from training.data.images import SUFFIXES, picture_size, read_bytes
from training.evaluation.classlists import UNLABELLED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_FOLDERS = (
    ("img_dir", "ann_dir"), ("src", "gt"), ("images", "masks"), ("images", "labels"), ("images", "annotations"),
    ("Images", "Labels"), ("images_png", "masks_png"), ("JPEGImages", "SegmentationClass"),
)  # fmt: skip
"""Names of the two folders: mmseg's, UDD5's and VDD's, and other common ones; a split lies above or below them."""
_PARTS = ("val", "test", "")
_LABELS = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L", "LA", "PA")


@dataclass(frozen=True, slots=True)
class Masked:
    """N images and their masks."""

    name: str
    root: Path
    images: tuple[str, ...]
    """From ``root``, sorted."""
    masks: tuple[str, ...]
    split: str | None
    lonely_images: tuple[str, ...] = ()
    """Without a mask."""
    lonely_masks: tuple[str, ...] = ()
    """Without an image."""

    def take(self, places: Iterable[int]) -> Masked:
        """Return some of the pairs."""
        chosen = [int(place) for place in places]
        return replace(
            self, images=tuple(self.images[n] for n in chosen), masks=tuple(self.masks[n] for n in chosen)
        )  # fmt: skip


def find_pairs(
    path: Path, *, split: str | None = None, images: str | None = None, masks: str | None = None, ending: str = "",
    first: str = "val",
) -> Masked:  # fmt: skip
    """Find images and masks of one name; suffixes may differ, folders below are kept apart.

    Args:
        path: The data set's folder.
        split: The part; by default ``first``, ``val``, ``test`` or none, the first that is there.
        images: Folder of the images from ``path``, where it is none of the usual ones.
        masks: Folder of the masks.
        ending: What masks have behind the name of their image (``_instance_color_RGB``).
        first: The part that is looked for before the others.

    Raises:
        DataError: There are no such folders, no pairs, or two files of one name.
    """
    if not path.is_dir():
        raise DataError("is missing", path=path, remedy="give the data set's folder")
    if (images is None) != (masks is None):
        raise DataError("needs both folders or neither", path=path, remedy="give -s images=FOLDER -s masks=FOLDER")
    upper, lower, part = (images, masks, split) if images and masks else _folders(path, split, first)
    left, right = _by_name(path, upper, ""), _by_name(path, lower, ending)
    both = sorted(left.keys() & right.keys())
    if not both:
        raise DataError(
            "no image has a mask of its name", path=path, measured=f"{len(left)} in {upper}, {len(right)} in {lower}",
            remedy="name masks as images, or give -s mask_ending=ENDING",
        )  # fmt: skip
    return Masked(
        path.resolve().name, path, tuple(left[name] for name in both), tuple(right[name] for name in both), part,
        tuple(left[name] for name in sorted(left.keys() - right.keys())),
        tuple(right[name] for name in sorted(right.keys() - left.keys())),
    )  # fmt: skip


def _folders(path: Path, split: str | None, first: str) -> tuple[str, str, str | None]:
    for part in dict.fromkeys((first, *_PARTS)) if split is None else (split,):
        for pair in _FOLDERS:
            for form in ("{0}/{1}", "{1}/{0}"):
                left, right = (form.format(name, part).strip("/") for name in pair)
                if (path / left).is_dir() and (path / right).is_dir():
                    return left, right, part or None
    raise DataError(
        "has no folders of images and masks" + (f" of the split {split!r}" if split else ""), path=path,
        remedy="make img_dir/val and ann_dir/val, or give -s images=FOLDER -s masks=FOLDER",
    )  # fmt: skip


def _by_name(root: Path, folder: str, ending: str) -> dict[str, str]:
    """Return files by their path below the folder without suffix and ending."""
    top, found = root / folder, dict[str, str]()
    if not top.is_dir():
        raise DataError("is no folder", path=top, remedy="check images and masks")
    for file in sorted(top.rglob("*")):
        if file.suffix[1:].lower() not in SUFFIXES or not file.is_file():
            continue
        name = file.relative_to(top).with_suffix("").as_posix()
        if not name.endswith(ending):
            continue
        name = name.removesuffix(ending)
        if name in found:
            raise DataError("has two files of one name", path=top, measured=f"{found[name]}, {file.name}")
        found[name] = file.relative_to(root).as_posix()
    return found


@dataclass(frozen=True, slots=True)
class MaskReader:
    """How masks are read."""

    classes: int
    ignore: int = 255
    """The number in a mask of pixels that do not count."""
    zero_is_unlabelled: bool = False
    """Whether 0 does not count either and classes begin at 1; not for masks of colours."""
    colours: Mapping[int, int] | None = None
    """Label by colour, as :func:`training.evaluation.classlists.read_colours` gives it."""
    unknown: str = "refuse"
    """``refuse`` masks with labels that are no class, or ``ignore`` those pixels."""

    def read(self, root: Path, mask: str) -> tuple[NDArray[np.int32], int]:
        """Return labels (H, W), −1 where a pixel does not count, and how many of these are of no known class.

        Raises:
            DataError: The file is missing or damaged, is in colours without a table, or has unknown labels.
        """
        values = _values(root, mask)
        if values.ndim == 3:
            if self.colours is None:
                raise DataError(
                    "a mask is in colours", path=root / mask, remedy="give -s colours=FILE of red green blue class"
                )
            packed = values.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
            labels, strange = _looked_up(packed, self.colours)
        else:
            labels = values.astype(np.int32)
            hidden = labels == self.ignore
            if self.zero_is_unlabelled:
                hidden |= labels == 0
                labels = labels - 1
            strange = ~hidden & ((labels < 0) | (labels >= self.classes))
            labels = np.where(hidden | strange, UNLABELLED, labels)
        count = int(strange.sum())
        if count and self.unknown == "refuse":
            raise DataError(
                "a mask has a label that is no class", path=root / mask,
                measured=f"{_first(values, strange)} in {count:,} of {strange.size:,} px",
                remedy="check the classes, zero and colours, or add -s unknown=ignore",
            )  # fmt: skip
        return labels, count


def _looked_up(packed: NDArray[np.int32], colours: Mapping[int, int]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    keys = np.array(sorted(colours), np.int32)
    labels = np.array([colours[int(key)] for key in keys], np.int32)
    places = np.minimum(np.searchsorted(keys, packed), len(keys) - 1)
    strange = keys[places] != packed
    return np.where(strange, UNLABELLED, labels[places]), strange


def _first(values: NDArray[np.int32], strange: NDArray[np.bool_]) -> str:
    return " ".join(str(part) for part in np.atleast_1d(values[strange][0]))


def _values(root: Path, mask: str) -> NDArray[np.int32]:
    """Return (H, W) numbers or (H, W, 3) colours of a mask's file; palettes give places."""
    from PIL import Image

    payload = read_bytes(root, mask)
    picture_size(payload, str(root / mask))  # refuses what is no picture, damaged at its head or a bomb
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(payload)) as image:
                if image.mode in _LABELS:
                    values = np.asarray(image, np.int32)
                    return values[..., 0] if values.ndim == 3 else values
                if image.mode in ("RGB", "RGBA"):
                    return np.asarray(image.convert("RGB"), np.int32)
                raise ValueError(f"mode {image.mode}")
    except (OSError, SyntaxError, ValueError, EOFError, TypeError) as error:
        raise DataError(
            "a mask cannot be read", path=root / mask, measured=str(error)[:80], remedy="write it as 8-bit PNG"
        ) from error
