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
    kind = np.float32 if array.dtype.itemsize <= 2 or array.dtype == np.float32 else np.float64
    values = array.astype(kind)
    if valid is None:
        return _separable(values, rows, cols), None if everything else inside
    values = np.where(valid, values, kind(0))
    share = _separable(valid.astype(kind)[None], rows, cols)
    values = _separable(values, rows, cols)
    # Where all is valid the share is 1 but for rounding. Dividing by it there would make a pixel depend on whether
    # some other pixel of the same piece is not valid.
    np.divide(values, share, out=values, where=(share > 1e-6) & (share < 1 - 1e-5))
    return values, (share[0] >= _HALF) & inside


def _separable(values: NDArray[Any], rows: Taps, cols: Taps) -> NDArray[Any]:
    if not rows.identity:
        values = _sum_taps(values, rows, 1)
    return values if cols.identity else _sum_taps(values, cols, 2)


def _sum_taps(values: NDArray[Any], taps: Taps, axis: int) -> NDArray[Any]:
    shape = (1, -1, 1) if axis == 1 else (1, 1, -1)
    total = None
    for index, weight in zip(taps.index, taps.weight, strict=True):
        part = np.take(values, index, axis=axis)
        part *= weight.astype(values.dtype).reshape(shape)
        total = part if total is None else np.add(total, part, out=total)
    return values if total is None else total
