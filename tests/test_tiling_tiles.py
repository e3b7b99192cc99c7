"""The Python way: open a raster, iterate over its tiles, blend what a model makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from tiling import BandError, CancelledError, CancelToken, UsageError, open_raster, write_blended

ROTATED = Affine.translation(5e5, 5.8e6) * Affine.rotation(33) * Affine.scale(0.5, -0.5)


def noise(*shape, dtype="uint16"):
    return np.random.default_rng(5).integers(1, 60000, shape).astype(dtype)


def test_tiles_are_lazy_sized_and_repeatable(make_raster):
    array = noise(4, 100, 130)
    with open_raster(make_raster(array, transform=ROTATED)) as raster:
        tiles = raster.tiles("32px", "25%", bands=[3, 1])
        assert len(tiles) == len(tiles.grid) == 4 * 6
        first, again = list(tiles), list(tiles)
        for one, two in zip(first, again, strict=True):
            np.testing.assert_array_equal(one.array, two.array)
        for tile in first:
            window = tile.window
            rows = slice(window.row_off_px, window.row_end_px)
            cols = slice(window.col_off_px, window.col_end_px)
            np.testing.assert_array_equal(tile.array, array[[2, 0], rows, cols])
            corner = raster.info.transform * (window.col_off_px, window.row_off_px)
            assert tile.transform * (0, 0) == pytest.approx(corner)
            assert tile.crs == raster.info.crs
            assert tile.mask.min() == 255


def test_what_is_blank_is_passed_over(make_raster):
    array = noise(1, 96, 96)
    array[:, :40, :40] = 0
    with open_raster(make_raster(array, nodata=0)) as raster:
        assert sum(1 for _ in raster.tiles("32px")) == 9
        kept = [(tile.window.row, tile.window.col) for tile in raster.tiles("32px", min_valid=0.5)]
        assert len(kept) == 8
        assert (0, 0) not in kept


def test_stretched_tiles_have_all_colours_but_no_transparency(make_raster):
    array = noise(5, 64, 64)
    array[4] = 255
    path = make_raster(array)
    with rasterio.open(path, "r+") as out:
        out.colorinterp = [*out.colorinterp[:4], rasterio.enums.ColorInterp.alpha]
    with open_raster(path) as raster:
        tile = next(iter(raster.tiles("64px", stretch="min-max")))
    assert tile.array.shape == (4, 64, 64)
    assert tile.array.dtype == np.uint8
    assert (tile.array.min(), tile.array.max()) == (0, 255)


def test_mistakes(make_raster):
    with open_raster(make_raster(noise(2, 64, 64))) as raster:
        with pytest.raises(BandError):
            raster.tiles(bands=[3])
        with pytest.raises(UsageError):
            raster.tiles("wide")
        token = CancelToken()
        tiles = iter(raster.tiles("16px", cancel=token))
        next(tiles)
        token.cancel()
        with pytest.raises(CancelledError):
            list(tiles)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile=st.integers(2, 40),
    overlap=st.integers(0, 70),
    edge=st.sampled_from(["shift", "pad", "partial"]),
)
def test_reading_and_blending_gives_the_raster_back(tmp_path_factory, height, width, tile, overlap, edge):
    """Prime sizes, single pixels, tall and wide ones; a south-up place."""
    folder = tmp_path_factory.mktemp("blend")
    array = np.random.default_rng(height * 100 + width).integers(1, 60000, (2, height, width)).astype(np.uint16)
    array[:, : height // 3, : width // 2] = 0
    place = Affine(0.5, 0, 5e5, 0, 0.5, 5.8e6)
    profile = {"driver": "GTiff", "count": 2, "height": height, "width": width, "dtype": "uint16", "nodata": 0}
    with rasterio.open(folder / "in.tif", "w", **profile, transform=place, crs="EPSG:32631") as out:
        out.write(array)
    with open_raster(folder / "in.tif") as raster:
        tiles = raster.tiles(f"{tile}px", f"{overlap * tile // 100}px", edge=edge)
        tiles.blend(folder / "out.tif", ((one, one.array) for one in tiles), nodata=0)
    with rasterio.open(folder / "out.tif") as out:
        np.testing.assert_array_equal(out.read(), array)
        assert out.transform.almost_equals(place)
        assert out.crs.to_epsg() == 32631


def test_a_model_of_a_wide_raster_at_another_resolution(make_raster, tmp_path):
    """Wider than a reading neighbourhood, so that the order of tiles matters to the blending."""
    path = make_raster(noise(1, 60, 9000, dtype="uint8"), nodata=None)
    with open_raster(path) as raster:
        tiles = raster.tiles("64px", "50%", gsd_m=1.0)
        tiles.blend(tmp_path / "out.tif", ((tile, np.full(tile.array.shape[1:], 0.25, np.float32)) for tile in tiles))
    with rasterio.open(tmp_path / "out.tif") as out:
        assert (out.width, out.height, out.res) == (4500, 30, pytest.approx((1, 1), rel=1e-3))
        assert set(np.unique(out.read())) == {np.float32(0.25)}


def test_outputs_may_be_smaller_than_tiles_and_come_without_validity(make_raster, tmp_path):
    with open_raster(make_raster(noise(1, 100, 130))) as raster:
        tiles = raster.tiles("40px", "7px")
        tiles.blend(tmp_path / "small.tif", ((tile, np.full((10, 10), 0.3, np.float32)) for tile in tiles))
        with pytest.raises(UsageError, match="size"):
            tiles.blend(tmp_path / "odd.tif", ((tile, np.zeros((11, 10), np.float32)) for tile in tiles))
        canvas = tiles.canvas
        pairs = ((tile.window, tile.array) for tile in tiles)
        place = {"transform": canvas.transform, "crs": canvas.crs, "width_px": 130, "height_px": 100}
        write_blended(tmp_path / "same.tif", pairs, grid=tiles.grid, **place)
        np.testing.assert_array_equal(rasterio.open(tmp_path / "same.tif").read(), raster.handle().read())
    with rasterio.open(tmp_path / "small.tif") as out:
        assert out.shape == (100, 130)
        assert set(np.unique(out.read())) == {np.float32(0.3)}
