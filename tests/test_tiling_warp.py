"""Rasters seen in another CRS lie where they should, keep what is missing, and read the same however they are cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import calculate_default_transform, reproject
from rasterio.windows import Window as RasterioWindow

from tiling import (
    GeoAlignError,
    NotGeoreferencedError,
    RasterOpenError,
    Stretch,
    TileGrid,
    UnsupportedRasterError,
    UsageError,
    Window,
    choose_bands,
    open_raster,
    pixel_canvas,
    plan_canvas,
    plan_stretch,
    read_raw,
    read_windows,
)
from tiling.source import SourceRect, read_source
from tiling.warp import warp_raster

UTM = Affine(0.5, 0, 5e5, 0, -0.5, 5.8e6)
PLACES = {
    "north-up": ("EPSG:32631", UTM),
    "south-up": ("EPSG:32631", Affine(0.5, 0, 5e5, 0, 0.5, 5.8e6)),
    "rotated": ("EPSG:32631", Affine.translation(5e5, 5.8e6) * Affine.rotation(30) * Affine.scale(0.5, -0.5)),
    "mirrored": ("EPSG:32631", Affine(-0.5, 0, 5e5, 0, -0.5, 5.8e6)),
    "degrees": ("EPSG:4326", from_origin(5, 60, 1e-5, 5e-6)),
    "feet": ("EPSG:2263", from_origin(1e6, 2e5, 1, 1)),
    "across 180°": ("EPSG:32660", from_origin(832_900, 1e6, 10, 10)),
    "polar": ("EPSG:3413", from_origin(1e6, 1e6, 50, 50)),
}
"""Placements of small rasters."""


def coordinates(transform, width, height):
    """Two bands that hold the map coordinates of their own pixels' centres, as offsets from the first corner."""
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = transform * (cols, rows)
    return np.stack([x - transform.c, y - transform.f]).astype("float32")


def whole(raster, indexes=None, overview=1):
    """All pixels of a raster or of its overview, and their validity."""
    handle = raster.handle(overview)
    indexes = indexes or tuple(range(1, raster.info.count + 1))
    array, valid = read_source(raster, indexes, SourceRect(0, 0, handle.width, handle.height), overview=overview)
    return array, np.ones(array.shape[1:], bool) if valid is None else valid


def misplaced_px(array, valid, info, transform, crs, origin):
    """How far, in source pixels, the coordinates in a warped raster are from the true ones."""
    cols, rows = np.meshgrid(np.arange(array.shape[2]) + 0.5, np.arange(array.shape[1]) + 0.5)
    width, height = info.width_px / array.shape[2], info.height_px / array.shape[1]
    x, y = info.transform * (cols[valid] * width, rows[valid] * height)
    x, y = Transformer.from_crs(info.crs.to_wkt(), crs, always_xy=True).transform(x, y)
    true = ~origin * (x, y)
    east, north = array.astype("float64")[:, valid]
    found = ~origin * (east + origin.c, north + origin.f)
    return np.hypot(true[0] - found[0], true[1] - found[1])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("target", ["EPSG:3857", "EPSG:4326", "EPSG:3035", "EPSG:32632", "EPSG:5070", "EPSG:32601"])
def test_every_pixel_lies_where_it_should(make_raster, place, target):
    crs, transform = PLACES[place]
    path = make_raster(coordinates(transform, 180, 120), crs=crs, transform=transform)
    try:
        warped = warp_raster(open_raster(path), target)
    except UnsupportedRasterError as error:
        assert "cannot be laid out in" in str(error)
        assert place in {"across 180°", "polar"} or target == "EPSG:32601"
        return
    with warped:
        info = warped.info
        if info.crs.to_string() == crs:
            pytest.skip("is not warped")
        assert info.transform.b == info.transform.d == 0
        assert info.transform.a > 0 > info.transform.e
        array, valid = whole(warped)
        assert covers(valid, info, transform, crs, 180, 120)
        # The outermost pixels are means over the part that the source covers, so not of their own place.
        inner = erode(valid)
        assert misplaced_px(array, inner, info, transform, crs, transform).max() < 0.2


