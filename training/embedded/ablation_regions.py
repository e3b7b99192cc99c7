"""Regions of the ablation: boxes in windows, the phrases that rules make of them, and what those could be mistaken for.

A phrase has up to four parts, "a [size] [colour] <category> in the <position>": the size from the box in metres
(aircraft only), the colour as the data set builder measures it, the position from the box's centre in its window. A
hard negative changes exactly one part, so that it is false by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.builder.appearance import colours_present, region_appearance
from training.builder.lexicon import colour_family
from training.data.schema import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CATEGORIES = ("airplane", "car", "swimming pool")
"""What the boxes hold; a region's category is its number here."""
DISTRACTORS = (
    "ship", "storage tank", "tree", "house", "bridge", "truck", "helicopter", "tennis court", "baseball field",
)  # fmt: skip
"""Further names to choose from when regions are classified."""
RULES = ("attribute", "orientation", "category")
CONFUSABLE = {
    "airplane": ("helicopter", "ship", "terminal building"), "car": ("truck", "bus", "container"),
    "swimming pool": ("tennis court", "pond", "trampoline"),
}  # fmt: skip
_CONTRASTS = ("black", "white", "red", "blue", "green", "yellow")
_MOST_CONTRASTS = 3
_OPPOSITE = {"upper": "lower", "lower": "upper", "left": "right", "right": "left"}
_SMALL_AIRCRAFT_M, _LARGE_AIRCRAFT_M = 37.0, 60.0
"""Quartiles of the aircraft of the training scenes."""
_MARGIN = 0.1
"""A side is only named for a centre at least this share of the window away from the middle line (§1.7's rule)."""


@dataclass(frozen=True, slots=True)
class Box:
    """One object in its image."""

    key: str
    """Of its crop: image and place."""
    xyxy_px: tuple[float, float, float, float]
    """In pixels of the original image."""
    category: int
    size: str
    colour: str
    """Empty where none is sure."""
    contrasts: tuple[str, ...]
    """Colours that it surely has not; none without a colour."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A box in a window of the training or the held-out data."""

    box: Box
    xyxy_px: tuple[float, float, float, float]
    """In the window's pixels, cut at its edges."""
    phrase: str
    negatives: tuple[tuple[str, str], ...]
    """(text, rule)"""


def place(box: Box, xyxy_px: NDArray[np.float64], side_px: int, *, visible: float = 0.6) -> Placed | None:
    """Put a box into a window, or leave it out when too little of it can be seen.

    Args:
        box: The box.
        xyxy_px: (4,) the box in the window's pixels, perhaps partly outside.
        side_px: Side of the window.
        visible: Smallest share of the box's area that lies inside.
    """
    inside = np.clip(xyxy_px, 0, side_px)
    width, height = inside[2:] - inside[:2]
    if width * height < visible * np.prod(xyxy_px[2:] - xyxy_px[:2]) or min(width, height) <= 0:
        return None
    x, y = (inside[:2] + inside[2:]) / 2 / side_px
    position = position_word(x, y)
    phrase = compose(box.size, box.colour, CATEGORIES[box.category], position)
    cut = (float(inside[0]), float(inside[1]), float(inside[2]), float(inside[3]))
    return Placed(box, cut, phrase, negatives(box, position))


def position_word(x: float, y: float) -> str:
    """Name the place of (x, y) in [0, 1]²: up to one word for each axis, "centre" for none."""
    vertical = "upper" if y < 0.5 - _MARGIN else "lower" if y > 0.5 + _MARGIN else ""
    horizontal = "left" if x < 0.5 - _MARGIN else "right" if x > 0.5 + _MARGIN else ""
    return " ".join(word for word in (vertical, horizontal) if word) or "centre"


def compose(size: str, colour: str, category: str, position: str) -> str:
    """Return the phrase of a region."""
    words = " ".join(word for word in (size, colour, category) if word)
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words} in the {position}"


def negatives(box: Box, position: str) -> tuple[tuple[str, str], ...]:
    """Return (text, rule) of every phrase with exactly one part replaced by one that does not hold."""
    size, colour, category = box.size, box.colour, CATEGORIES[box.category]
    other_size = {"small": "large", "large": "small"}.get(size)
    result = [(compose(other_size, colour, category, position), "attribute")] if other_size else []
    result += [(compose(size, other, category, position), "attribute") for other in box.contrasts]
    words = position.split()
    flips = [[_OPPOSITE.get(word, word) for word in words]]
    flips += [[_OPPOSITE[word] if word == turned else word for word in words] for turned in words if len(words) == 2]
    result += [
        (compose(size, colour, category, " ".join(flip)), "orientation") for flip in flips if position != "centre"
    ]
    result += [(compose(size, colour, other, position), "category") for other in CONFUSABLE[category]]
    return tuple(result)


def size_word(category: int, length_m: float) -> str:
    """Name the size of an aircraft by the longer side of its box; other categories' sizes are not known."""
    if CATEGORIES[category] != "airplane":
        return ""
    return "small" if length_m < _SMALL_AIRCRAFT_M else "large" if length_m > _LARGE_AIRCRAFT_M else ""


def colours(
    image: NDArray[np.uint8], xyxy_px: Sequence[int], tint: NDArray[np.float32]
) -> tuple[str, tuple[str, ...]]:  # fmt: skip
    """Name the colour of a box, or return "" for a doubtful one, and up to three colours that it surely has not.

    Args:
        image: The whole picture (H, W, 3).
        xyxy_px: The box.
        tint: Of the picture (:func:`training.builder.colours.tint_of`).
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = xyxy_px
    region = Region(bbox=(x0 / width, y0 / height, x1 / width, y1 / height))
    look = region_appearance(image, region, tint)
    colour = look.colour if look else None
    if not colour:
        return "", ()
    possible = set(colour_family().alternatives(colour)) - colours_present(image, region)
    return colour, tuple(name for name in _CONTRASTS if name in possible)[:_MOST_CONTRASTS]


@lru_cache(maxsize=8)
def _unit_maps(rows: int, cols: int) -> torch.Tensor:
    return torch.eye(rows * cols).reshape(1, rows * cols, rows, cols)


def roi_weights(boxes_xyxy_px: Sequence[Sequence[float]], rows: int, cols: int, patch_px: int) -> torch.Tensor:
    """Return (N, rows · cols): the weight of every patch in the RoIAlign (1 × 1, aligned) of every box.

    RoIAlign is linear in the map, so it is run once over the unit maps; rows of the result add up to one.

    Args:
        boxes_xyxy_px: N boxes in the window's pixels.
        rows: Patches down.
        cols: Patches across.
        patch_px: Side of a patch.
    """
    from torchvision.ops import roi_align

    boxes = torch.tensor(np.asarray(boxes_xyxy_px, dtype=np.float32).reshape(-1, 4)) / patch_px
    pooled = roi_align(_unit_maps(rows, cols), [boxes], (1, 1), spatial_scale=1.0, sampling_ratio=-1, aligned=True)
    return pooled.reshape(len(boxes), rows * cols)
