"""What is read is what rasterio reads, and it never depends on what else is read."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rasterio.windows import Window as RasterioWindow

from tiling import (
    CancelledError,
    CancelToken,
    RasterOpenError,
    RasterReadError,
    Stretch,
    TileGrid,
    Window,
    choose_bands,
    open_raster,
    pixel_canvas,
    plan_canvas,
    plan_stretch,
    read_raw,
    read_windows,
)
from tiling.resample import plan_taps, resample


def noise(height, width, bands=3, dtype="uint8"):
    return np.random.default_rng(7).integers(0, 255, (bands, height, width)).astype(dtype)


def read(raster, canvas, windows, **options):
    bands = choose_bands(raster.info)
    return list(read_windows(raster, canvas, windows, bands=bands, stretch=Stretch("none"), **options))


LAYOUTS = {
    "strips": {},
    "one row strips": {"blockysize": 1},
    "tiles": {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"},
    "small tiles": {"tiled": True, "blockxsize": 16, "blockysize": 32},
    "tiles by band": {"tiled": True, "blockxsize": 128, "blockysize": 128, "interleave": "band"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("size", [(701, 1303), (1, 1), (5, 2000), (2000, 3)])
def test_native_windows_equal_rasterio(make_raster, layout, jobs, size):
    path = make_raster(noise(*size), **LAYOUTS[layout])
    with rasterio.open(path) as dataset, open_raster(path) as raster:
        canvas = plan_canvas(raster.info, None)
        for edge in ("shift", "partial"):
            grid = TileGrid(canvas.width_px, canvas.height_px, 224, 130, edge)
            tiles = read(raster, canvas, grid, jobs=jobs)
            assert [tile.window for tile in tiles] == list(grid)
            for tile in tiles:
                w = tile.window
                box = RasterioWindow(w.col_off_px, w.row_off_px, w.width_px, w.height_px)
                np.testing.assert_array_equal(tile.array, dataset.read(window=box))
                assert tile.transform.almost_equals(dataset.window_transform(box))
                assert tile.valid.all()
                assert tile.crs == dataset.crs


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    """A raster with an overview, an uneven size and a hole of nodata."""
    path = tmp_path_factory.mktemp("pyramid") / "image.tif"
    array = noise(733, 1211)
    array[:, 100:180, 300:420] = 0
    profile = {"driver": "GTiff", "count": 3, "height": 733, "width": 1211, "dtype": "uint8", "nodata": 0}
    profile |= {"crs": "EPSG:32631", "transform": from_origin(500000, 5800000, 0.5, 0.5)}
    with rasterio.open(path, "w", tiled=True, blockxsize=128, blockysize=128, **profile) as out:
        out.write(np.maximum(array, 0))
    with rasterio.open(path, "r+") as out:
        out.build_overviews([2, 4], rasterio.enums.Resampling.average)
    return path


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), gsd_m=st.sampled_from([None, 0.31, 0.5, 0.77, 1.0, 1.6, 2.0, 5.3]))
def test_a_window_never_depends_on_the_others(pyramid, data, gsd_m):
    with open_raster(pyramid) as raster:
        canvas = plan_canvas(raster.info, gsd_m, snap_px=14)
        whole = read(raster, canvas, [Window(0, 0, canvas.width_px, canvas.height_px)])[0]
        windows = []
        for _ in range(data.draw(st.integers(1, 6))):
            col, row = (data.draw(st.integers(0, n - 1)) for n in (canvas.width_px, canvas.height_px))
            width, height = (data.draw(st.integers(1, 300)) for _ in range(2))
            windows.append(Window(col, row, min(width, canvas.width_px - col), min(height, canvas.height_px - row)))
        for tile in read(raster, canvas, windows, jobs=data.draw(st.integers(1, 3))):
            w = tile.window
            rows, cols = slice(w.row_off_px, w.row_end_px), slice(w.col_off_px, w.col_end_px)
            np.testing.assert_array_equal(tile.array, whole.array[:, rows, cols])
            np.testing.assert_array_equal(tile.valid, whole.valid[rows, cols])


def test_cell_size_and_cache_do_not_change_a_bit(pyramid, monkeypatch):
    results = []
    for cell, cache in ((512, 2**27), (64, 2**27), (100, 1)):
        monkeypatch.setattr("tiling.cells._CELL_PX", cell)
        monkeypatch.setattr("tiling.cells._SOURCE_SIDE_PX", 4 * cell)
        monkeypatch.setattr("tiling.reader.CACHE_BYTES", cache)
        with open_raster(pyramid) as raster:
            canvas = plan_canvas(raster.info, 0.77)
            grid = TileGrid(canvas.width_px, canvas.height_px, 224, 100)
            results.append([(tile.array, tile.valid) for tile in read(raster, canvas, grid)])
    for other in results[1:]:
        for (image, valid), (same, also) in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(image, same)
            np.testing.assert_array_equal(valid, also)


def test_coarser_pixels_are_means_of_their_footprints(make_raster):
    array = noise(600, 800)
    with open_raster(make_raster(array)) as raster:
        canvas = plan_canvas(raster.info, 2.0)
        assert canvas.scale_x == 4
        tile = read(raster, canvas, [Window(0, 0, 200, 150)])[0]
    means = array.reshape(3, 150, 4, 200, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(tile.array, means, atol=0.51)


def test_a_ramp_stays_a_ramp_at_any_resolution(make_raster):
    x, y = np.meshgrid(np.arange(1200) + 0.5, np.arange(900) + 0.5)
    with open_raster(make_raster(np.stack([x, y, x + y]).astype("float32"))) as raster:
        for gsd_m in (0.3, 0.41, 0.9, 1.37, 3.3):
            canvas = plan_canvas(raster.info, gsd_m)
            window = Window(7, 9, 120, 80)
            tile = next(read_raw(raster, canvas, [window], indexes=(1, 2, 3)))
            cols = (np.arange(7, 127) + 0.5) * canvas.scale_x
            rows = (np.arange(9, 89) + 0.5) * canvas.scale_y
            np.testing.assert_allclose(tile.array[0], np.broadcast_to(cols, (80, 120)), atol=0.13)
            np.testing.assert_allclose(tile.array[1], np.broadcast_to(rows[:, None], (80, 120)), atol=0.13)


def test_nodata_does_not_bleed(make_raster):
    array = np.full((3, 200, 200), 200, "uint8")
    array[:, :, 90:111] = 0
    with open_raster(make_raster(array, nodata=0)) as raster:
        for gsd_m in (0.25, 0.37, 0.5, 1.3):
            canvas = plan_canvas(raster.info, gsd_m)
            tile = read(raster, canvas, [Window(0, 0, canvas.width_px, canvas.height_px)])[0]
            assert set(np.unique(tile.array[:, tile.valid])) == {200}
            assert set(np.unique(tile.array[:, ~tile.valid])) == {0}
            assert tile.valid.mean() == pytest.approx(1 - 21 / 200, abs=0.03)


def test_beyond_the_raster_the_last_pixels_are_repeated(make_raster):
    array = noise(101, 99)
    with open_raster(make_raster(array)) as raster:
        canvas = plan_canvas(raster.info, None, snap_px=14)
        assert (canvas.width_px, canvas.height_px) == (112, 112)
        for window in (Window(0, 0, 112, 112), Window(70, 84, 224, 60), Window(98, 98, 14, 14)):
            tile = read(raster, canvas, [window])[0]
            rows = np.arange(window.row_off_px, window.row_end_px)
            cols = np.arange(window.col_off_px, window.col_end_px)
            expected = array[:, np.minimum(rows, 100)[:, None], np.minimum(cols, 98)]
            np.testing.assert_array_equal(tile.array, expected)
            np.testing.assert_array_equal(tile.valid, (rows < 101)[:, None] & (cols < 99))


def test_masks_outrank_nodata_and_alpha_outranks_masks(make_raster):
    array = noise(64, 64, bands=4)
    array[3] = 255
    array[3, :10] = 0
    array[:3, 20:30] = 0
    path = make_raster(array, nodata=0, photometric="RGB", alpha="YES")
    with open_raster(path) as raster:
        assert raster.info.alpha_band == 4
        tile = read(raster, pixel_canvas(raster.info), [Window(0, 0, 64, 64)])[0]
        np.testing.assert_array_equal(tile.valid, array[3] > 0)
    masked = make_raster(array[:3], "masked.tif", nodata=0)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked, "r+") as out:
        out.write_mask(array[3] > 0)
    with open_raster(masked) as raster:
        assert raster.info.has_mask
        tile = read(raster, pixel_canvas(raster.info), [Window(0, 0, 64, 64)])[0]
        np.testing.assert_array_equal(tile.valid, array[3] > 0)


def test_nodata_counts_only_in_all_bands_and_nan_in_any(make_raster):
    array = np.ones((3, 8, 8), "float32")
    array[:, 0] = -9999
    array[0, 1] = -9999
    array[1, 2] = np.nan
    array[2, 3] = np.inf
    with open_raster(make_raster(array, nodata=-9999)) as raster:
        tile = next(read_raw(raster, pixel_canvas(raster.info), [Window(0, 0, 8, 8)], indexes=(1, 2, 3)))
    assert tile.valid.all(axis=1).tolist() == [False, True, False, False, True, True, True, True]


def test_the_best_overview_is_picked(make_raster):
    path = make_raster(np.zeros((1, 1024, 1024), "uint8"), tiled=True)
    with rasterio.open(path, "r+") as out:
        out.build_overviews([2, 4])
        assert out.overviews(1) == [2, 4]
    with open_raster(path) as raster:
        picks = [plan_canvas(raster.info, gsd).overview for gsd in (0.5, 0.9, 1.0, 1.9, 2.0, 7.0)]
    assert picks == [1, 1, 2, 2, 4, 4]


def test_a_cancelled_read_stops(make_raster):
    token = CancelToken()
    with open_raster(make_raster(noise(600, 600))) as raster:
        canvas = pixel_canvas(raster.info)
        grid = TileGrid(600, 600, 100, 100)
        tiles = read_windows(
            raster, canvas, grid, bands=choose_bands(raster.info), stretch=Stretch("none"), cancel=token
        )
        assert len(list(itertools.islice(tiles, 3))) == 3
        token.cancel()
        with pytest.raises(CancelledError):
            next(tiles)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_raster_is_told_in_one_line(make_raster, kept):
    path = make_raster(
        noise(600, 600), tiled=True, blockxsize=128, blockysize=128, compress="deflate", copy_src_overviews=False
    )
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with open_raster(path) as raster, pytest.raises(RasterReadError, match="damaged") as error:
        read(raster, pixel_canvas(raster.info), TileGrid(600, 600, 128, 128))
    assert "\n" not in str(error.value)


def test_a_huge_sparse_raster_is_read_in_no_time(tmp_path):
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "width": 400_000, "height": 400_000, "count": 3, "dtype": "uint16", "nodata": 0}
    profile |= {"crs": "EPSG:32631", "transform": from_origin(0, 5e6, 0.5, 0.5), "sparse_ok": True, "BIGTIFF": "YES"}
    with rasterio.open(path, "w", tiled=True, blockxsize=512, blockysize=512, **profile) as out:
        out.write(noise(512, 512, dtype="uint16"), window=RasterioWindow(200_192, 200_192, 512, 512))
    with open_raster(path) as raster:
        canvas = plan_canvas(raster.info, 0.5)
        grid = TileGrid(canvas.width_px, canvas.height_px, 512, 512)
        assert len(grid) == 782**2
        tile = read(raster, canvas, [grid.window(391, 391)])[0]
        assert tile.valid.any()


def test_memory_is_bounded_by_the_cache_not_by_the_raster(make_raster, monkeypatch):
    from tiling import reader

    monkeypatch.setattr(reader, "CACHE_BYTES", 6 * 2**20)
    largest = 0
    original = reader._CellStore.get

    def spy(self, key):
        nonlocal largest
        largest = max(largest, len(self._cells))
        return original(self, key)

    monkeypatch.setattr(reader._CellStore, "get", spy)
    with open_raster(make_raster(np.zeros((3, 4096, 4096), "uint8"), tiled=True, compress="deflate")) as raster:
        read(raster, pixel_canvas(raster.info), TileGrid(4096, 4096, 256, 200))
    assert largest <= 6 + 4


def test_stretch_is_the_same_for_every_window(make_raster):
    array = np.zeros((1, 512, 512), "uint16")
    array[:, :, 256:] = 4000
    with open_raster(make_raster(array)) as raster:
        bands = choose_bands(raster.info)
        stretch = plan_stretch(raster, bands)
        tiles = list(
            read_windows(raster, pixel_canvas(raster.info), TileGrid(512, 512, 256, 256), bands=bands, stretch=stretch)
        )
    assert [int(tile.array.max()) for tile in tiles] == [0, 255, 0, 255]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64", "complex64"])
def test_raw_samples_of_every_type_survive_the_reuse_of_memory(make_raster, monkeypatch, dtype):
    array = noise(300, 500, bands=2, dtype=dtype)
    path = make_raster(array, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    monkeypatch.setattr("tiling.cells._CELL_PX", 64)
    monkeypatch.setattr("tiling.reader.CACHE_BYTES", 1)
    with open_raster(path) as raster:
        grid = TileGrid(500, 300, 70, 45)
        tiles = list(read_raw(raster, pixel_canvas(raster.info), grid, indexes=(2, 1), jobs=3))
    for tile in tiles:
        w = tile.window
        expected = array[[1, 0], w.row_off_px : w.row_end_px, w.col_off_px : w.col_end_px]
        assert tile.array.dtype == array.dtype
        np.testing.assert_array_equal(tile.array, expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("bands", [1, 3])
def test_stretched_pictures_survive_the_reuse_of_memory(make_raster, monkeypatch, dtype, bands):
    path = make_raster(noise(300, 500, bands, dtype), tiled=True, blockxsize=64, blockysize=64, nodata=0)
    monkeypatch.setattr("tiling.cells._CELL_PX", 64)
    monkeypatch.setattr("tiling.reader.CACHE_BYTES", 1)
    stretch = Stretch("fixed", (20.0,), (200.0,))
    with rasterio.open(path) as dataset, open_raster(path) as raster:
        grid = TileGrid(500, 300, 70, 45)
        choice = choose_bands(raster.info)
        for tile in read_windows(raster, pixel_canvas(raster.info), grid, bands=choice, stretch=stretch):
            w = tile.window
            box = RasterioWindow(w.col_off_px, w.row_off_px, w.width_px, w.height_px)
            samples = dataset.read(choice.indexes, window=box)
            np.testing.assert_array_equal(tile.valid, (samples != 0).any(axis=0))
            np.testing.assert_array_equal(tile.array, stretch.apply(samples, tile.valid))


def dense(taps, length):
    weights = np.zeros((taps.index.shape[1], length))
    for index, weight in zip(taps.index, taps.weight, strict=True):
        weights[np.arange(len(index)), taps.first + index] += weight
    return weights


@settings(max_examples=40, deadline=None)
@given(
    scale=st.one_of(st.sampled_from([0.5, 1.0, 2.0, 3.0, 8.0]), st.floats(0.4, 9.0)),
    size=st.tuples(st.integers(1, 300), st.integers(1, 80)),
    holes=st.booleans(),
    seed=st.integers(0, 99),
)
def test_resampling_is_a_product_with_the_footprints(scale, size, holes, seed):
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 256, (2, *size)).astype("uint8")
    valid = rng.random(size) > 0.3 if holes else None
    rows, cols = (plan_taps(0, math.ceil(length / scale), scale, length) for length in size)
    down, across = dense(rows, size[0]), dense(cols, size[1])
    assert (down.sum(axis=1) == pytest.approx(1)) and (across.sum(axis=1) == pytest.approx(1))
    taken = np.s_[:, rows.first : rows.first + rows.count, cols.first : cols.first + cols.count]
    got, good = resample(array[taken], None if valid is None else valid[taken[1:]], rows, cols)
    share = down @ (np.ones(size) if valid is None else valid) @ across.T
    sums = down @ (array if valid is None else array * valid) @ across.T
    surely = share > 0.51
    np.testing.assert_allclose(got[:, surely], (sums / np.maximum(share, 1e-9))[:, surely], atol=0.01)
    if good is not None and scale >= 1:
        inside = rows.inside[:, None] & cols.inside
        np.testing.assert_array_equal(good[surely], inside[surely])
        assert not good[share < 0.49].any()


def test_overviews_with_blocks_of_their_own_are_read_as_they_are(make_raster, tmp_path):
    path = make_raster(noise(1500, 1300), tiled=True, blockxsize=512, blockysize=512)
    with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=64), rasterio.open(path, "r+") as out:
        out.build_overviews([2], rasterio.enums.Resampling.average)
    with rasterio.open(path, overview_level=0) as dataset, open_raster(path) as raster:
        assert dataset.block_shapes[0] == (64, 64)
        canvas = plan_canvas(raster.info, raster.info.gsd_m * 2)
        tile = read(raster, canvas, [Window(0, 0, canvas.width_px, canvas.height_px)])[0]
        np.testing.assert_array_equal(tile.array, dataset.read())


MEASURE = """
import sys
from pathlib import Path
from tiling import TileGrid, Stretch, choose_bands, open_raster, pixel_canvas, reader

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

reader.CACHE_BYTES = 16 * 2**20
with open_raster(sys.argv[1]) as raster:
    canvas, bands = pixel_canvas(raster.info), choose_bands(raster.info)
    grid = TileGrid(canvas.width_px, canvas.height_px, 256, 200)
    before = peak()
    for _ in reader.read_windows(raster, canvas, grid, bands=bands, stretch=Stretch("none")):
        pass
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is told by Linux")
def test_memory_does_not_grow_with_the_raster(make_raster):
    peaks = []
    for side in (2048, 4096):
        path = make_raster(noise(side, side), f"{side}.tif", tiled=True, blockxsize=256, blockysize=256)
        done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout))
    assert peaks[1] < 60
    assert peaks[1] < peaks[0] + 12


def test_a_closed_raster_is_not_read(make_raster):
    with open_raster(make_raster(noise(64, 64))) as raster:
        canvas = pixel_canvas(raster.info)
    with pytest.raises(RasterOpenError, match="closed"):
        read(raster, canvas, [Window(0, 0, 64, 64)])