def covers(valid, info, transform, crs, width, height):
    """Whether the centres of pixels a little inside a source lie on valid pixels of the warped raster."""
    cols, rows = np.meshgrid(np.arange(6, width - 6) + 0.5, np.arange(6, height - 6) + 0.5)
    x, y = Transformer.from_crs(crs, info.crs.to_wkt(), always_xy=True).transform(*(transform * (cols, rows)))
    cols, rows = (np.floor(index).astype(int) for index in ~info.transform * (x, y))
    return valid[rows, cols].all()


def erode(valid, by=2):
    out = np.pad(valid, by)
    for axis in (0, 1):
        out = np.minimum.reduce([np.roll(out, step, axis) for step in range(-by, by + 1)])
    return out[by:-by, by:-by]


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("target", ["EPSG:3857", "EPSG:4326", "EPSG:32632"])
def test_pixels_equal_a_whole_warp(sample_path, target, resampling):
    with (
        rasterio.open(sample_path) as source,
        warp_raster(open_raster(sample_path), target, resampling=resampling) as warped,
    ):
        transform, width, height = calculate_default_transform(
            source.crs, target, source.width, source.height, *source.bounds
        )
        info = warped.info
        assert (info.width_px, info.height_px) == (width, height)
        assert info.transform.almost_equals(transform, 1e-9)
        expected = np.zeros((4, height, width), "uint8")
        bands = np.concatenate([source.read(), np.full((1, source.height, source.width), 255, "uint8")])
        reproject(
            bands, expected, src_transform=source.transform, src_crs=source.crs, dst_transform=transform,
            dst_crs=target, resampling=Resampling[resampling],
        )  # fmt: skip
        array, valid = whole(warped)
        assert (valid != (expected[3] > 0)).mean() < 1e-3
        both = valid & (expected[3] == 255)
        differ = np.abs(array.astype(int) - expected[:3])[:, both]
        # Both take transforms that are right to 1/8 pixel, each with corners of its own.
        assert differ.mean() < (1 if resampling == "nearest" else 0.4)
        assert np.median(differ) == 0


def gaps(height, width):
    valid = np.ones((height, width), bool)
    valid[10:40, 20:60] = False
    valid[70:] = False
    return valid


def with_gaps(make_raster, kind, dtype):
    """A raster of 100s that misses pixels in the way named, which hold 7; its validity and its path."""
    valid = gaps(100, 90)
    if kind in ("none", "unreachable nodata"):
        valid[:] = True
    array = np.where(valid, 100, 7).astype(dtype)[None].repeat(3, axis=0)
    profile = {}
    if kind == "nodata":
        profile = {"nodata": 7}
    elif kind == "mask and nodata":
        array[:, 50:55] = 7
        profile = {"nodata": 7}
    elif kind == "nan":
        array[:, ~valid] = np.nan
    elif kind == "unreachable nodata":
        profile = {"nodata": -9999}
    elif kind == "alpha":
        array = np.concatenate([array, np.where(valid, 255, 0)[None].astype(dtype)])
        profile = {"photometric": "RGB", "alpha": "YES"}
    path = make_raster(array, transform=UTM, **{k: v for k, v in profile.items() if v != -9999})
    if kind == "unreachable nodata":
        item = "<PAMRasterBand band='{}'><NoDataValue>-9999</NoDataValue></PAMRasterBand>"
        text = f"<PAMDataset>{''.join(item.format(band) for band in (1, 2, 3))}</PAMDataset>"
        path.with_name(path.name + ".aux.xml").write_text(text)
    if kind.startswith("mask"):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
            out.write_mask(valid)
    return valid, path


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "float32"])
@pytest.mark.parametrize("kind", ["none", "nodata", "mask", "mask and nodata", "alpha", "nan", "unreachable nodata"])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_what_is_missing_stays_missing(make_raster, kind, dtype, resampling):
    """The same pixels are valid as when the validity itself is warped, and none has a value of missing ones."""
    if (kind == "nan" and dtype != "float32") or (kind == "unreachable nodata" and dtype != "uint8"):
        pytest.skip("no such raster")
    valid, path = with_gaps(make_raster, kind, dtype)
    with warp_raster(open_raster(path), "EPSG:3857", resampling=resampling) as warped:
        info = warped.info
        assert info.count == (4 if kind == "alpha" else 3)
        found, good = whole(warped, (1, 2, 3))
        expected = np.zeros(good.shape, "float32")
        reproject(
            valid.astype("float32"), expected, src_transform=UTM, src_crs="EPSG:32631", dst_transform=info.transform,
            dst_crs="EPSG:3857", resampling=Resampling[resampling],
        )  # fmt: skip
        if resampling == "nearest":
            assert (good != (expected > 0)).mean() < 2e-3
        else:
            assert good[expected > 0.99].all()
            assert not good[expected == 0].any()
        inside = erode(good, 1)
        if kind == "mask and nodata":
            assert found[:, inside].min() == 7, "the mask outranks the nodata value"
        else:
            np.testing.assert_allclose(found[:, inside], 100, rtol=1e-6)


