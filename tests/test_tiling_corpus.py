"""Every real and awkward raster gives a picture or one clear line."""

from __future__ import annotations

import contextlib
import itertools
import shutil

import numpy as np
import pytest

from tiling import (
    GeoAlignError,
    OpenPolicy,
    TileGrid,
    choose_bands,
    open_raster,
    plan_canvas,
    plan_stretch,
    read_windows,
)
from tiling.cli import command
from tiling.clikit import run_cli
from tiling.source import SourceRect, read_source

pytestmark = pytest.mark.data
SUFFIXES = {".tif", ".tiff", ".vrt", ".csv", ".ovr", ".msk"}
REFUSED = {
    "cint16.tif": "complex",
    "all-nodata.tif": "no valid pixel",
    "inverted_lat.tif": "no valid pixel",
    "cmyk-3c-16b.tiff": "CMYK",
    "cmyk-3c-32b-float.tiff": "CMYK",
    "corrupt.tif": "damaged",
    "catalog.csv": "not a GeoTIFF",
}


def look(path, policy):
    with open_raster(path, policy=policy) as raster:
        info = raster.info
        bands = choose_bands(info)
        stretch = plan_stretch(raster, bands)
        for gsd_m in (None, info.gsd_m and info.gsd_m * 2.7):
            canvas = plan_canvas(info, gsd_m, snap_px=14)
            grid = TileGrid(canvas.width_px, canvas.height_px, 224, 168, "shift", 14)
            windows = itertools.chain(itertools.islice(grid, 24), [grid[-1]])
            for tile in read_windows(raster, canvas, windows, bands=bands, stretch=stretch):
                assert tile.array.dtype == np.uint8
                assert tile.array.shape[1:] == tile.valid.shape == (tile.window.height_px, tile.window.width_px)


@pytest.mark.parametrize("allow_vrt", [False, True])
def test_every_file_is_read_or_refused(data_dir, allow_vrt, recwarn, capfd):
    files = sorted(path for path in (data_dir / "rasters").rglob("*") if path.suffix in SUFFIXES)
    assert len(files) > 150
    refused = {}
    for path in files:
        try:
            look(path, OpenPolicy(allow_vrt=allow_vrt))
        except GeoAlignError as error:
            assert "\n" not in str(error)
            refused[path.name] = str(error)
    for name, reason in REFUSED.items():
        assert reason in refused.pop(name)
    assert [name for name in refused if not name.endswith(".vrt")] == [], refused
    assert not [item for item in recwarn.list if item.category is not PendingDeprecationWarning]
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


CUT_REFUSED = {
    "cint16.tif": "complex",
    "corrupt.tif": "damaged",
}


def test_every_raster_is_cut_and_comes_back(data_dir, tmp_path, capsys):
    """Tiles with overlaps, stitched, are the raster again: samples, validity, place."""
    files = sorted(path for path in (data_dir / "rasters").rglob("*") if path.suffix in {".tif", ".tiff"})
    refused = {}
    for number, path in enumerate(files):
        tiles, back = tmp_path / str(number), tmp_path / f"{number}.tif"
        with contextlib.suppress(GeoAlignError), open_raster(path) as raster:
            if raster.info.width_px * raster.info.height_px * raster.info.count > 16e6:
                continue
        code = run_cli(command, [str(path), "-o", str(tiles), "--tile", "256", "--overlap", "15%", "-j", "1"])
        err = capsys.readouterr().err
        if code:
            assert err.count("\n") == 1
            refused[path.name] = err
            continue
        how = "nearest" if "int64" in str(dtype_of(path)) else "hann"
        assert run_cli(command, ["--stitch", str(tiles), "-o", str(back), "--how", how]) == 0, capsys.readouterr()
        capsys.readouterr()
        with open_raster(path) as source, open_raster(back) as stitched:
            assert_same(source, stitched)
        shutil.rmtree(tiles)
    for name, reason in CUT_REFUSED.items():
        assert reason in refused.pop(name)
    assert not refused


def dtype_of(path):
    with open_raster(path) as raster:
        return raster.info.dtype


def assert_same(source, stitched):
    info = source.info
    assert stitched.info.crs == info.crs
    assert stitched.info.transform.almost_equals(info.transform)
    indexes = tuple(range(1, info.count + 1))
    whole = SourceRect(0, 0, info.width_px, info.height_px)
    (wanted, good), (found, there) = (read_source(raster, indexes, whole) for raster in (source, stitched))
    everywhere = np.ones(wanted.shape[1:], np.bool_)
    good, there = (everywhere if valid is None else valid for valid in (good, there))
    np.testing.assert_array_equal(there, good)
    np.testing.assert_array_equal(found[:, good], wanted[:, good].astype(found.dtype))
