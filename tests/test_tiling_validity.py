"""Windows are ruled out only where there is nothing, whatever the overviews and the blocks look like."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, Resampling

from tiling import open_raster
from tiling.grid import Length
from tiling.plan import lay_out
from tiling.validity import survey

SPARSE = {"tiled": True, "blockxsize": 64, "blockysize": 64, "sparse_ok": True, "compress": "deflate"}


def layout_of(path, min_valid=0.1, tile_px=64, **options):
    with open_raster(path) as raster:
        return lay_out(raster, Length(tile_px, "px"), min_valid=min_valid, **options)


def kept(layout):
    return {(window.row, window.col) for window in layout.windows}


def with_overviews(path, factors, how=Resampling.nearest):
    with rasterio.open(path, "r+") as out:
        out.build_overviews(factors, how)
    return path


@pytest.mark.parametrize("factors", [[8, 16], [2], [4, 8], [16]])
@pytest.mark.parametrize("offset", range(0, 8, 3))
def test_a_pattern_that_an_overview_lost_is_still_there(make_raster, factors, offset):
    array = np.zeros((1, 256, 256), "uint8")
    array[:, :, offset::8] = 9
    path = with_overviews(make_raster(array, nodata=0), factors)
    assert len(layout_of(path).windows) == 16


def test_a_pattern_in_one_corner_is_still_there(make_raster):
    array = np.zeros((1, 1024, 1024), "uint8")
    array[:, :256, :512:8] = 9
    path = with_overviews(make_raster(array, nodata=0, compress="deflate"), [8])
    assert kept(layout_of(path)) >= {(row, col) for row in range(4) for col in range(8)}


def test_the_finest_overview_that_pays_is_asked(make_raster):
    array = np.zeros((1, 512, 512), "uint8")
    array[:, :64, :64] = 9
    for factors, told_by in (([2, 4, 8], "overview 1:4"), ([8, 16], "overview 1:8"), ([2], "overview 1:2")):
        layout = layout_of(with_overviews(make_raster(array, nodata=0), factors), tile_px=128)
        assert layout.told_by == told_by
        assert kept(layout) == {(0, 0)}


def test_an_overview_rules_out_all_or_nothing(make_raster):
    """An overview of a few valid cells says nothing about how many pixels are valid."""
    array = np.zeros((1, 512, 512), "uint8")
    array[:, 100:140, 100:140] = 9
    path = with_overviews(make_raster(array, nodata=0), [8])
    with open_raster(path) as raster:
        layout = lay_out(raster, Length(64, "px"))
        coverage = survey(raster, layout.canvas, (1,), 64)
    assert {coverage.at_most(window) for window in layout.windows} == {0.0, 1.0}
    assert kept(layout_of(path, 0.9)) == {(1, 1), (1, 2), (2, 1), (2, 2)}


@pytest.mark.parametrize("interleave", ["band", "pixel"])
@pytest.mark.parametrize("gsd_m", [None, 0.7])
def test_a_block_that_lies_in_any_band_is_not_empty(tmp_path, interleave, gsd_m):
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "width": 512, "height": 512, "count": 3, "dtype": "uint8", "nodata": 0}
    place = {"crs": "EPSG:32631", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5.8e6)}
    with rasterio.open(path, "w", **profile, **place, **SPARSE, interleave=interleave) as out:
        out.write(np.full((64, 64), 9, "uint8"), 2, window=((64, 128), (192, 256)))
    layout = layout_of(path, gsd_m=gsd_m, tile_px=32)
    assert layout.told_by == "block table"
    assert 0 < len(layout.windows) < len(layout.grid) / 4
    with open_raster(path) as raster:
        exact = lay_out(raster, Length(32, "px"), gsd_m=gsd_m)
        valid = {(tile.window.row, tile.window.col) for tile in raster.tiles("32px", gsd_m=gsd_m) if tile.valid.any()}
    assert valid <= kept(layout) <= kept(exact)
    assert kept(layout_of(path, indexes=(1,), tile_px=32)) == (
        set() if interleave == "band" else kept(layout_of(path, tile_px=32))
    )


@pytest.mark.parametrize("nodata", [None, 0, 255])
def test_only_the_transparency_band_tells_where_there_is_one(tmp_path, nodata):
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "width": 256, "height": 256, "count": 2, "dtype": "uint8", "nodata": nodata}
    with rasterio.open(path, "w", **profile, **SPARSE, interleave="band") as out:
        out.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
        out.write(np.full((64, 64), 9, "uint8"), 1, window=((0, 64), (0, 64)))
        out.write(np.full((64, 64), 255, "uint8"), 2, window=((128, 192), (64, 128)))
    with open_raster(path) as raster:
        valid = {(tile.window.row, tile.window.col) for tile in raster.tiles("64px") if tile.valid.any()}
    assert kept(layout_of(path)) == valid