def test_rank_of_validity_is_the_same_before_and_after(make_raster):
    """A pixel is missing when all its bands are nodata, not when one is."""
    array = np.full((3, 60, 60), 50, "uint8")
    array[0, 20:40] = 0
    array[:, :, :10] = 0
    with warp_raster(open_raster(make_raster(array, nodata=0)), "EPSG:3857", resampling="nearest") as warped:
        found, valid = whole(warped)
        assert (found[0][valid] == 0).any()
        assert (found[1][valid] == 50).all()
        assert not valid[:, :5].any()


def pyramid(make_raster, size=1000, transform=UTM, crs="EPSG:32631", factors=(2, 4, 8, 16)):
    path = make_raster(
        coordinates(transform, size, size), crs=crs, transform=transform, tiled=True, blockxsize=256, blockysize=256
    )
    with rasterio.open(path, "r+") as out:
        out.build_overviews(factors, Resampling.average)
    return path


def test_the_overview_that_suits_the_resolution_is_warped(make_raster):
    path = pyramid(make_raster)
    for gsd_m, overview, own in [
        (None, 1, (2, 4, 8, 16)),
        (0.3, 1, (2, 4, 8, 16)),
        (0.9, 1, (2, 4, 8, 16)),
        (1.0, 2, (2, 4, 8)),
        (2.3, 4, (2, 4)),
        (4.0, 8, (2,)),
        (20.0, 16, ()),
    ]:
        with warp_raster(open_raster(path), "EPSG:3857", gsd_m=gsd_m) as warped:
            assert warped.source_overview() == overview, gsd_m
            assert warped.info.overviews == own
            canvas = plan_canvas(warped.info, gsd_m)
            if gsd_m and gsd_m > 0.6:
                assert warped.info.gsd_m == pytest.approx(gsd_m, rel=1e-3)
                assert canvas.is_native
            for factor in (1, *own):
                assert warped.source_overview(factor) == overview * factor
                array, valid = whole(warped, overview=factor)
                assert math.ceil(warped.info.width_px / factor) == array.shape[2]
                wrong = misplaced_px(array, erode(valid, 3), warped.info, UTM, "EPSG:32631", UTM)
                assert wrong.max() < 0.15 * overview * factor
            tile = next(read_raw(warped, canvas, [Window(0, 0, 40, 40)], indexes=(1, 2)))
            assert tile.transform.almost_equals(canvas.transform)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_pixel_does_not_depend_on_the_window(sample_path, data):
    with warp_raster(open_raster(sample_path), "EPSG:3857") as warped:
        info = warped.info
        every, valid = warped_whole(sample_path)
        width, height = (data.draw(st.integers(1, 600)) for _ in range(2))
        col = data.draw(st.integers(0, info.width_px - 1))
        row = data.draw(st.integers(0, info.height_px - 1))
        width, height = min(width, info.width_px - col), min(height, info.height_px - row)
        part, good = read_source(warped, (1, 2, 3), SourceRect(col, row, width, height))
        good = np.ones(part.shape[1:], bool) if good is None else good
        np.testing.assert_array_equal(part, every[:, row : row + height, col : col + width])
        np.testing.assert_array_equal(good, valid[row : row + height, col : col + width])


