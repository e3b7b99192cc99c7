"""Where a map of matches has its peaks, as semantic localisation counts them (``evaluations/SLM.py``).

The map as 8-bit grey is smoothed five times by a mean over 50 × 50 px, each time rounded to whole levels; a plateau
that no pixel within 1000 × 1000 px exceeds is a peak, at its centroid cut to whole pixels, unless it is level 0 or the
map there is below 0.5. Windows of an even side reach one pixel further up and left; the map is mirrored at its rim
(without repeating the outermost pixels).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.protocols import PROTOCOLS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NUMBERS = PROTOCOLS["selo-airslt"].numbers
MEAN_PX: int = _NUMBERS["mean_px"]
MEAN_TIMES: int = _NUMBERS["mean_times"]
MAXIMUM_PX: int = _NUMBERS["maximum_px"]
LEAST_PROB: float = _NUMBERS["least_prob"]
_ROWS_AT_ONCE = 256


def find_peaks(prob: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return (N, 2) columns and rows of the peaks.

    Memory: 12 bytes per pixel beside the map, 1.2 GB at 10,000 × 10,000.

    Args:
        prob: (H, W) float 0..1, or uint8 that stands for value / 255.
    """
    from scipy import ndimage

    grey = smoothed(to_grey(prob))
    top = ndimage.maximum_filter(grey, size=MAXIMUM_PX)
    top = (top == grey) & (grey > 0)
    labels, count = ndimage.label(top, structure=np.ones((3, 3), np.int8))
    peaks = []
    for number, place in enumerate(ndimage.find_objects(labels, count), start=1):
        member = labels[place] == number
        total = np.count_nonzero(member)
        rows = member.sum(axis=1) @ np.arange(place[0].start, place[0].stop)
        cols = member.sum(axis=0) @ np.arange(place[1].start, place[1].stop)
        peaks.append((int(cols / total), int(rows / total)))
    least = round(LEAST_PROB * 255 + 0.5) if prob.dtype == np.uint8 else LEAST_PROB
    kept = [(x, y) for x, y in peaks if prob[y, x] >= least]
    return np.array(kept, np.int64).reshape(-1, 2)


def to_grey(prob: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the 8-bit levels of a map, cut to whole ones; uint8 stays what it is."""
    if prob.dtype == np.uint8:
        return prob.astype(np.uint8, copy=False)
    grey = np.empty(prob.shape, np.uint8)
    for start in range(0, len(prob), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        grey[part] = prob[part].astype(np.float64) * 255
    return grey


def smoothed(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the map after the five means."""
    for _ in range(MEAN_TIMES):
        grey = box_mean(grey, MEAN_PX)
    return grey


def box_mean(grey: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Return the mean over squares, rounded half to even.

    Args:
        grey: (H, W); either side may be shorter than the square.
        side_px: The square reaches from ``−side // 2`` to ``side − side // 2 − 1`` around its pixel.
    """
    height, width = grey.shape
    before, after = side_px // 2, side_px - side_px // 2 - 1
    cols = mirrored(np.arange(-before, width + after), width)
    rows = mirrored(np.arange(-before, height + after), height)
    result = np.empty_like(grey)
    for start in range(0, height, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, height - start)
        part = grey[rows[start : start + count + side_px - 1]]
        sums = _running(_running(part, side_px, 0)[:, cols], side_px, 1)
        np.rint(sums * (1 / side_px**2), out=result[start : start + count], casting="unsafe")
    return result


def mirrored(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Fold places outside of ``0 … size − 1`` back, the outermost not repeated."""
    if size == 1:
        return np.zeros_like(places)
    period = 2 * (size - 1)
    folded = places % period
    return np.where(folded < size, folded, period - folded)


def _running(values: NDArray[np.uint8] | NDArray[np.int32], size: int, axis: int) -> NDArray[np.int32]:
    """Return the sums of ``size`` neighbours along an axis, which gets ``size − 1`` shorter."""
    total = np.cumsum(values, axis=axis, dtype=np.int32)
    if axis == 0:
        ends = total[size - 1 :].copy()
        ends[1:] -= total[:-size]
    else:
        ends = total[:, size - 1 :].copy()
        ends[:, 1:] -= total[:, :-size]
    return ends
