"""Every real and awkward raster gives a picture or one clear line."""

from __future__ import annotations

import itertools

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
                assert tile.image.dtype == np.uint8
                assert tile.image.shape[1:] == tile.valid.shape == (tile.window.height_px, tile.window.width_px)


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