_WHOLE = {}


def warped_whole(path):
    if path not in _WHOLE:
        with warp_raster(open_raster(path), "EPSG:3857") as warped:
            _WHOLE[path] = whole(warped)
    return _WHOLE[path]


@pytest.mark.parametrize("gsd_m", [None, 0.25, 0.6, 1.0])
def test_threads_read_what_one_reads(sample_path, gsd_m):
    results = []
    for jobs in (1, 4):
        with warp_raster(open_raster(sample_path), "EPSG:4326", gsd_m=gsd_m) as warped:
            canvas = plan_canvas(warped.info, gsd_m)
            bands = choose_bands(warped.info)
            stretch = plan_stretch(warped, bands)
            grid = TileGrid(canvas.width_px, canvas.height_px, 100, 80)
            results.append(list(read_windows(warped, canvas, grid, bands=bands, stretch=stretch, jobs=jobs)))
    for one, four in zip(*results, strict=True):
        np.testing.assert_array_equal(one.array, four.array)
        np.testing.assert_array_equal(one.valid, four.valid)


def test_palettes_keep_their_colours(make_raster):
    numbers = np.random.default_rng(1).integers(0, 3, (1, 80, 80), dtype="uint8")
    path = make_raster(numbers, photometric="palette")
    colours = {0: (200, 0, 0, 255), 1: (0, 200, 0, 255), 2: (0, 0, 200, 255)}
    with rasterio.open(path, "r+") as out:
        out.write_colormap(1, colours)
    with warp_raster(open_raster(path), "EPSG:3857") as warped:
        canvas = pixel_canvas(warped.info)
        bands = choose_bands(warped.info)
        assert bands.palette
        window = Window(0, 0, canvas.width_px, canvas.height_px)
        tile = next(read_windows(warped, canvas, [window], bands=bands, stretch=plan_stretch(warped, bands)))
        assert {tuple(pixel) for pixel in tile.array[:, tile.valid].T} == {colour[:3] for colour in colours.values()}
    with pytest.raises(UsageError, match="no mean"):
        warp_raster(open_raster(path), "EPSG:3857", resampling="bilinear")


def test_the_same_crs_is_no_warp(make_raster):
    path = make_raster(np.ones((1, 9, 9), "uint8"))
    with open_raster(path) as raster:
        assert warp_raster(raster, "EPSG:32631", gsd_m=4) is raster
        assert warp_raster(raster, raster.info.crs.to_wkt()) is raster
    with open_raster(
        make_raster(np.ones((1, 9, 9), "uint8"), crs="EPSG:4326", transform=from_origin(5, 50, 1, 1))
    ) as raster:
        for same in ("OGC:CRS84", "+proj=longlat +datum=WGS84"):
            assert warp_raster(raster, same) is raster


def test_closing_closes_everything(make_raster):
    source = open_raster(make_raster(np.ones((1, 9, 9), "uint8")))
    with warp_raster(source, "EPSG:3857") as warped:
        handle = warped.handle()
    assert handle.closed
    assert handle.src_dataset.closed
    for raster in (source, warped):
        with pytest.raises(RasterOpenError, match="closed"):
            raster.handle()


def with_points(tmp_path, transform, *, bend=0.0, crs="EPSG:32631", size=120, count=5):
    path = tmp_path / "points.tif"
    steps = np.linspace(0, size, count)
    points = [
        GroundControlPoint(row, col, *(transform * (col + bend * math.sin(row), row))) for row in steps for col in steps
    ]
    array = coordinates(transform, size, size)
    with rasterio.open(
        path, "w", driver="GTiff", width=size, height=size, count=2, dtype="float32", gcps=points, crs=crs
    ) as out:
        out.write(array)
    return path


