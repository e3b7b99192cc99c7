"""Joining windows leaves no seam and no frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_tiling_grid import grids
from tiling import Mosaic, OutputWriteError, TileGrid, overlap_weights, window_weights


def join(grid, image, order=None, **options):
    windows = list(grid)
    mosaic = Mosaic((grid.height_px, grid.width_px), len(image), **options)
    for index in order if order is not None else range(len(windows)):
        w = windows[index]
        wy, wx = window_weights(w, grid)
        values = np.full((len(image), w.height_px, w.width_px), np.nan)
        height = min(w.height_px, grid.height_px - w.row_off_px)
        width = min(w.width_px, grid.width_px - w.col_off_px)
        values[:, :height, :width] = image[:, w.row_off_px : w.row_end_px, w.col_off_px : w.col_end_px]
        mosaic.add(w.row_off_px, w.col_off_px, values, wy[:, None] * wx)
    return mosaic


@settings(max_examples=80, deadline=None)
@given(grids(edges=("shift", "pad", "partial"), snap=(1,)), st.sampled_from([1.0, -3.25, 1e4]))
def test_constant_in_constant_out_to_the_outermost_pixel(grid, value):
    values, weight = join(grid, np.full((1, grid.height_px, grid.width_px), value)).result()
    assert np.abs(values / value - 1).max() <= 1e-6
    assert weight.min() > 0


@settings(max_examples=60, deadline=None)
@given(grids(snap=(1,)), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_an_image_comes_back(grid, random):
    image = np.random.default_rng(0).normal(size=(2, grid.height_px, grid.width_px))
    order = list(range(len(grid)))
    first, covered = join(grid, image).result()
    random.shuffle(order)
    second, _ = join(grid, image, order).result()
    np.testing.assert_array_equal(np.isnan(first[0]), covered == 0)
    np.testing.assert_allclose(first, second, atol=1e-6)
    np.testing.assert_allclose(first[:, covered > 0], image[:, covered > 0], atol=1e-6)


@settings(max_examples=80, deadline=None)
@given(grids(snap=(1,)))
def test_weights_are_positive_and_whole_at_the_outer_edge(grid):
    for w in grid:
        wy, wx = window_weights(w, grid)
        assert wy.shape == (w.height_px,)
        assert wx.shape == (w.width_px,)
        for weights in (wy, wx):
            assert weights.min() > 0
            assert weights.max() <= 1
    if grid.cols == 1:
        assert (window_weights(grid.window(0, 0), grid)[1] == 1).all()
    wy, wx = window_weights(grid.window(0, 0), grid)
    left = grid.overlaps_px(0, 0)[1]
    assert left >= grid.tile_px or wx[0] == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 60))
def test_neighbours_sum_to_one(size, shared):
    shared = min(size, shared)
    after, before = overlap_weights(size, after=shared), overlap_weights(size, before=shared)
    np.testing.assert_allclose(after[size - shared :] + before[:shared], 1, atol=1e-6)
    np.testing.assert_array_equal(after[: size - shared], 1)


def test_uncovered_cells_are_nan_and_zero_weights_hide_nan():
    mosaic = Mosaic((4, 4))
    values = np.full((1, 2, 2), 5.0)
    values[0, 0, 0] = np.nan
    mosaic.add(0, 0, values, np.array([[0.0, 1.0], [1.0, 1.0]]))
    out, weight = mosaic.result()
    assert np.isnan(out[0, 0, 0])
    assert out[0, 1, 1] == 5
    assert np.isnan(out[0, 3, 3])
    assert weight.sum() == 3


def test_a_spilled_mosaic_equals_one_in_memory(tmp_path):
    grid = TileGrid(100, 70, 32, 20)
    image = np.random.default_rng(1).random((3, 70, 100))
    with join(grid, image, spill_bytes=0, folder=tmp_path) as spilled:
        assert len(list(tmp_path.iterdir())) == 1
        values, _ = spilled.result()
        strips = np.concatenate([strip for _, strip, _ in spilled.blocks(16)], axis=1)
    np.testing.assert_array_equal(values, join(grid, image).result()[0])
    np.testing.assert_array_equal(values, strips)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_at_once(tmp_path):
    with pytest.raises(OutputWriteError, match="no room"):
        Mosaic((2**21, 2**21), spill_bytes=0, folder=tmp_path)
    assert not list(tmp_path.iterdir())
