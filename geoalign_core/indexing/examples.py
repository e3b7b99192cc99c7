"""Rows to learn from: those under boxes that a user drew, and a fair sample of all the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import shapely

from geoalign_core.indexing.areas import onto
from geoalign_core.indexing.quantise import QuantisedRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from geoalign_core.indexing.shard import ShardArrays, ShardEntry, ShardId
    from geoalign_core.indexing.spec import LevelSpec
    from geoalign_core.indexing.store import Index

_HALF_VALID = 128
_SPARE = 4


class BoxRows(NamedTuple):
    """N rows that lie in boxes. A cell has a row in every window that covers it."""

    features: NDArray[np.float32]
    """(N, C) dequantised rows."""
    box: NDArray[np.int64]
    """(N,) which box each row lies in, ascending; a row in two boxes appears twice."""


def rows_in_boxes(index: Index, boxes: Sequence[BaseGeometry], *, level: int = 0) -> BoxRows:
    """Return the rows whose cell's centre lies in a box.

    A box without any centre takes the cells that it overlaps most, a point the cell it lies in. Boxes outside the
    indexed area, or on cells without a valid pixel, have no rows.

    Args:
        index: The index.
        boxes: Polygons or points in the raster's CRS.
        level: Which level's rows.
    """
    spec = index.spec.levels[level]
    features, numbers = [np.zeros((0, index.spec.channels), np.float32)], [np.zeros(0, np.int64)]
    for number, box in enumerate(boxes):
        for shard_id, covered in _rows_of_box(index, spec, level, box):
            shard = index.arrays(shard_id)
            rows = covered[shard.valid[covered] > 0]
            features.append(_dequantised(shard, rows))
            numbers.append(np.full(len(rows), number, np.int64))
    return BoxRows(np.concatenate(features), np.concatenate(numbers))


class DrawnRows(NamedTuple):
    """N rows drawn from all over an index."""

    features: NDArray[np.float32]
    """(N, C) dequantised rows."""
    cells: NDArray[np.int64]
    """(N, 2) row and column of each one's cell on the level's lattice."""


def sample_rows(
    index: Index,
    n: int,
    *,
    seed: int,
    level: int = 0,
    area: BaseGeometry | None = None,
    exclude: Sequence[BaseGeometry] = (),
) -> NDArray[np.float32]:
    """Draw rows at random, each at most once, from cells of which at least half is valid.

    Args:
        index: The index.
        n: How many; fewer come back when there are fewer.
        seed: The same seed draws the same rows.
        level: Which level's rows.
        area: Only cells whose centre lies in it, in the raster's CRS.
        exclude: Only cells whose centre lies in none of these.

    Returns:
        (N, C) dequantised float32, in the order of the index.
    """
    return draw_rows(index, n, seed=seed, level=level, area=area, exclude=exclude).features


def draw_rows(
    index: Index,
    n: int,
    *,
    seed: int,
    level: int = 0,
    area: BaseGeometry | None = None,
    exclude: Sequence[BaseGeometry] = (),
) -> DrawnRows:
    """Draw rows as :func:`sample_rows` does, and tell where they lie."""
    entries = index.level_shards(level)
    total = sum(entry.rows for entry in entries)
    spec = index.spec.levels[level]
    within = [(onto(area, spec.cell_transform), True)] if area is not None else []
    within += [(onto(place, spec.cell_transform), False) for place in exclude]
    count = min(total, _SPARE * n + 1000)
    while True:
        drawn = np.random.default_rng(seed).choice(total, count, replace=False) if total else np.zeros(0, np.int64)
        order = np.sort(drawn)
        good = np.concatenate(
            [_usable(index, spec, entry, rows, within) for entry, rows in _by_shard(entries, order)]
            or [np.zeros(0, bool)]
        )
        if good.sum() >= n or count == total:
            break
        count = min(total, 8 * count)
    # Which of the good ones are taken is decided by the draw, not by where they lie.
    rank = np.empty(len(drawn), np.int64)
    rank[np.argsort(drawn, kind="stable")] = np.arange(len(drawn))
    chosen = order[np.sort(rank[good[rank]][:n])]
    features, cells = [np.zeros((0, index.spec.channels), np.float32)], [np.zeros((0, 2), np.int64)]
    for entry, rows in _by_shard(entries, chosen):
        features.append(_dequantised(index.arrays(entry.id), rows))
        cells.append(_cells_of_rows(spec, entry, rows))
    return DrawnRows(np.concatenate(features), np.concatenate(cells))


def cells_of_place(index: Index, place: BaseGeometry, *, level: int = 0) -> NDArray[np.int64]:
    """Return (N, 2) row and column of the cells whose rows :func:`rows_in_boxes` takes for a place."""
    top, left, inside = _cells_of_box(index.spec.levels[level], place)
    return np.argwhere(inside) + np.array([top, left])


def _dequantised(shard: ShardArrays, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return QuantisedRows(shard.values[rows], shard.scales[rows]).dequantise()


def _rows_of_box(
    index: Index, spec: LevelSpec, level: int, box: BaseGeometry
) -> Iterator[tuple[ShardId, NDArray[np.int64]]]:
    """Yield, for every indexed window that covers cells of the box, its shard and the rows in it."""
    top, left, inside = _cells_of_box(spec, box)
    height, width = inside.shape
    grid = spec.grid.scaled(spec.patch_px)
    for window in grid.touching(left, top, left + width, top + height):
        found = index.find_window(level, window.row, window.col)
        if found is None:
            continue
        shard_id, rank = found
        row0, col0 = max(top, window.row_off_px), max(left, window.col_off_px)
        part = inside[row0 - top : window.row_end_px - top, col0 - left : window.col_end_px - left]
        rows, cols = np.nonzero(part)
        if len(rows):
            first = rank * window.height_px * window.width_px
            local = (rows + row0 - window.row_off_px) * window.width_px + cols + col0 - window.col_off_px
            yield shard_id, first + local


def _cells_of_box(spec: LevelSpec, box: BaseGeometry) -> tuple[int, int, NDArray[np.bool_]]:
    """Return the first row and column of the cells around a box, and which of them are the box's."""
    shape = onto(box, spec.cell_transform)
    height, width = spec.cells
    if shape.is_empty or not shape.intersects(shapely.box(0, 0, width, height)):
        return 0, 0, np.zeros((0, 0), np.bool_)
    left, top, right, bottom = shape.bounds
    rows = np.arange(max(0, int(np.floor(top))), min(height, int(np.floor(bottom)) + 1))
    cols = np.arange(max(0, int(np.floor(left))), min(width, int(np.floor(right)) + 1))
    if len(rows) == 0 or len(cols) == 0:
        return 0, 0, np.zeros((0, 0), np.bool_)
    y, x = np.meshgrid(rows, cols, indexing="ij")
    shapely.prepare(shape)
    inside = shapely.intersects_xy(shape, x + 0.5, y + 0.5)
    if not inside.any():
        cells = shapely.box(x, y, x + 1, y + 1)
        overlap = shapely.area(shapely.intersection(cells, shape))
        if overlap.max() <= 0:
            overlap = -shapely.distance(shapely.points(x + 0.5, y + 0.5), shape)
        inside = overlap >= overlap.max() - 1e-9
    return int(rows[0]), int(cols[0]), inside


