"""Joining windows leaves no seam and no frame."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_tiling_grid import EDGES, grids
from tiling import (
    CancelledError,
    CancelToken,
    Mosaic,
    OutputExistsError,
    OutputWriteError,
    TileGrid,
    UsageError,
    overlap_weights,
    window_weights,
)
from tiling.blend import write_blended


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


@settings(max_examples=40, deadline=None)
@given(grids(snap=(1,)), st.floats(-(2.0**100), 2.0**100, width=32))
def test_windows_that_agree_give_back_their_value_to_the_bit(grid, value):
    image = np.full((1, grid.height_px, grid.width_px), value, np.float32)
    values, weight = join(grid, image, dtype=np.float32).result()
    assert (values[0][weight > 0] == np.float32(value)).all()


@st.composite
def tall_grids(draw):
    """Grids over several rows of the file's blocks, upright or lying, with few windows."""
    tile = draw(st.integers(1, 300))
    stride = draw(st.integers(-(-tile // 4), tile))
    long, short = draw(st.integers(1, min(1200, 11 * stride + tile))), draw(st.integers(1, min(150, 4 * stride + tile)))
    size = draw(st.sampled_from([(long, short), (short, long), (1, 1), (521, 31), (31, 521)]))
    return TileGrid(*size, max(tile, max(size) // 40 + 1), stride if tile > max(size) // 40 else max(size) // 40 + 1,
                    draw(st.sampled_from(EDGES)))  # fmt: skip


def crop(image, window, fill=np.nan):
    """A window of an image (C, H, W), filled where it reaches beyond."""
    values = np.full((len(image), window.height_px, window.width_px), fill, image.dtype)
    part = image[:, window.row_off_px : window.row_end_px, window.col_off_px : window.col_end_px]
    values[:, : part.shape[1], : part.shape[2]] = part
    return values


def blended(outputs, grid, size=None, **options):
    """Write, check that it is a COG, and return (values, valid)."""
    height, width = size or (grid.height_px, grid.width_px)
    with tempfile.TemporaryDirectory() as folder:
        path = write_blended(
            Path(folder) / "out.tif", outputs, grid=grid, width_px=width, height_px=height,
            transform=Affine(2, 0, 500000, 0, -2, 5800000), crs="EPSG:32631", **options,
        )  # fmt: skip
        assert [item.name for item in Path(folder).iterdir()] == ["out.tif"]
        with rasterio.open(path) as raster:
            assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert raster.crs.to_epsg() == 32631
            return raster.read(), raster.read_masks(1) > 0


def hann(size, before, after):
    """The ramp written out: sine squared over the shared cells, one elsewhere."""
    weights = [1.0] * size
    for k in range(min(before, size)):
        weights[k] *= math.sin(math.pi / 2 * (k + 0.5) / min(before, size)) ** 2
    for k in range(min(after, size)):
        weights[size - 1 - k] *= math.sin(math.pi / 2 * (k + 0.5) / min(after, size)) ** 2
    return np.array(weights)


def reference(outputs, grid):
    """The weighted mean in double precision, over the whole raster at once."""
    shape = grid.height_px + grid.tile_px, grid.width_px + grid.tile_px
    total, weights = 0.0, np.zeros(shape)
    for window, values, valid in outputs:
        left, right, above, below = grid.overlaps_px(window.row, window.col)
        weight = np.outer(hann(window.height_px, above, below), hann(window.width_px, left, right))
        weight = np.where(np.isfinite(values).all(axis=0) & (True if valid is None else valid), weight, 0)
        if np.isscalar(total):
            total = np.zeros((len(values), *shape))
        place = slice(window.row_off_px, window.row_end_px), slice(window.col_off_px, window.col_end_px)
        total[(slice(None), *place)] += np.where(weight > 0, values, 0) * weight
        weights[place] += weight
    weights = weights[: grid.height_px, : grid.width_px]
    with np.errstate(invalid="ignore"):
        return total[:, : grid.height_px, : grid.width_px] / weights, weights > 0


def holes(grid, seed):
    """A mask of the raster with rectangles and single pixels without data."""
    random = np.random.default_rng(seed)
    valid = random.random((grid.height_px, grid.width_px)) > 0.03
    row, col = random.integers(0, grid.height_px), random.integers(0, grid.width_px)
    valid[row : row + grid.height_px // 2, col : col + grid.width_px // 2] = False
    return valid


@settings(max_examples=40, deadline=None)
@given(tall_grids(), st.sampled_from([1.0, -3.3, 1e4, 0.1]), st.integers(0, 99))
def test_a_constant_comes_back_up_to_edges_and_holes(grid, value, seed):
    valid = holes(grid, seed)
    image = np.where(valid, np.float32(value), np.nan)[None]
    found, seen = blended(((w, crop(image, w), None) for w in grid), grid)
    assert (found[0][seen] == np.float32(value)).all()
    covered = np.zeros_like(valid)
    for w in grid:
        covered[w.row_off_px : w.row_end_px, w.col_off_px : w.col_end_px] = True
    np.testing.assert_array_equal(seen, valid & covered)
    assert grid.edge == "drop" or covered.all()


@settings(max_examples=40, deadline=None)
@given(tall_grids(), st.integers(0, 99))
def test_a_ramp_comes_back(grid, seed):
    rows, cols = np.indices((grid.height_px, grid.width_px), dtype=np.float32)
    image = np.stack([rows + 2 * cols, 1 - rows / 1200, cols * 0 + rows])
    valid = holes(grid, seed)
    outputs = ((w, crop(image, w), crop(valid[None], w, fill=False)[0]) for w in grid)
    found, seen = blended(outputs, grid)
    assert not (seen & ~valid).any()
    np.testing.assert_allclose(found[:, seen], image[:, seen], rtol=1e-6, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(tall_grids(), st.integers(0, 99), st.sampled_from(["float32", "float64", "uint8", "int16", "int32"]))
def test_different_outputs_are_joined_as_the_written_out_mean(grid, seed, kind):
    random = np.random.default_rng(seed)

    def output(window):
        shape = window.height_px, window.width_px
        values = random.normal(0, 50, (2, *shape))
        values = values.clip(0, 255).astype(kind) if kind == "uint8" else values.astype(kind)
        return window, values, random.random(shape) > 0.2

    outputs = [output(window) for window in grid if random.random() > 0.1] or [output(grid.window(0, 0))]
    wanted, covered = reference(outputs, grid)
    found, seen = blended(outputs, grid, dtype="float64" if kind == "float64" else None)
    np.testing.assert_array_equal(seen, covered)
    error = np.abs(found[:, seen] - wanted[:, seen])
    assert found.dtype == kind
    if kind.startswith("float"):
        assert error.max(initial=0) <= 1e-6 * 250
    else:
        assert error.max(initial=0) <= 0.5 + 1e-4


@settings(max_examples=40, deadline=None)
@given(tall_grids(), st.integers(0, 99))
def test_nearest_takes_the_tile_in_which_a_pixel_lies_most_inward(grid, seed):
    random = np.random.default_rng(seed)
    windows = [window for window in grid if random.random() > 0.1] or [grid.window(0, 0)]
    outputs = [(w, np.full((w.height_px, w.width_px), 1 + k, np.uint16), None) for k, w in enumerate(windows)]
    wanted = np.zeros((grid.height_px, grid.width_px), np.uint16)
    best = np.zeros(wanted.shape)
    for k, w in enumerate(windows):
        rows, cols = np.indices((w.height_px, w.width_px))
        inward = np.full(rows.shape, np.inf)
        left, right, above, below = grid.overlaps_px(w.row, w.col)
        for shared, distance in ((left, cols + 1), (right, w.width_px - cols), (above, rows + 1),
                                 (below, w.height_px - rows)):  # fmt: skip
            inward = np.minimum(inward, distance if shared else np.inf)
        place = slice(w.row_off_px, w.row_end_px), slice(w.col_off_px, w.col_end_px)
        inward = inward[: grid.height_px - w.row_off_px, : grid.width_px - w.col_off_px]
        wanted[place] = np.where(inward > best[place], 1 + k, wanted[place])
        best[place] = np.maximum(inward, best[place])
    found, seen = blended(outputs, grid, how="nearest")
    np.testing.assert_array_equal(found[0], wanted)
    np.testing.assert_array_equal(seen, wanted > 0)


GRID = TileGrid(700, 1100, 256, 192)


def flat(grid=GRID, value=7, kind=np.uint8):
    return [(w, np.full((w.height_px, w.width_px), value, kind), None) for w in grid]


def test_missing_tiles_are_empty_and_the_others_untapered_beside_them():
    gone = {(0, 0), (2, 1), (4, 2), (4, 3)}
    outputs = [output for output in flat() if (output[0].row, output[0].col) not in gone]
    covered = np.zeros((1100, 700), bool)
    for window, _, _ in outputs:
        covered[window.row_off_px : window.row_end_px, window.col_off_px : window.col_end_px] = True
    assert not covered.all()
    for options, empty in (({}, 0), ({"nodata": 255}, 255), ({"nodata": 0}, 0), ({"dtype": "float32"}, np.nan)):
        found, seen = blended(outputs, GRID, **options)
        np.testing.assert_array_equal(seen, covered)
        assert (found[0][covered] == 7).all()
        np.testing.assert_array_equal(found[0][~covered], np.full((~covered).sum(), empty))
    found, seen = blended(flat(), GRID)
    assert seen.all() and (found == 7).all()


def test_a_raster_smaller_than_its_grid_is_cut_out_of_it():
    grid = TileGrid(714, 1106, 256, 192, "pad", 2)
    found, seen = blended(flat(grid), grid, size=(500, 700))
    assert found.shape == (1, 500, 700)
    assert seen.all() and (found == 7).all()


def test_a_mean_that_hits_nodata_stays_valid():
    grid = TileGrid(7, 4, 5, 2)
    middle = np.s_[0, :, 3]
    for kind, nodata, pair, beside in (
        ("int16", 0, (-5, 5), 1), ("uint8", 128, (118, 138), 129), ("uint8", 255, (255, 254), 254),
        ("int16", 32767, (32766, 32767), 32766), ("float32", 0.0, (-5, 5), np.nextafter(np.float32(0), np.float32(1))),
    ):  # fmt: skip
        outputs = [(w, np.full((4, 5), pair[w.col], kind), None) for w in grid]
        outputs[0][1][0, 0] = nodata
        found, seen = blended(outputs, grid, nodata=nodata)
        assert not seen[0, 0]
        assert seen[:, 3].all()
        assert (found[middle] == beside).all()


def test_infinities_and_partly_missing_channels_are_not_valid():
    grid = TileGrid(8, 8, 8, 8)
    values = np.ones((2, 8, 8))
    values[0, 0, 0], values[1, 1, 1], values[0, 2, 2], values[0, 3, 3] = np.nan, np.inf, -np.inf, 1e300
    found, seen = blended([(grid[0], values, None)], grid)
    np.testing.assert_array_equal(np.argwhere(~seen), [[0, 0], [1, 1], [2, 2], [3, 3]])
    assert np.isnan(found[:, ~seen]).all()


@pytest.mark.parametrize("kind", ["bool", "int8", "uint32", "int64", "uint64", "float16", "float64"])
@pytest.mark.parametrize("dtype", [None, "uint8", "float32", "float64"])
def test_types(kind, dtype):
    how = "nearest" if "64" in kind else "hann"
    found, seen = blended(flat(value=1, kind=kind), GRID, how=how, dtype=dtype)
    assert seen.all() and (found == 1).all()
    assert found.dtype == (dtype or {"bool": "uint8", "float16": "float32", "float64": "float32"}.get(kind, kind))


def test_samples_are_kept_within_their_type():
    for values, kind, wanted in (([-3.0, 260.0], "uint8", [0, 255]), ([1.4, 1.6], "int16", [1, 2])):
        for how in ("hann", "nearest"):
            found, _ = blended([(TileGrid(2, 1, 2, 2)[0], np.array([values]), None)], TileGrid(2, 1, 2, 2),
                               dtype=kind, how=how)  # fmt: skip
            assert found[0, 0].tolist() == wanted
    big = np.array([[2**63 + 5, 3]], np.uint64)
    for kind, wanted in (("uint64", [2**63 + 5, 3]), ("int8", [127, 3])):
        found, _ = blended([(TileGrid(2, 1, 2, 2)[0], big, None)], TileGrid(2, 1, 2, 2), dtype=kind, how="nearest")
        assert found[0, 0].tolist() == wanted


def wrong(change):
    outputs = flat()
    window, values, _ = outputs[1]
    if change == "order":
        return [outputs[-1], *outputs]
    outputs[1] = {
        "size": (window, values[1:], None),
        "valid": (window, values, np.ones((3, 3), bool)),
        "channels": (window, np.stack([values] * 2), None),
        "type": (window, values.astype(np.float32), None),
        "window": (TileGrid(700, 1100, 256, 200).window(0, 1), values, None),
        "axes": (window, values[None, None], None),
    }[change]
    return outputs


@pytest.mark.parametrize("change", ["order", "size", "valid", "channels", "type", "window", "axes"])
def test_outputs_that_do_not_fit_are_told(tmp_path, change):
    with pytest.raises(UsageError) as caught:
        write_blended(tmp_path / "out.tif", wrong(change), grid=GRID, width_px=700, height_px=1100,
                      transform=Affine.identity(), crs=None)  # fmt: skip
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_arguments_that_do_not_fit_are_told(tmp_path):
    place = {"grid": GRID, "width_px": 700, "height_px": 1100, "transform": Affine.identity(), "crs": None}
    for outputs, options in (
        ([], {}), (flat(), {"how": "median"}), (flat(), {"dtype": "complex64"}), (flat(), {"dtype": "colour"}),
        (flat(), {"nodata": -1}), (flat(), {"nodata": 0.5}), (flat(), {"nodata": math.nan}),
        ([(GRID[0], np.zeros((0, 256, 256)), None)], {}), ([(GRID[0], np.zeros(()), None)], {}),
        (flat(kind=np.int64), {}), (flat(kind=np.complex64), {}), (flat(), {"dtype": "float16"}),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            write_blended(tmp_path / "out.tif", outputs, **place, **options)
    assert not list(tmp_path.iterdir())
    (tmp_path / "out.tif").write_text("mine")
    with pytest.raises(OutputExistsError):
        write_blended(tmp_path / "out.tif", flat(), **place)
    (tmp_path / "out.tif.aux.xml").write_text("<PAMDataset/>")
    seen, token = [], CancelToken()

    def report(done, total, stage):
        seen.append((done, total))
        if done == 9:
            token.cancel()

    with pytest.raises(CancelledError):
        write_blended(tmp_path / "out.tif", flat(), **place, overwrite=True, progress=report, cancel=token)
    assert seen == [(k + 1, len(GRID)) for k in range(9)]
    assert (tmp_path / "out.tif").read_text() == "mine"
    write_blended(tmp_path / "out.tif", flat(), **place, overwrite=True, tags={"MODEL": "m"}, descriptions=("score",))
    assert [item.name for item in tmp_path.iterdir()] == ["out.tif"]
    with rasterio.open(tmp_path / "out.tif") as raster:
        assert raster.tags()["MODEL"] == "m"
        assert raster.descriptions == ("score",)


@pytest.mark.parametrize("size", [(2**31 + 5, 1), (10**7, 10**7), (10**9, 10**4)])
def test_rasters_too_large_for_any_disk_are_told_at_once(tmp_path, size):
    grid = TileGrid(*size, 1, 1)
    with pytest.raises(OutputWriteError, match=r"does not fit|cannot be written") as caught:
        write_blended(tmp_path / "out.tif", [(grid[0], np.ones((1, 1)), None)], grid=grid, width_px=size[0],
                      height_px=size[1], transform=Affine.identity(), crs=None)  # fmt: skip
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_windows_are_asked_for_only_as_blocks_are_written(tmp_path):
    """Of a raster 40 tiles high, a few rows of blocks are held at a time."""
    grid, held = TileGrid(300, 20000, 512, 500), []

    class Counted(Mosaic):
        alive = 0

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            Counted.alive += 1
            held.append(Counted.alive)

        def close(self):
            super().close()
            Counted.alive -= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiling.blend.Mosaic", Counted)
        found, seen = blended(((w, np.full((w.height_px, w.width_px), w.row, np.uint8), None) for w in grid), grid)
    assert seen.all()
    assert (found[0, list(itertools.accumulate([250] + [500] * 38))] == np.arange(39)[:, None]).all()
    assert max(held) == 2
    assert Counted.alive == 0