@pytest.mark.parametrize("place", ["north-up", "rotated"])
def test_control_points_place_a_raster(tmp_path, place):
    crs, transform = PLACES[place]
    path = with_points(tmp_path, transform)
    for target in ("EPSG:3857", "EPSG:32631"):
        with warp_raster(open_raster(path), target) as warped:
            assert warped.info.gsd_m == pytest.approx(0.5, rel=0.02)
            array, valid = whole(warped)
            assert covers(valid, warped.info, transform, crs, 120, 120)
            assert misplaced_px(array, erode(valid), warped.info, transform, crs, transform).max() < 0.2
            assert plan_canvas(warped.info, 1.0).gsd_m == pytest.approx(1, rel=1e-3)


def test_bent_or_missing_placements_are_refused(tmp_path, make_raster):
    with pytest.raises(NotGeoreferencedError, match=r"bent.*px off an affine.*gdalwarp -tps"):
        warp_raster(open_raster(with_points(tmp_path, UTM, bend=4)), "EPSG:3857")
    with pytest.raises(NotGeoreferencedError, match=r"place is unknown.*no CRS"):
        warp_raster(open_raster(make_raster(np.ones((1, 9, 9), "uint8"), crs=None)), "EPSG:3857")


@pytest.mark.data
def test_rpcs_are_refused(data_dir):
    path = data_dir / "rasters" / "rioxarray" / "input" / "test_rpcs.tif"
    with pytest.raises(NotGeoreferencedError, match=r"RPCs.*gdalwarp -rpc"):
        warp_raster(open_raster(path), "EPSG:3857")


@pytest.mark.parametrize("crs", ["EPSG:99999", "nonsense", "", "EPSG:4978", "EPSG:5703"])
def test_what_is_no_map_crs_is_refused(make_raster, crs):
    with pytest.raises(UsageError) as error:
        warp_raster(open_raster(make_raster(np.ones((1, 9, 9), "uint8"))), crs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("crs", "transform", "target"),
    [
        ("EPSG:3413", from_origin(-3000, 3000, 100, 100), "EPSG:4326"),
        ("EPSG:4326", from_origin(-180, 90, 3.6, 3), "EPSG:3413"),
        ("EPSG:4326", from_origin(-180, 90, 3.6, 3), "EPSG:3857"),
    ],
)
def test_what_a_crs_cannot_show_is_refused(make_raster, crs, transform, target):
    path = make_raster(np.ones((1, 60, 100), "uint8"), crs=crs, transform=transform)
    with pytest.raises(UnsupportedRasterError, match="cannot be laid out in EPSG") as error:
        warp_raster(open_raster(path), target)
    assert "60 px" in str(error.value) or "×" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.data
def test_every_file_warps_or_is_refused(data_dir, capfd):
    done = 0
    targets = ("EPSG:3857", "EPSG:4326", "EPSG:6933")
    for number, path in enumerate(sorted((data_dir / "rasters").rglob("*.tif"))):
        target = targets[number % 3]
        try:
            with open_raster(path) as source, warp_raster(source, target) as warped:
                canvas = plan_canvas(warped.info, None)
                bands = choose_bands(warped.info)
                stretch = plan_stretch(warped, bands)
                window = Window(0, 0, min(canvas.width_px, 300), min(canvas.height_px, 300))
                tile = next(read_windows(warped, canvas, [window], bands=bands, stretch=stretch))
                assert tile.array.shape == (3, window.height_px, window.width_px)
                done += warped is not source
        except GeoAlignError as error:
            assert "\n" not in str(error)
    assert done > 60
    assert capfd.readouterr() == ("", "")


def test_the_handle_reads_like_any_dataset(sample_path):
    with warp_raster(open_raster(sample_path), "EPSG:3857") as warped:
        handle = warped.handle()
        window = RasterioWindow(0, 0, 50, 40)
        mask = handle.read_masks(1, window=window)
        assert mask.shape == (40, 50)
        assert set(np.unique(mask)) == {0, 255}
        tile = next(
            read_windows(
                warped,
                pixel_canvas(warped.info),
                [Window(0, 0, 50, 40)],
                bands=choose_bands(warped.info),
                stretch=Stretch("none"),
            )
        )
        np.testing.assert_array_equal(tile.mask, mask)