def _by_shard(entries: list[ShardEntry], order: NDArray[np.int64]) -> Iterator[tuple[ShardEntry, NDArray[np.int64]]]:
    """Split ascending row numbers of a level into those of every shard, counted from the shard's first row."""
    first = 0
    for entry in entries:
        low, high = np.searchsorted(order, [first, first + entry.rows])
        if high > low:
            yield entry, order[low:high] - first
        first += entry.rows


def _usable(index: Index, spec: LevelSpec, entry: ShardEntry, rows: NDArray[np.int64],
            within: list[tuple[BaseGeometry, bool]]) -> NDArray[np.bool_]:  # fmt: skip
    """Say which rows of a shard are valid enough and lie where they should."""
    good = np.asarray(index.arrays(entry.id).valid[rows] >= _HALF_VALID)
    if not within:
        return good
    y, x = (_cells_of_rows(spec, entry, rows) + 0.5).T
    for shape, wanted in within:
        shapely.prepare(shape)
        good &= shapely.intersects_xy(shape, x, y) == wanted
    return good


def _cells_of_rows(spec: LevelSpec, entry: ShardEntry, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (N, 2) row and column on the level's lattice of rows of a shard."""
    places = np.array(entry.windows())
    window, cell = np.divmod(rows, entry.shape.rows_per_window)
    y = spec.window_rows_px[places[window, 0]] // spec.patch_px + cell // spec.window_cells[1]
    x = spec.window_cols_px[places[window, 1]] // spec.patch_px + cell % spec.window_cells[1]
    return np.column_stack([y, x]).astype(np.int64)
