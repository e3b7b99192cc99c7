"""The grid covers everything, whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiling import Length, TileGrid, UsageError
from tiling.grid import Window

EDGES = ["shift", "pad", "partial", "drop"]


@st.composite
def grids(draw, edges=tuple(EDGES), snap=(1, 2, 7, 14)):
    snap_px = draw(st.sampled_from(snap))
    cells = draw(st.integers(1, 24))
    tile, stride = cells * snap_px, draw(st.integers(max(1, cells // 6), cells)) * snap_px
    width, height = draw(st.integers(1, 50)) * snap_px, draw(st.integers(1, 50)) * snap_px
    return TileGrid(width, height, tile, stride, draw(st.sampled_from(edges)), snap_px)


def coverage(grid):
    count = np.zeros((grid.height_px, grid.width_px), int)
    for w in grid:
        count[w.row_off_px : w.row_end_px, w.col_off_px : w.col_end_px] += 1
    return count


@settings(max_examples=150, deadline=None)
@given(grids(edges=("shift", "pad", "partial")))
def test_every_pixel_is_covered(grid):
    assert coverage(grid).min() >= 1


@settings(max_examples=150, deadline=None)
@given(grids())
def test_windows_are_where_the_rule_says(grid):
    windows = list(grid)
    assert len(windows) == len(grid) == grid.rows * grid.cols >= 1
    for w in windows:
        assert w == grid.window(w.row, w.col)
        assert 0 <= w.col_off_px < grid.width_px
        assert 0 <= w.row_off_px < grid.height_px
        assert all(n % grid.snap_px == 0 for n in (w.col_off_px, w.row_off_px, w.width_px, w.height_px))
        if grid.edge in ("pad", "drop"):
            assert (w.width_px, w.height_px) == (grid.tile_px, grid.tile_px)
        if grid.edge in ("shift", "partial"):
            assert w.col_end_px <= grid.width_px
            assert w.row_end_px <= grid.height_px
        if grid.edge == "shift":
            assert w.width_px == min(grid.tile_px, grid.width_px)
        if grid.edge == "drop" and grid.width_px >= grid.tile_px:
            assert w.col_end_px <= grid.width_px


@settings(max_examples=100, deadline=None)
@given(grids(snap=(14,)))
def test_cells_are_exact(grid):
    cells = grid.scaled(14)
    assert (cells.rows, cells.cols) == (grid.rows, grid.cols)
    for w in grid:
        small = cells.window(w.row, w.col)
        assert small == w.scaled(14)
        assert small.col_off_px * 14 == w.col_off_px
        assert small.width_px * 14 == w.width_px


@settings(max_examples=150, deadline=None)
@given(grids(), st.tuples(*[st.floats(-20, 750)] * 4))
def test_touching_finds_exactly_the_overlapping_windows(grid, corners):
    c0, c1 = sorted(corners[:2])
    r0, r1 = sorted(corners[2:])
    expected = {w for w in grid if w.col_off_px < c1 and w.col_end_px > c0 and w.row_off_px < r1 and w.row_end_px > r0}
    assert set(grid.touching(c0, r0, c1, r1)) == expected


@settings(max_examples=100, deadline=None)
@given(grids(), st.integers(1, 400))
def test_blocks_hold_every_window_once(grid, block_px):
    seen = [(row, col) for rows, cols in grid.blocks(block_px) for row in rows for col in cols]
    assert sorted(seen) == [(w.row, w.col) for w in grid]


def test_a_huge_grid_costs_nothing():
    grid = TileGrid(400_000, 400_000, 224, 112)
    assert len(grid) == 3571 * 3571
    assert grid.window(3570, 3570) == Window(399_776, 399_776, 224, 224, 3570, 3570)
    assert grid[-1] == grid.window(3570, 3570)


@pytest.mark.parametrize(("edge", "size"), [("shift", 100), ("partial", 100), ("pad", 512), ("drop", 512)])
def test_a_raster_smaller_than_a_tile_yields_one_window(edge, size):
    windows = list(TileGrid(100, 100, 512, 256, edge))
    assert windows == [Window(0, 0, size, size)]


@pytest.mark.parametrize(
    "arguments",
    [(0, 5, 4, 4), (5, 5, 4, 5), (5, 5, 0, 0), (10, 10, 4, 4, "wrap"), (10, 10, 4, 4, "shift", 3)],
)
def test_impossible_grids_are_refused(arguments):
    with pytest.raises(UsageError):
        TileGrid(*arguments)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [("512px", 512, "px"), ("64", 64, "px"), ("100m", 100, "m"), ("0.3 m", 0.3, "m"), ("20%", 20, "%")],
)
def test_lengths_are_read(text, value, unit):
    assert Length.parse(text) == Length(value, unit)


@pytest.mark.parametrize("text", ["", "px", "12km", "-5px", "nan", "1e999m", "a%"])
def test_other_lengths_are_refused(text):
    with pytest.raises(UsageError, match="length"):
        Length.parse(text)


def test_lengths_become_pixels():
    assert Length(100, "m").to_px(gsd_m=0.25) == 400
    assert Length(20, "%").to_px(tile_px=512) == 102
    with pytest.raises(UsageError):
        Length(1, "m").to_px()
    grid = TileGrid.lay(1008, 1008, Length(60, "m"), Length(25, "%"), gsd_m=0.25, snap_px=14)
    assert (grid.tile_px, grid.stride_px) == (238, 168)
    with pytest.raises(UsageError, match="overlap"):
        TileGrid.lay(100, 100, Length(10, "px"), Length(10, "px"))
