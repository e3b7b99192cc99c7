"""Resampling along rows and columns, weighted by validity so that nodata never bleeds into a picture.

Coarser pixels are exact means over their footprint; finer ones are bilinear. Every output pixel depends on
its own place alone, in absolute source coordinates: how the work is cut into pieces cannot change a bit of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HALF = 0.5 - 1e-6
_PIECE_ROWS = 128


@dataclass(frozen=True, slots=True)
class Taps:
    """Which source pixels make the output pixels of one axis, and with which weights."""

    first: int
    """First source pixel needed."""
    count: int
    """Source pixels needed."""
    index: NDArray[np.intp]
    """(K, n) source pixels, counted from ``first``."""
    weight: NDArray[np.float64]
    """(K, n), summing to one over K."""
    inside: NDArray[np.bool_]
    """(n,) whether the centre of the output pixel lies on the raster."""
    identity: bool
    """Whether output pixels are source pixels."""


def plan_taps(start: int, stop: int, scale: float, length_px: int) -> Taps:
    """Plan one axis.

    Args:
        start: First output pixel.
        stop: Output pixel behind the last.
        scale: Source pixels per output pixel.
        length_px: Source pixels of the whole axis.
    """
    out = np.arange(start, stop)
    if scale == 1:
        index = np.minimum(out, length_px - 1)[None]
        weight = np.ones(index.shape)
    elif scale > 1:
        index, weight = _footprints(out, scale, length_px)
    else:
        centre = (out + 0.5) * scale - 0.5
        low = np.floor(centre)
        share = centre - low
        index = np.clip(np.stack([low, low + 1]).astype(np.intp), 0, length_px - 1)
        weight = np.stack([1 - share, share])
    first, last = int(index.min()), int(index.max())
    inside = (out + 0.5) * scale <= length_px + 1e-6
    identity = scale == 1 and stop <= length_px
    return Taps(first, last - first + 1, (index - first).astype(np.intp), weight, inside, identity)


def _footprints(out: NDArray[Any], scale: float, length_px: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    begin = np.minimum(out * scale, length_px - 1e-9)
    end = np.minimum((out + 1) * scale, length_px)
    base = np.floor(begin)
    steps = np.arange(math.ceil(scale) + 1)[:, None]
    low, high = np.maximum(base + steps, begin), np.minimum(base + steps + 1, end)
    weight = np.maximum(high - low, 0)
    index = np.clip((base + steps).astype(np.intp), 0, length_px - 1)
    # Taps of no weight must not enlarge the rectangle that is read.
    index = np.where(weight > 0, index, base.astype(np.intp))
    return index, weight / weight.sum(axis=0)


def resample(
    array: NDArray[Any], valid: NDArray[np.bool_] | None, rows: Taps, cols: Taps
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Resample samples and their validity.

    Args:
        array: (C, rows.count, cols.count) of a real type.
        valid: (rows.count, cols.count), or None when all are.
        rows: The plan down the rows.
        cols: The plan along the columns.

    Returns:
        (C, h, w) float32 (float64 for types of more than 16 bits that need it), and (h, w) validity: at least half
        of the footprint is valid and the centre lies on the raster. None when all are. Values that are not valid
        are whatever valid part there is, else 0.
    """
    inside = rows.inside[:, None] & cols.inside[None, :]
    everything = bool(inside.all())
    if rows.identity and cols.identity:
        return array, valid
    kind = result_type(array.dtype)
    if valid is None:
        return _separable(array, rows, cols, kind), None if everything else inside
    share = _separable(valid[None], rows, cols, kind)
    values = _separable(np.where(valid, array, array.dtype.type(0)), rows, cols, kind)
    # Where all is valid the share is 1 but for rounding. Dividing by it there would make a pixel depend on whether
    # some other pixel of the same piece is not valid.
    np.divide(values, share, out=values, where=(share > 1e-6) & (share < 1 - 1e-5))
    return values, (share[0] >= _HALF) & inside


def result_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of resampled samples: one that holds those of ``dtype`` exactly."""
    return np.dtype(np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64)


def _separable(values: NDArray[Any], rows: Taps, cols: Taps, kind: np.dtype[Any]) -> NDArray[Any]:
    """Sum the taps down the rows, then along the columns, in pieces that stay in the processor's cache."""
    height = rows.index.shape[1]
    out = np.empty((len(values), height, cols.index.shape[1]), kind)
    for band, target in zip(values, out, strict=True):
        for first in range(0, height, _PIECE_ROWS):
            piece = slice(first, first + _PIECE_ROWS)
            down = _sum_taps(band, rows.index[:, piece], rows.weight[:, piece, None], 0, kind)
            target[piece] = _sum_taps(down, cols.index, cols.weight[:, None], 1, kind)
    return out


def _sum_taps(
    values: NDArray[Any], indexes: NDArray[np.intp], weights: NDArray[np.float64], axis: int, kind: np.dtype[Any]
) -> NDArray[Any]:
    first, *others = zip(indexes, weights.astype(kind), strict=True)
    total = np.multiply(_pick(values, first[0], axis), first[1], dtype=kind)
    for index, weight in others:
        if weight.any():
            total += np.multiply(_pick(values, index, axis), weight, dtype=kind)
    return total


def _pick(values: NDArray[Any], index: NDArray[np.intp], axis: int) -> NDArray[Any]:
    """Take rows (axis 0) or columns of (h, w): a view where they lie evenly, as at whole scales, else a copy."""
    steps = np.diff(index)
    if steps.size and steps[0] > 0 and (steps == steps[0]).all():
        even = slice(int(index[0]), int(index[-1]) + 1, int(steps[0]))
        return values[even] if axis == 0 else values[:, even]
    return np.take(values, index, axis=axis)
