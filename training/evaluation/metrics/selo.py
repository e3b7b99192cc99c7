"""Semantic localisation: how well a map of matches tells where a sentence's regions lie (Yuan et al. 2022).

Four figures of a probability map and the regions (polygons) that a sentence is about; the constants are those of the
published program (SemanticLocalizationMetrics, ``evaluations/SLM.py``) and stand in the protocol ``selo-airslt``:

- Rsu, share of the salient area, higher is better: ``1 − exp(−0.707 · (A_in / A_out) · (unmarked / marked pixels))``;
- Ras, shift of attention, lower is better: ``(e^{3 m} − 1) / (e³ − 1)`` with m the mean over regions of the mean
  distance of the peaks inside the region's circle to its centre, as a share of its radius, 1 without such a peak;
- Rda, discreteness of attention, higher is better: 0 or 1 for so many peaks in the circle, for n ≥ 2 of them
  ``0.5 · (1 − their mean distance to their centroid / radius) + exp(−0.5 (n + 2))``;
- Rmi = 0.4 Rsu + 0.35 (1 − Ras) + 0.25 Rda.

What parity hangs on: centres, radii and centroids are cut to whole pixels, a peak on the circle is inside it, and a
map without any peak has m = 1 whatever its regions.

A probability map is float in [0, 1], or uint8 that stands for value / 255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.data.errors import DataError
from training.evaluation.metrics.selo_peaks import find_peaks
from training.evaluation.protocols import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

_NUMBERS = PROTOCOLS["selo-airslt"].numbers
RSU_BETA: float = _NUMBERS["rsu_beta"]
RSU_EPSILON = 1e-7
CIRCLE_FACTOR: float = _NUMBERS["circle_factor"]
RAS_BETA: float = _NUMBERS["ras_beta"]
RDA_ETA: float = _NUMBERS["rda_eta"]
WEIGHT_RSU, WEIGHT_RAS, WEIGHT_RDA = _NUMBERS["weights_rsu_ras_rda"]
_ROWS_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Circle:
    """A region as its centre and a radius."""

    x_px: int
    y_px: int
    radius_px: int

    def distances_px(self, peaks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the distances of those of the peaks (N, 2) x, y that lie in the circle or on it."""
        far = np.hypot(peaks[:, 0] - self.x_px, peaks[:, 1] - self.y_px)
        return far[far <= self.radius_px]


@dataclass(frozen=True, slots=True)
class Selo:
    """The four figures, 0..1 (Rda may pass 1 by a little: exp(−2) with two peaks on one place)."""

    rsu: float
    ras: float
    rda: float

    @property
    def rmi(self) -> float:
        """The mean indicator."""
        return WEIGHT_RSU * self.rsu + WEIGHT_RAS * (1 - self.ras) + WEIGHT_RDA * self.rda


def circle_of(points_xy_px: ArrayLike) -> Circle:
    """Return a region's circle: the mean of its corners, and 1.5 times their mean distance to it.

    Args:
        points_xy_px: (N, 2) corners of the polygon as annotated, repeated ones included: they count.

    Raises:
        DataError: The region has no extent.
    """
    points = np.asarray(points_xy_px, np.float64)
    x, y = (int(value) for value in points.sum(axis=0) / len(points))
    radius = int(np.hypot(points[:, 0] - x, points[:, 1] - y).mean() * CIRCLE_FACTOR)
    if radius < 1:
        raise DataError("a region is only a point", measured=f"around {x}, {y}", remedy="take it out")
    return Circle(x, y, radius)


def mask_of(regions: Sequence[ArrayLike], height_px: int, width_px: int) -> NDArray[np.bool_]:
    """Return (H, W): the union of polygons, outlines included, corners cut to whole pixels, crossings even-odd.

    The published program takes what an odd number of regions hold, which differs where regions lie over each other;
    none of AIR-SLT's do.
    """
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (width_px, height_px))
    draw = ImageDraw.Draw(canvas)
    for region in regions:
        draw.polygon([(int(x), int(y)) for x, y in np.asarray(region, np.float64)], fill=1, outline=1)
    return np.asarray(canvas).astype(np.bool_)


def rsu(prob: NDArray[np.float32] | NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    """Measure how much of the map's mass lies in the marked pixels, against their share of the area.

    Args:
        prob: (H, W).
        mask: (H, W), the union of the regions.

    Raises:
        DataError: Nothing is marked: the regions lie outside of the image.
    """
    inside = total = 0.0
    for start in range(0, len(prob), _ROWS_AT_ONCE):
        part = prob[start : start + _ROWS_AT_ONCE]
        kept = mask[start : start + _ROWS_AT_ONCE]
        total += float(part.sum(dtype=np.float64))
        inside += float(part.sum(dtype=np.float64, where=kept))
    if prob.dtype == np.uint8:
        inside, total = inside / 255, total / 255
    marked = int(np.count_nonzero(mask))
    if not marked:
        raise DataError(
            "no pixel is marked", measured=f"{prob.shape[1]} × {prob.shape[0]} px", remedy="check the regions"
        )
    return 1 - math.exp(-RSU_BETA * inside / (total - inside + RSU_EPSILON) * (mask.size - marked) / marked)


def ras(circles: Sequence[Circle], peaks: NDArray[np.int64]) -> float:
    """Measure how far the peaks (N, 2) x, y are from the regions that they belong to."""
    shares = []
    for circle in circles:
        inside = circle.distances_px(peaks)
        shares.append(float(inside.mean()) / circle.radius_px if len(inside) else 1.0)
    return math.expm1(RAS_BETA * float(np.mean(shares))) / math.expm1(RAS_BETA)


def rda(circles: Sequence[Circle], peaks: NDArray[np.int64]) -> float:
    """Measure whether each region has one peak (N, 2) x, y, or several close together."""
    values = []
    for circle in circles:
        inside = peaks[np.hypot(peaks[:, 0] - circle.x_px, peaks[:, 1] - circle.y_px) <= circle.radius_px]
        count = len(inside)
        if count <= 1:
            values.append(float(count))
            continue
        apart = np.hypot(*(inside - inside.mean(axis=0)).T).mean() / circle.radius_px
        values.append(0.5 * (1 - float(apart)) + math.exp(-RDA_ETA * (count + 2)))
    return float(np.mean(values))


def localisation(prob: NDArray[np.float32] | NDArray[np.uint8], regions: Sequence[ArrayLike]) -> Selo:
    """Measure one map against the regions of its sentence.

    Args:
        prob: (H, W) float 0..1 or uint8.
        regions: Polygons (N, 2) of x, y in pixels.

    Raises:
        DataError: A region has no extent, or none lies in the image.
    """
    circles = [circle_of(region) for region in regions]
    peaks = find_peaks(prob)
    return Selo(rsu(prob, mask_of(regions, *prob.shape)), ras(circles, peaks), rda(circles, peaks))
