"""Which windows and cells of a level an area touches. Rotation is respected: areas are brought onto the canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely.affinity import affine_transform

from geoalign_core.indexing.shard import SHARD_WINDOWS, ShardId

if TYPE_CHECKING:
    from affine import Affine
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from geoalign_core.indexing.spec import IndexSpec, LevelSpec
    from tiling.grid import Window

_SLIVER_PX = 1e-3
"""Windows that an area only touches along an edge do not count."""


def onto(geometry: BaseGeometry, transform: Affine) -> BaseGeometry:
    """Bring a geometry from the CRS into the (col, row) coordinates of a lattice."""
    back = ~transform
    return affine_transform(geometry, [back.a, back.b, back.d, back.e, back.c, back.f])


def clipped(shape: BaseGeometry, height: int, width: int) -> BaseGeometry:
    """Return the part of a shape, in (col, row) coordinates, that lies on a lattice or right beside it.

    What burns a shape into cells may walk along all of its outline: a corner far away must not keep it busy for ever.
    """
    left, top, right, bottom = shape.bounds
    if left >= -1 and top >= -1 and right <= width + 1 and bottom <= height + 1:
        return shape
    # Moving a valid shape onto the lattice rounds it, and may make it cross itself.
    return shapely.intersection(shapely.make_valid(shape), shapely.box(-1, -1, width + 1, height + 1))


def windows_in_area(level: LevelSpec, area: BaseGeometry) -> NDArray[np.int64]:
    """Return (N, 2) grid places (row, col) of the windows whose footprint intersects an area, in row-major order.

    Only windows inside the area's bounding box are looked at.

    Args:
        level: The level.
        area: In the raster's CRS.
    """
    shape = onto(area, level.canvas.transform)
    if shape.is_empty:
        return np.zeros((0, 2), np.int64)
    left, top, right, bottom = shape.bounds
    first = level.grid.window(0, 0)
    rows = _overlapping(level.window_rows_px, first.height_px, top, bottom)
    cols = _overlapping(level.window_cols_px, first.width_px, left, right)
    row, col = (grid.ravel() for grid in np.meshgrid(rows, cols, indexing="ij"))
    y, x = level.window_rows_px[row], level.window_cols_px[col]
    shapely.prepare(shape)
    hit = _hit(shape, x, y, first, _SLIVER_PX)
    if not hit.any():  # a point or a line may lie on an edge
        hit = _hit(shape, x, y, first, 0.0)
    return np.stack([row[hit], col[hit]], axis=1)


def shards_in_area(spec: IndexSpec, area: BaseGeometry | None) -> list[ShardId]:
    """Return the shards, of all levels, that hold a window intersecting an area; all shards without one."""
    if area is None:
        return list(spec.shard_ids())
    wanted: set[ShardId] = set()
    for number, level in enumerate(spec.levels):
        blocks = np.unique(windows_in_area(level, area) // SHARD_WINDOWS, axis=0)
        wanted.update(ShardId(number, int(row), int(col)) for row, col in blocks)
    return sorted(wanted)


def cells_in_area(level: LevelSpec, area: BaseGeometry) -> tuple[slice, slice, NDArray[np.bool_]]:
    """Return the part of a level's lattice around an area, and which of its cells the area touches.

    Returns:
        Row slice, column slice, and (rows, cols) bool. The slices are empty when the area misses the lattice.
    """
    from rasterio.features import geometry_mask

    height, width = level.cells
    shape = clipped(onto(area, level.cell_transform), height, width)
    if shape.is_empty:
        return slice(0, 0), slice(0, 0), np.zeros((0, 0), np.bool_)
    left, top, right, bottom = shape.bounds
    rows = _cell_range(top, bottom, height)
    cols = _cell_range(left, right, width)
    size = rows.stop - rows.start, cols.stop - cols.start
    if 0 in size:
        return slice(0, 0), slice(0, 0), np.zeros((0, 0), np.bool_)
    moved = affine_transform(shape, [1, 0, 0, 1, -cols.start, -rows.start])
    inside = geometry_mask([moved], size, _identity(), all_touched=True, invert=True)
    return rows, cols, np.asarray(inside)


def _hit(
    shape: BaseGeometry, x: NDArray[np.int64], y: NDArray[np.int64], first: Window, sliver_px: float
) -> NDArray[np.bool_]:
    right, bottom = x + first.width_px - sliver_px, y + first.height_px - sliver_px
    return np.asarray(shapely.intersects(shape, shapely.box(x + sliver_px, y + sliver_px, right, bottom)))


def _overlapping(offsets: NDArray[np.int64], size: int, low: float, high: float) -> NDArray[np.int64]:
    return np.flatnonzero((offsets <= high) & (offsets + size >= low))


def _cell_range(low: float, high: float, count: int) -> slice:
    start = int(np.clip(np.floor(low), 0, count))
    stop = int(np.clip(max(np.ceil(high), np.floor(low) + 1), 0, count))
    return slice(start, max(start, stop))


def _identity() -> Affine:
    from affine import Affine

    return Affine.identity()
