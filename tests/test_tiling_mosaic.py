"""Several rasters as one: the pixels of a merge, the first on top, nothing where there is nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.merge import merge
from rasterio.transform import from_origin

from tiling import (
    GeoAlignError,
    NotGeoreferencedError,
    OpenPolicy,
    RasterOpenError,
    RasterReadError,
    Stretch,
    TileGrid,
    UnsupportedRasterError,
    UsageError,
    Window,
    choose_bands,
    open_raster,
    pixel_canvas,
    plan_canvas,
    read_raw,
    read_windows,
)
from tiling.mosaic import open_mosaic
from tiling.source import SourceRect, read_source
from tiling.warp import warp_raster

RNG = np.random.default_rng(7)
LAYOUTS = {
    "side by side": [(0, 0), (40, 0), (0, 30), (40, 30)],
    "overlapping": [(0, 0), (25, 10), (13, 22)],
    "gappy": [(0, 0), (90, 0), (20, 70)],
    "north-west of the first": [(50, 50), (0, 0), (30, 40)],
    "one": [(0, 0)],
}
SIZE = (30, 40)
ORIGIN = (5e5, 5.8e6)


def at(col, row, res=0.5, shift=0.0):
    return from_origin(ORIGIN[0] + (col + shift) * res, ORIGIN[1] - (row + shift) * res, res, res)


def missing_in(number):
    """A hole in each raster, at another place."""
    hole = np.zeros(SIZE, bool)
    hole[5 + 3 * number : 15, 10 : 20 + 2 * number] = True
    return hole


def lay_out(make_raster, places, dtype, kind, bands=3):
    paths = []
    for number, (col, row) in enumerate(places):
        array = RNG.integers(1, 250, (bands, *SIZE)).astype(dtype)
        hole = missing_in(number)
        profile = {}
        if kind == "nodata":
            array[:, hole] = 255
            profile = {"nodata": 255}
        elif kind == "alpha":
            array = np.concatenate([array[:3], np.where(hole, 0, np.iinfo(dtype).max)[None].astype(dtype)])
            profile = {"photometric": "RGB", "alpha": "UNASSOCIATED"}
        path = make_raster(array, f"{number}.tif", transform=at(col, row), **profile)
        if kind == "mask" or (kind == "some masks" and number % 2):
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=number % 3 != 1), rasterio.open(path, "r+") as out:
                out.write_mask(~hole)
        paths.append(path)
    return paths


def merged(paths, kind):
    """The same by rasterio.merge: pixels and validity, or by numpy where it knows no validity."""
    with rasterio.open(paths[0]) as first:
        alpha, count = first.colorinterp[-1].name == "alpha", first.count
    if kind == "nodata":
        array, transform = merge(paths)
        return array, (array != 255).any(axis=0), transform
    opened = [rasterio.open(path) for path in paths]
    left, top = min(s.bounds.left for s in opened), max(s.bounds.top for s in opened)
    right, bottom = max(s.bounds.right for s in opened), min(s.bounds.bottom for s in opened)
    res = opened[0].res[0]
    array = np.zeros((count, round((top - bottom) / res), round((right - left) / res)), opened[0].dtypes[0])
    valid = np.zeros(array.shape[1:], bool)
    for source in reversed(opened):
        row, col = round((top - source.bounds.top) / res), round((source.bounds.left - left) / res)
        there = slice(row, row + source.height), slice(col, col + source.width)
        good = source.read(count) > 0 if alpha else source.dataset_mask() > 0
        array[(slice(None), *there)] = np.where(good, source.read(), array[(slice(None), *there)])
        valid[there] |= good
        source.close()
    return array, valid, from_origin(left, top, res, res)


def whole(raster, overview=1):
    handle = raster.handle(overview)
    indexes = tuple(range(1, raster.info.count + 1))
    array, valid = read_source(raster, indexes, SourceRect(0, 0, handle.width, handle.height), overview=overview)
    return array, np.ones(array.shape[1:], bool) if valid is None else valid


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["none", "nodata", "mask", "some masks", "alpha"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pixels_equal_a_merge(make_raster, layout, kind, dtype):
    if kind == "alpha" and dtype == "float32":
        pytest.skip("is refused")
    paths = lay_out(make_raster, LAYOUTS[layout], dtype, kind)
    expected, covered, transform = merged(paths, kind)
    with open_mosaic(paths) as mosaic:
        assert mosaic.info.transform.almost_equals(transform, 1e-6)
        assert mosaic.paths == tuple(paths)
        assert mosaic.path == paths[0]
        array, valid = whole(mosaic)
        np.testing.assert_array_equal(valid, covered)
        np.testing.assert_array_equal(array[:, valid], expected[:, valid])
        assert str(array.dtype) == dtype


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_layout_and_window(tmp_path_factory, data):
    """Random sizes and places against the same painting by numpy."""
    folder = tmp_path_factory.mktemp("mosaic")
    nodata = data.draw(st.sampled_from([None, 0]))
    painted = np.zeros((80, 80), "uint8")
    covered = np.zeros((80, 80), bool)
    sources = []
    for number in range(data.draw(st.integers(1, 5))):
        width, height = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
        col, row = data.draw(st.integers(0, 80 - width)), data.draw(st.integers(0, 80 - height))
        array = RNG.integers(0, 3, (height, width), dtype="uint8")
        path = folder / f"{number}.tif"
        profile = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": "uint8", "nodata": nodata}
        with rasterio.open(path, "w", crs="EPSG:32631", transform=at(col, row), **profile) as out:
            out.write(array, 1)
        sources.append((path, col, row, array))
    for _, col, row, array in reversed(sources):
        there = slice(row, row + array.shape[0]), slice(col, col + array.shape[1])
        good = np.ones(array.shape, bool) if nodata is None else array != nodata
        painted[there] = np.where(good, array, painted[there])
        covered[there] |= good
    with open_mosaic([source[0] for source in sources]) as mosaic:
        west, north = min(source[1] for source in sources), min(source[2] for source in sources)
        assert mosaic.info.transform.almost_equals(at(west, north), 1e-6)
        width, height = (data.draw(st.integers(1, most)) for most in (mosaic.info.width_px, mosaic.info.height_px))
        col = data.draw(st.integers(0, mosaic.info.width_px - width))
        row = data.draw(st.integers(0, mosaic.info.height_px - height))
        tile = next(read_raw(mosaic, pixel_canvas(mosaic.info), [Window(col, row, width, height)], indexes=(1,)))
    there = slice(north + row, north + row + height), slice(west + col, west + col + width)
    np.testing.assert_array_equal(tile.valid, covered[there])
    np.testing.assert_array_equal(tile.array[0][tile.valid], painted[there][tile.valid])


def test_nan_shows_what_lies_below(make_raster):
    top = np.full((1, 20, 20), 1, "float32")
    top[:, 5:10] = np.nan
    below = np.full((1, 20, 20), 2, "float32")
    below[:, 7:9] = np.nan
    paths = [
        make_raster(top, "a.tif", transform=at(0, 0)),
        make_raster(below, "b.tif", transform=at(0, 0), nodata=np.nan),
    ]
    with open_mosaic(paths) as mosaic:
        array, valid = whole(mosaic)
    assert (array[0, 5:7] == 2).all()
    assert not valid[7:9].any()
    assert valid.sum() == 18 * 20


def test_a_nodata_value_that_the_type_cannot_hold_leaves_gaps_invalid(make_raster):
    paths = [make_raster(np.zeros((1, 8, 8), "uint8"), f"{n}.tif", transform=at(12 * n, 0)) for n in (0, 1)]
    for path in paths:
        text = "<PAMDataset><PAMRasterBand band='1'><NoDataValue>-9999</NoDataValue></PAMRasterBand></PAMDataset>"
        path.with_name(path.name + ".aux.xml").write_text(text)
    with open_mosaic(paths) as mosaic:
        _, valid = whole(mosaic)
    assert valid[:, :8].all()
    assert valid[:, 12:].all()
    assert not valid[:, 8:12].any()


@pytest.mark.parametrize("shift", [0.3, 0.5, -0.4, 1e-7])
def test_a_raster_off_the_grid_moves_by_less_than_a_pixel(make_raster, shift):
    array = RNG.integers(0, 255, (1, 20, 20), dtype="uint8")
    paths = [
        make_raster(array, "a.tif", transform=at(0, 0)),
        make_raster(array, "b.tif", transform=at(20, 0, shift=shift)),
        make_raster(array, "c.tif", transform=at(40, 0, shift=shift)),
    ]
    with open_mosaic(paths) as mosaic:
        found, _ = whole(mosaic)
        left = round(np.floor(shift + 0.5))
        np.testing.assert_array_equal(found[:, left : left + 20, 20 + left : 40 + left], array)
        np.testing.assert_array_equal(found[:, left : left + 20, 40 + left : 60 + left], array)


def test_pixels_a_little_larger_are_placed_where_they_lie(make_raster):
    ramp = np.arange(1000, dtype="float32")[None, None].repeat(10, axis=1)
    paths = [
        make_raster(ramp, "a.tif", transform=at(0, 0)),
        make_raster(ramp, "b.tif", transform=from_origin(ORIGIN[0] + 500, ORIGIN[1], 0.5 * 1.008, 0.5)),
    ]
    with open_mosaic(paths) as mosaic:
        assert mosaic.info.width_px == 2008
        found, _ = whole(mosaic)
        true = (np.arange(1008) + 0.5) / 1.008 - 0.5
        assert np.abs(found[0, 0, 1000:] - true).max() <= 0.51
        again = np.concatenate(
            [
                tile.array[:, :, :]
                for tile in read_raw(
                    mosaic,
                    pixel_canvas(mosaic.info),
                    [Window(x, 0, 251, 10) for x in range(0, 2008, 251)],
                    indexes=(1,),
                )
            ],
            axis=2,
        )
        np.testing.assert_array_equal(again, found)


def with_overviews(make_raster, places, kind, factors=(2, 4)):
    paths = []
    for number, (col, row) in enumerate(places):
        array = RNG.integers(1, 250, (3, 128, 128), dtype="uint8")
        hole = np.zeros((128, 128), bool)
        hole[32:64, 48:96] = True
        profile = {}
        if kind == "nodata":
            array[:, hole] = 0
            profile = {"nodata": 0}
        if kind == "alpha":
            array = np.concatenate([array, np.where(hole, 0, 255)[None].astype("uint8")])
            profile = {"photometric": "RGB", "alpha": "YES"}
        path = make_raster(
            array, f"{number}.tif", transform=at(col, row), tiled=True, blockxsize=64, blockysize=64, **profile
        )
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
            if kind == "mask":
                out.write_mask(~hole)
            out.build_overviews(factors, Resampling.nearest)
        paths.append(path)
    return paths


@pytest.mark.parametrize("kind", ["none", "nodata", "mask", "alpha"])
def test_coarse_reads_take_the_overviews_of_the_files(make_raster, kind):
    places = [(0, 0), (128, 0), (64, 128)]
    paths = with_overviews(make_raster, places, kind)
    # What only the overviews hold proves that they are read.
    for path in paths:
        with rasterio.open(path, "r+", overview_level=1) as out:
            band = out.read(1)
            out.write(np.where(band > 0, 251, band), 1)
    with open_mosaic(paths) as mosaic:
        assert mosaic.info.overviews == (2, 4)
        canvas = plan_canvas(mosaic.info, mosaic.info.gsd_m * 4)
        assert canvas.overview == 4
        array, valid = whole(mosaic, 4)
        expected = np.zeros((64, 64), bool)
        for col, row in places:
            expected[row // 4 : row // 4 + 32, col // 4 : col // 4 + 32] = True
            if kind != "none":
                expected[row // 4 + 8 : row // 4 + 16, col // 4 + 12 : col // 4 + 24] = False
        np.testing.assert_array_equal(valid, expected)
        assert (array[0][valid] == 251).all()
        for col, row, path in zip(*zip(*places, strict=True), paths, strict=True):
            with rasterio.open(path, overview_level=1) as out:
                there = slice(row // 4, row // 4 + 32), slice(col // 4, col // 4 + 32)
                good = valid[there]
                np.testing.assert_array_equal(array[(slice(None), *there)][:, good], out.read()[:, good])


def test_only_overviews_that_all_have_are_offered(make_raster):
    paths = with_overviews(make_raster, [(0, 0)], "none", (2, 4, 8))
    paths.append(make_raster(np.ones((3, 128, 128), "uint8"), "late.tif", transform=at(128, 0)))
    with rasterio.open(paths[1], "r+") as out:
        out.build_overviews([4, 8], Resampling.nearest)
    with open_mosaic(paths) as mosaic:
        assert mosaic.info.overviews == (4, 8)
        assert mosaic.handle(8).width == 32


@pytest.mark.parametrize(
    "name", ["a & b <c> 'é \".tif", "end .tif ", "new\nline.tif", "日本.tif", "]]>.tif", "%20&#65;.tif"]
)
def test_names_are_only_names(make_raster, name):
    array = RNG.integers(0, 255, (1, 9, 9), dtype="uint8")
    with open_mosaic([make_raster(array, name)]) as mosaic:
        np.testing.assert_array_equal(whole(mosaic)[0], array)


def test_a_name_that_is_not_text_is_refused(make_raster):
    path = make_raster(np.ones((1, 9, 9), "uint8"))
    strange = os.fsdecode(os.fsencode(path.parent) + b"/\xff.tif")
    path.rename(strange)
    with pytest.raises(GeoAlignError) as error:
        open_mosaic([strange])
    assert "\n" not in str(error.value)


def test_palettes_go_together_when_they_are_equal(make_raster):
    numbers = RNG.integers(0, 2, (1, 20, 20), dtype="uint8")
    paths = [make_raster(numbers, f"{n}.tif", photometric="palette", transform=at(20 * n, 0)) for n in range(3)]
    for number, path in enumerate(paths):
        with rasterio.open(path, "r+") as out:
            out.write_colormap(1, {0: (9, 9, 9, 255), 1: (200, 0, 200 if number < 2 else 0, 255)})
    with open_mosaic(paths[:2]) as mosaic:
        bands = choose_bands(mosaic.info)
        window = Window(0, 0, 40, 20)
        tile = next(read_windows(mosaic, pixel_canvas(mosaic.info), [window], bands=bands, stretch=Stretch("none")))
        assert {tuple(pixel) for pixel in tile.array.reshape(3, -1).T} == {(9, 9, 9), (200, 0, 200)}
    with pytest.raises(UnsupportedRasterError, match="palette differs"):
        open_mosaic(paths)


ONE = np.ones((1, 20, 20), "uint8")


@pytest.mark.parametrize(
    ("what", "array", "profile", "values"),
    [
        ("CRS", ONE, {"crs": "EPSG:32632"}, ("EPSG:32632", "EPSG:32631")),
        ("number of bands", np.ones((2, 20, 20), "uint8"), {}, ("2", "1")),
        ("type of samples", ONE.astype("uint16"), {}, ("uint16", "uint8")),
        ("meaning of bands", ONE, {"photometric": "palette"}, ("palette", "gray")),
        ("mark of missing pixels", ONE, {"nodata": 0}, ("nodata 0", "a mask or nothing")),
        ("pixel size", ONE, {"transform": at(0, 0, 0.6)}, ("0.6", "0.5")),
        ("pixel size", ONE, {"transform": Affine(0.5, 0, 5e5, 0, -0.51, 5.8e6)}, ("0.51", "0.5 × 0.5")),
    ],
)
def test_rasters_that_do_not_fit_are_refused(make_raster, what, array, profile, values):
    paths = [make_raster(ONE, "first.tif"), make_raster(array, "second.tif", **profile)]
    if profile.get("photometric"):
        with rasterio.open(paths[1], "r+") as out:
            out.write_colormap(1, {0: (0, 0, 0, 255), 1: (9, 9, 9, 255)})
    with pytest.raises(UnsupportedRasterError, match=f"{what} differs") as error:
        open_mosaic(paths)
    text = str(error.value)
    assert "\n" not in text
    for part in ("first.tif", "second.tif", *values):
        assert part in text


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.5, 0, 5e5, 0, 0.5, 5.8e6),
        Affine(-0.5, 0, 5e5, 0, -0.5, 5.8e6),
        Affine.translation(5e5, 5.8e6) * Affine.rotation(10) * Affine.scale(0.5, -0.5),
    ],
    ids=["south-up", "mirrored", "rotated"],
)
def test_only_north_up_rasters_make_a_mosaic(make_raster, transform):
    with pytest.raises(UnsupportedRasterError, match="west to east"):
        open_mosaic([make_raster(ONE, "a.tif"), make_raster(ONE, "b.tif", transform=transform)])


def test_what_cannot_be_part_is_refused(make_raster, tmp_path):
    plain = make_raster(ONE, "plain.tif")
    with pytest.raises(UsageError, match="at least one"):
        open_mosaic([])
    with pytest.raises(RasterOpenError, match="does not exist"):
        open_mosaic([plain, tmp_path / "nosuch.tif"])
    loose = tmp_path / "loose.png"
    with rasterio.open(loose, "w", driver="PNG", width=9, height=9, count=1, dtype="uint8") as out:
        out.write(ONE[:, :9, :9])
    with pytest.raises(NotGeoreferencedError, match="place is unknown"):
        open_mosaic([plain, loose])
    virtual = tmp_path / "virtual.tif"
    virtual.write_text(
        f'<VRTDataset rasterXSize="20" rasterYSize="20"><GeoTransform>5e5,0.5,0,5.8e6,0,-0.5</GeoTransform>'
        f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{plain}</SourceFilename>'
        f"<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(RasterOpenError, match="virtual raster"):
        open_mosaic([plain, virtual])
    with pytest.raises(RasterOpenError, match="cannot be part of a mosaic"):
        open_mosaic([plain, virtual], policy=OpenPolicy(allow_vrt=True))
    far = make_raster(ONE, "far.tif", transform=from_origin(5e5 + 2e9, 5.8e6, 0.5, 0.5))
    with pytest.raises(UnsupportedRasterError, match="too far"):
        open_mosaic([plain, far])
    odd = make_raster(np.ones((5, 9, 9), "uint8"), "odd.tif", photometric="RGB", alpha="YES")
    with pytest.raises(UnsupportedRasterError, match="transparency band"):
        open_mosaic([odd])


def test_a_file_that_goes_missing_is_told(make_raster):
    paths = [make_raster(ONE, f"{n}.tif", transform=at(20 * n, 0)) for n in range(2)]
    with open_mosaic(paths) as mosaic:
        paths[1].unlink()
        canvas = pixel_canvas(mosaic.info)
        with pytest.raises(RasterReadError) as error:
            list(read_raw(mosaic, canvas, [Window(0, 0, 40, 20)], indexes=(1,)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("gsd_m", [None, 0.25, 1.3])
def test_threads_read_what_one_reads(make_raster, gsd_m):
    paths = with_overviews(make_raster, [(0, 0), (100, 30), (64, 128), (230, 200)], "mask")
    results = []
    for jobs in (1, 4):
        with open_mosaic(paths) as mosaic:
            canvas = plan_canvas(mosaic.info, gsd_m)
            grid = TileGrid(canvas.width_px, canvas.height_px, 64, 48)
            results.append(list(read_raw(mosaic, canvas, grid, indexes=(1, 2, 3), jobs=jobs)))
    for one, four in zip(*results, strict=True):
        np.testing.assert_array_equal(one.array, four.array)
        np.testing.assert_array_equal(one.valid, four.valid)


def test_a_mosaic_warps_like_any_raster(make_raster):
    array = RNG.integers(1, 255, (3, 200, 300), dtype="uint8")
    one = make_raster(array, "one.tif", transform=at(0, 0))
    parts = [
        make_raster(array[:, rows, cols], f"{n}.tif", transform=at(cols.start, rows.start))
        for n, (rows, cols) in enumerate(
            (slice(y, y + 100), slice(x, x + 100)) for y in (0, 100) for x in (0, 100, 200)
        )
    ]
    results = []
    for source in (open_raster(one), open_mosaic(parts)):
        with warp_raster(source, "EPSG:3857") as warped:
            results.append(whole(warped))
            assert warped.paths == source.paths
    np.testing.assert_array_equal(results[0][1], results[1][1])
    np.testing.assert_array_equal(results[0][0], results[1][0])


def test_hundreds_of_files_open_fast_and_share_few_handles(tmp_path):
    """Run apart, with fewer file handles allowed than there are files."""
    side = 18
    for number in range(side * side):
        row, col = divmod(number, side)
        profile = {"driver": "GTiff", "width": 16, "height": 16, "count": 1, "dtype": "uint16", "crs": "EPSG:32631"}
        with rasterio.open(tmp_path / f"{number:03}.tif", "w", transform=at(col * 16, row * 16), **profile) as out:
            out.write(np.full((1, 16, 16), number, "uint16"))
    code = """
import resource, sys, time
from pathlib import Path
import numpy as np
from tiling import TileGrid, pixel_canvas, read_raw
from tiling.mosaic import open_mosaic
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
paths = sorted(Path(sys.argv[1]).glob("*.tif"))
with open_mosaic(paths) as mosaic:
    info = mosaic.info
    grid = TileGrid(info.width_px, info.height_px, 16, 16)
    for number, tile in enumerate(read_raw(mosaic, pixel_canvas(info), grid, indexes=(1,), jobs=4)):
        assert (tile.array == number).all() and tile.valid.all()
print(number)
"""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert (done.stdout, done.returncode) == (f"{side * side - 1}\n", 0), done.stderr[-2000:]
    assert time.monotonic() - begun < 60
