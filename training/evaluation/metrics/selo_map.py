"""The map that semantic localisation measures: overlapping tiles of three sizes, each with one match.

As published (``predict/generate_selo.py``): for a side of 256, 512 and 768 px two grids whose stride is the side, one
from the corner and one from half a side further; tiles beyond the rim are moved inwards, and a tile that several grids
have counts once (its file is written over). A pixel's value is the mean over the tiles that cover it, stretched so
that the lowest is 0 and the highest 1. The published program then keeps 8 bits, takes the median over 251 × 251 px and
a JPEG file; that is ``median_grey`` and ``through_jpeg``.

Tiles end at few places, so a map is kept as *cells*: rectangles of one value. The median is counted on them, exactly.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.protocols import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tiling.progress import CancelToken

_NUMBERS = PROTOCOLS["selo-airslt"].numbers
SIDES_PX: tuple[int, ...] = tuple(_NUMBERS["tile_sides_px"])
TILE_PX: int = _NUMBERS["tile_px"]
"""Side that a tile is resized to before the model prepares it."""
MEDIAN_PX: int = _NUMBERS["median_px"]
JPEG_QUALITY: int = _NUMBERS["jpeg_quality"]
"""OpenCV's default."""
_CUBIC = -0.75
"""OpenCV's coefficient of cubic convolution."""


@dataclass(frozen=True, slots=True)
class SquareTile:
    """A tile in pixels of the image; a square unless the image is narrower."""

    row: int
    col: int
    height_px: int
    width_px: int


