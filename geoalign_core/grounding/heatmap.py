"""Heatmaps: log-odds on the patch lattice, joined over levels, interpolated to a finer lattice, made 0..1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine

from geoalign_core.grounding.relevance import score
from geoalign_core.indexing.areas import clipped, onto

if TYPE_CHECKING:
    from collections.abc import Sequence

    import shapely
    from numpy.typing import NDArray
    from rasterio.crs import CRS

    from geoalign_core.indexing.search import ScoreMap
    from tiling.canvas import Canvas

PIXELS_PER_PATCH = 4
"""Heatmap pixels along one patch: enough for smooth outlines, a sixteenth of what the image's own grid would take."""
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Heatmap:
    """Scores on the map."""

    values: NDArray[np.float32]
    """(H, W), 0..1, NaN where there is no image."""
    transform: Affine
    """Heatmap pixel → CRS."""
    crs: CRS | None
    gsd_m: float | None
    """Ground size of a heatmap pixel; None in pixel mode."""
    frame_px: tuple[float, float] | None = None
    """Width and height of the raster in heatmap pixels: the last row and column may reach beyond it."""


def resample(values: NDArray[np.float32], rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float32]:
    """Interpolate bilinearly at fractional lattice positions, ignoring NaN and clamping at the frame.

    Args:
        values: (Q, R, C); NaN in the same cells for every q.
        rows: Row positions, 0 = centre of the first cell.
        cols: Column positions.

    Returns:
        (Q, len(rows), len(cols)); NaN where no neighbour is valid. A constant stays that constant.
    """
    valid = np.isfinite(values[:1])
    stack = np.concatenate([np.where(valid, values, 0.0), valid.astype(np.float32)])
    for axis, positions in ((1, rows), (2, cols)):
        size = stack.shape[axis]
        clamped = np.clip(positions, 0, size - 1)
        low = np.minimum(np.floor(clamped).astype(np.intp), max(size - 2, 0))
        high = np.minimum(low + 1, size - 1)
        share = (clamped - low).astype(np.float32)
        share = share[:, None] if axis == 1 else share
        stack = np.take(stack, low, axis) * (1 - share) + np.take(stack, high, axis) * share
    weight = stack[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 1e-6, stack[:-1] / weight, np.nan).astype(np.float32)


def join_levels(maps: Sequence[ScoreMap]) -> NDArray[np.float32]:
    """Average the levels' cosines on the finest level's lattice.

    Returns:
        (Q, rows, cols); NaN where the finest level has no image.
    """
    finest = maps[0]
    total = finest.scores.astype(np.float32)
    for other in maps[1:]:
        step = ~other.transform * finest.transform
        rows = (np.arange(total.shape[1]) + 0.5) * step.e + step.f - 0.5
        cols = (np.arange(total.shape[2]) + 0.5) * step.a + step.c - 0.5
        coarse = resample(other.scores, rows, cols)
        total = total + np.where(np.isfinite(coarse), coarse, finest.scores)
    return (total / len(maps)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class HeatLattice:
    """The pixels of a heatmap: the patch lattice cut :data:`PIXELS_PER_PATCH` times finer, up to the raster's frame."""

    height_px: int
    width_px: int
    transform: Affine
    """Heatmap pixel → CRS."""
    crs: CRS | None
    gsd_m: float | None
    frame_px: tuple[float, float]
    """Width and height of the raster's part of it, not rounded."""

    @classmethod
    def of(cls, cells: ScoreMap, canvas: Canvas, cell_px: int) -> HeatLattice:
        """Lay the heatmap over a score map.

        Args:
            cells: The score map; it may cover a part of the canvas only.
            canvas: The canvas of its level.
            cell_px: Canvas pixels along one cell (the model's patch).
        """
        start = ~canvas.transform * cells.transform
        rows = min(cells.scores.shape[1], (canvas.raster_height_px - start.f) / cell_px)
        cols = min(cells.scores.shape[2], (canvas.raster_width_px - start.c) / cell_px)
        return cls(
            height_px=max(1, math.ceil(rows * PIXELS_PER_PATCH - 1e-6)),
            width_px=max(1, math.ceil(cols * PIXELS_PER_PATCH - 1e-6)),
            transform=cells.transform * Affine.scale(1 / PIXELS_PER_PATCH),
            crs=cells.crs,
            gsd_m=None if canvas.gsd_m is None else canvas.gsd_m * cell_px / PIXELS_PER_PATCH,
            frame_px=(cols * PIXELS_PER_PATCH, rows * PIXELS_PER_PATCH),
        )

    def interpolate(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """Interpolate (rows, cols) cell values to (height_px, width_px); pixels of a NaN cell are NaN.

        Memory: the result plus a few hundred rows.
        """
        factor = PIXELS_PER_PATCH
        valid = np.isfinite(cells)
        cols = np.arange(self.width_px)
        values = np.empty((self.height_px, self.width_px), dtype=np.float32)
        for start in range(0, self.height_px, _ROWS_AT_ONCE):
            rows = np.arange(start, min(start + _ROWS_AT_ONCE, self.height_px))
            first, last = max(0, start // factor - 1), rows[-1] // factor + 2
            fine = resample(cells[None, first:last], (rows + 0.5) / factor - 0.5 - first, (cols + 0.5) / factor - 0.5)[
                0
            ]
            values[rows] = np.where(valid[np.ix_(rows // factor, cols // factor)], fine, np.nan)
        return values

    def heatmap(self, odds: NDArray[np.float32], *, area: shapely.Geometry | None = None) -> Heatmap:
        """Turn log-odds on the patch lattice into a heatmap, NaN outside ``area``."""
        values = score(self.interpolate(odds))
        if area is not None:
            values[self.outside(area)] = np.nan
        return Heatmap(values, self.transform, self.crs, self.gsd_m, self.frame_px)

    def outside(self, area: shapely.Geometry) -> NDArray[np.bool_]:
        """Return (height_px, width_px): whether a pixel's centre lies outside ``area``."""
        from rasterio.features import geometry_mask

        size = self.height_px, self.width_px
        shape = clipped(onto(area, self.transform), *size)
        return np.ones(size, np.bool_) if shape.is_empty else geometry_mask([shape], size, Affine.identity())