@dataclass(frozen=True, slots=True)
class Cells:
    """A map made of rectangles."""

    rows: NDArray[np.int64]
    """(R + 1,) where they begin and end, from 0 to the image's height."""
    cols: NDArray[np.int64]
    """(C + 1,)"""
    values: NDArray[np.float64]
    """(R, C)"""

    def expand(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return (H, W) pixels of (R, C) values."""
        wide = np.repeat(values, np.diff(self.cols), axis=1)
        return np.repeat(wide, np.diff(self.rows), axis=0)


def tiles_of(height_px: int, width_px: int, sides_px: Sequence[int] = SIDES_PX) -> list[SquareTile]:
    """Return the distinct tiles of an image, those of the smallest side first.

    An image narrower than a side has tiles as narrow as itself (the published program would cut them wrongly; none of
    its images is).
    """
    found = dict.fromkeys(
        SquareTile(row, col, min(side, height_px), min(side, width_px))
        for side in sides_px
        for offset in (0, side - side // 2)
        for row, col in product(_starts(height_px, side, offset), _starts(width_px, side, offset))
    )
    return list(found)


def _starts(length: int, side: int, offset: int) -> list[int]:
    return [max(0, min(start, length - side)) for start in range(offset, length, side)]


def cells_of(tiles: Sequence[SquareTile], matches: NDArray[np.float32]) -> Cells:
    """Average the matches (N,) of tiles that together cover an image, and stretch them to 0..1.

    A map of one value is 0 everywhere.
    """
    rows = np.unique([[tile.row, tile.row + tile.height_px] for tile in tiles])
    cols = np.unique([[tile.col, tile.col + tile.width_px] for tile in tiles])
    total, count = np.zeros((len(rows) - 1, len(cols) - 1)), np.zeros((len(rows) - 1, len(cols) - 1))
    for tile, match in zip(tiles, matches.tolist(), strict=True):
        top, bottom = np.searchsorted(rows, (tile.row, tile.row + tile.height_px))
        left, right = np.searchsorted(cols, (tile.col, tile.col + tile.width_px))
        total[top:bottom, left:right] += match
        count[top:bottom, left:right] += 1
    values = total / count
    values -= values.min()
    return Cells(rows, cols, values / max(float(values.max()), np.finfo(np.float64).tiny))


def plain_map(cells: Cells) -> NDArray[np.float32]:
    """Return the map (H, W) as it is, 0..1."""
    return cells.expand(cells.values.astype(np.float32))  # type: ignore[return-value]


def median_grey(cells: Cells, size_px: int = MEDIAN_PX, cancel: CancelToken | None = None) -> NDArray[np.uint8]:
    """Return the map's 8-bit levels (cut to whole ones) after a median over squares, the rim repeated outwards.

    The number of pixels up to a level in a square is a difference of four sums, which are linear between the edges of
    cells; the level is then halved in on, for a row of pixels at a time. Time grows with the pixels, not with the
    square. Memory: the map, and 8 bytes per level and cell (50 MB at 10,000 × 10,000).

    Args:
        cells: The map.
        size_px: Side of the squares, odd.
        cancel: Looked at every 256 rows.
    """
    grey = (255 * cells.values).astype(np.uint8)
    levels = np.unique(grey)
    reach = size_px // 2
    rows, cols = _reaching(cells.rows, reach), _reaching(cells.cols, reach)
    upto = (grey[None] <= levels[:, None, None]).astype(np.float64)
    across = _summed(upto, np.diff(cols), axis=2)
    down = _summed(across, np.diff(rows), axis=1)
    height, width = int(cells.rows[-1]), int(cells.cols[-1])
    right = _between(cols, np.arange(width) + reach + 1)
    left = _between(cols, np.arange(width) - reach)
    result = np.empty((height, width), np.uint8)
    places = np.zeros(width, np.intp)
    for row in range(height):
        if cancel is not None and row % 256 == 0:
            cancel.check()
        (low, low_share), (high, high_share) = _between(rows, row - reach), _between(rows, row + reach + 1)
        counts = down[:, high] + high_share * across[:, high] - down[:, low] - low_share * across[:, low]
        places = _first_above(_Counts.of(counts, cols, left, right), size_px**2 // 2, places)
        result[row] = levels[places]
    return result


def _reaching(edges: NDArray[np.int64], reach: int) -> NDArray[np.int64]:
    """Let the outermost cells reach so far beyond the rim."""
    return np.concatenate([[-reach], edges[1:-1], [edges[-1] + reach]])


def _summed(values: NDArray[np.float64], sizes: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
    """Sum up from the first edge to every edge; one longer along the axis."""
    shape = [1, 1, 1]
    shape[axis] = -1
    total = np.cumsum(values * sizes.reshape(shape), axis=axis)
    return np.insert(total, 0, 0.0, axis=axis)


def _between(edges: NDArray[np.int64], places: NDArray[np.int64] | int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Return the cells that places lie in, and how many pixels from the cells' beginnings."""
    at = np.clip(np.searchsorted(edges, places, side="right") - 1, 0, len(edges) - 2)
    return at, places - edges[at]


@dataclass(frozen=True, slots=True)
class _Counts:
    """How many pixels up to a level the squares around a row of pixels hold."""

    edges: NDArray[np.float64]
    """(K, C + 1) in the squares' rows, left of each edge."""
    slopes: NDArray[np.float64]
    """(K, C) more for each pixel beyond an edge: whole numbers, as a cell has one value."""
    left: tuple[NDArray[np.intp], NDArray[np.int64]]
    """(W,) cell in which each square begins, and pixels into it."""
    right: tuple[NDArray[np.intp], NDArray[np.int64]]

    @classmethod
    def of(
        cls, edges: NDArray[np.float64], cols: NDArray[np.int64],
        left: tuple[NDArray[np.intp], NDArray[np.int64]], right: tuple[NDArray[np.intp], NDArray[np.int64]],
    ) -> _Counts:  # fmt: skip
        return cls(edges, np.diff(edges, axis=1) / np.diff(cols), left, right)

    def held(self, levels: NDArray[np.intp], pixels: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return (n,) counts for levels (n,) at pixels (n,)."""
        (begin, begun), (end, ended) = ((cell[pixels], into[pixels]) for cell, into in (self.left, self.right))
        upto = self.edges[levels, end] + self.slopes[levels, end] * ended
        return upto - self.edges[levels, begin] - self.slopes[levels, begin] * begun


def _first_above(counts: _Counts, half: int, guess: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return (W,) for each pixel of a row the first level of which its square holds more than ``half`` pixels.

    Args:
        counts: Of the row.
        half: Half of a square's pixels, rounded down.
        guess: (W,) the levels of the row above, of which most hold.
    """
    every = np.arange(len(guess))
    enough = counts.held(guess, every) > half
    less = (guess == 0) | (counts.held(np.maximum(guess - 1, 0), every) <= half)
    wrong = np.flatnonzero(~(enough & less))
    low = np.where(enough, 0, guess + 1)[wrong]
    high = np.where(enough, guess - 1, len(counts.edges) - 1)[wrong]
    while (low < high).any():
        middle = (low + high) // 2
        above = counts.held(middle, wrong) > half
        high = np.where(above, middle, high)
        low = np.where(above, low, np.minimum(middle + 1, high))
    found = guess.copy()
    found[wrong] = low
    return found


def through_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a grey (H, W) or RGB (H, W, 3) picture as a JPEG file of quality 95 gives it back."""
    from PIL import Image

    with io.BytesIO() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own picture, as large as it was
        Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY)
        with Image.open(file) as opened:
            return np.asarray(opened)


def resize_cubic(image: NDArray[np.uint8], side_px: int = TILE_PX) -> NDArray[np.uint8]:
    """Resize (H, W, 3) to a square by cubic convolution without antialiasing, as OpenCV's ``INTER_CUBIC`` does."""
    values = image.astype(np.float32)
    for axis in (0, 1):
        places, weights = _taps(image.shape[axis], side_px)
        moved = np.moveaxis(values, axis, 0)
        parts = [moved[places[:, tap]] * weights[:, tap, None, None] for tap in range(4)]
        values = np.moveaxis(parts[0] + parts[1] + parts[2] + parts[3], 0, axis)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _taps(size: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the four neighbours (wanted, 4) of every new pixel and their weights."""
    centres = (np.arange(wanted) + 0.5) * size / wanted - 0.5
    first = np.floor(centres).astype(np.int64)
    share = centres - first
    far, near = np.stack([1 + share, 2 - share], axis=1), np.stack([share, 1 - share], axis=1)
    outer = ((_CUBIC * far - 5 * _CUBIC) * far + 8 * _CUBIC) * far - 4 * _CUBIC
    inner = ((_CUBIC + 2) * near - (_CUBIC + 3)) * near * near + 1
    weights = np.stack([outer[:, 0], inner[:, 0], inner[:, 1], outer[:, 1]], axis=1)
    return np.clip(first[:, None] + np.arange(-1, 3), 0, size - 1), weights.astype(np.float32)
