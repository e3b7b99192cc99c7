"""The opener tells what a file is, and refuses what it must not open."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import CRS, Geod
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin

from tiling import (
    GeoAlignError,
    NotGeoreferencedError,
    OpenPolicy,
    RasterOpenError,
    RasterReadError,
    Stretch,
    UnsupportedRasterError,
    UsageError,
    Window,
    area_m2,
    choose_bands,
    ground_size_m,
    open_raster,
    pixel_canvas,
    plan_canvas,
    plan_stretch,
    read_windows,
)

IMAGE = np.arange(3 * 60 * 80, dtype="uint8").reshape(3, 60, 80)
RAW_VRT = """<VRTDataset rasterXSize="4" rasterYSize="1">
<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
<SourceFilename relativetoVRT="0">{path}</SourceFilename>
<ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>4</LineOffset>
</VRTRasterBand></VRTDataset>"""
VRT = """<VRTDataset rasterXSize="80" rasterYSize="60"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{path}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>
</VRTDataset>"""


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<VRTDataset/>", "inline XML"),
        ("  <VRTDataset/>", "inline XML"),
        ("/vsicurl/http://x/y.tif", "virtual file system"),
        ("/VSIZIP//tmp/x.zip", "virtual file system"),
        ("/vsimem/x", "virtual file system"),
        ("http://x/y.tif", "address"),
        ("s3://bucket/x.tif", "address"),
        ("file:///etc/hostname", "address"),
        ("https:/x/y.tif", "address"),
        ("MEM:::DATAPOINTER=1,PIXELS=2", "own syntax"),
        ("GTIFF_DIR:1:a.tif", "own syntax"),
        ("NETCDF:a.nc:t", "own syntax"),
        ("", "not a file name"),
        ("a\0b", "not a file name"),
        ("nosuch.tif", "does not exist"),
        (".", "is a folder"),
        ("/dev/null", "not a regular file"),
    ],
)
def test_what_is_not_a_local_file_is_refused(text, reason):
    with pytest.raises(RasterOpenError, match=reason) as error:
        open_raster(text)
    one_line(error)


@pytest.mark.parametrize("name", ["evil.tif", "evil.vrt", "evil.png"])
@pytest.mark.parametrize("body", [RAW_VRT, VRT, " \n<?xml version='1.0'?>\n" + VRT])
def test_a_vrt_of_any_name_is_refused(tmp_path, make_raster, name, body):
    secret = make_raster(IMAGE, "secret.tif")
    path = tmp_path / name
    path.write_text(body.format(path=secret))
    with pytest.raises(RasterOpenError, match=r"virtual raster.*--allow-vrt") as error:
        open_raster(path)
    one_line(error)


def test_a_vrt_opens_when_it_is_allowed(tmp_path, make_raster):
    path = tmp_path / "good.vrt"
    path.write_text(VRT.format(path=make_raster(IMAGE, "source.tif")))
    with open_raster(path, policy=OpenPolicy(allow_vrt=True)) as raster:
        assert raster.info.driver == "VRT"
        tile = next(
            read_windows(
                raster,
                pixel_canvas(raster.info),
                [Window(0, 0, 80, 60)],
                bands=choose_bands(raster.info),
                stretch=Stretch("none"),
            )
        )
    np.testing.assert_array_equal(tile.array[0], IMAGE[0])


@pytest.mark.parametrize("sidecar", [False, True])
def test_a_tiff_that_borrows_its_overviews_is_refused(make_raster, sidecar):
    secret = make_raster(IMAGE, "secret.tif")
    path = make_raster(IMAGE[:1], "evil.tif")
    if sidecar:
        item = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{secret}</MDI></Metadata>'
        path.with_name("evil.tif.aux.xml").write_text(f"<PAMDataset>{item}</PAMDataset>")
    else:
        with rasterio.open(path, "r+") as out:
            out.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(secret))
    with pytest.raises(RasterOpenError, match="overviews from another file") as error:
        open_raster(path)
    assert "secret" in one_line(error)


@pytest.mark.parametrize("suffix", [".ovr", ".msk"])
def test_a_vrt_as_sidecar_is_refused(make_raster, suffix):
    path = make_raster(IMAGE)
    path.with_name(path.name + suffix).write_text(VRT.format(path="/etc/hostname"))
    with pytest.raises(RasterOpenError, match="beside it"):
        open_raster(path)


def test_damaged_files_are_refused_or_fail_to_read(make_raster, tmp_path):
    whole = make_raster(IMAGE, compress="deflate").read_bytes()
    outcomes = set()
    for size in [0, 1, 4, 8, 100, *range(200, len(whole), 977)]:
        path = tmp_path / "cut.tif"
        path.write_bytes(whole[:size])
        try:
            with open_raster(path) as raster:
                bands = choose_bands(raster.info)
                canvas = pixel_canvas(raster.info)
                list(read_windows(raster, canvas, [Window(0, 0, 80, 60)], bands=bands, stretch=Stretch("none")))
            outcomes.add("read")
        except (RasterOpenError, RasterReadError) as error:
            assert "\n" not in str(error)
            outcomes.add(type(error).__name__)
    assert "RasterOpenError" in outcomes


@pytest.mark.parametrize("content", [b"hello", b"II*\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"PK\3\4"])
def test_other_formats_are_refused(tmp_path, content):
    path = tmp_path / "image.tif"
    path.write_bytes(content)
    with pytest.raises(RasterOpenError) as error:
        open_raster(path)
    one_line(error)


def test_an_unreadable_file_is_refused(make_raster):
    path = make_raster(IMAGE)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(RasterOpenError, match="permissions"):
        open_raster(path)


def test_huge_blocks_are_refused(tmp_path):
    path = tmp_path / "wide.tif"
    profile = {"driver": "GTiff", "width": 40_000, "height": 40_000, "count": 1, "dtype": "uint8", "sparse_ok": True}
    profile |= {"tiled": True, "blockxsize": 32_768, "blockysize": 16_384, "compress": "deflate"}
    with rasterio.open(path, "w", **profile):
        pass
    with pytest.raises(UnsupportedRasterError, match="too large to decode"):
        open_raster(path)


def test_colons_in_a_real_name_are_fine(make_raster):
    path = make_raster(IMAGE, "a:b.tif")
    with open_raster(path) as raster:
        assert raster.info.count == 3


def test_facts(make_raster):
    path = make_raster(IMAGE, tiled=True, blockxsize=32, blockysize=16, nodata=7, photometric="RGB")
    with open_raster(path) as raster:
        info = raster.info
    assert (info.width_px, info.height_px, info.count, info.dtype) == (80, 60, 3, "uint8")
    assert (info.block_px.height_px, info.block_px.width_px) == (16, 32)
    assert info.colorinterp == ("red", "green", "blue")
    assert info.nodata == 7
    assert info.crs.to_epsg() == 32631
    assert info.gsd_m == pytest.approx(0.5, rel=1e-3)
    assert not info.is_rotated
    assert not info.is_south_up


def test_one_handle_per_thread_all_closed_with_the_raster(make_raster):
    path = make_raster(IMAGE)
    handles = []
    with open_raster(path) as raster:
        gate = threading.Barrier(3)

        def work():
            handles.append(raster.handle())
            gate.wait()

        for _ in range(2):
            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert raster.handle() is raster.handle()
        assert len(set(map(id, handles))) == 3, "threads that have ended hand their handles on"
    assert all(handle.closed for handle in handles)
    with pytest.raises(RasterOpenError, match="closed"):
        raster.handle()


def test_png_and_jpeg_have_world_files(tmp_path):
    for driver, suffix, world in (("PNG", "png", "pgw"), ("JPEG", "jpg", "jgw")):
        path = tmp_path / f"image.{suffix}"
        with rasterio.open(path, "w", driver=driver, width=80, height=60, count=3, dtype="uint8") as out:
            out.write(IMAGE)
        path.with_suffix(f".{world}").write_text("0.5\n0\n0\n-0.5\n100.25\n199.75\n")
        with open_raster(path) as raster:
            assert raster.info.driver == driver
            assert raster.info.transform.almost_equals(Affine(0.5, 0, 100, 0, -0.5, 200))
            assert raster.info.crs is None
            canvas = pixel_canvas(raster.info)
            bands = choose_bands(raster.info)
            tiles = read_windows(raster, canvas, [Window(0, 0, 80, 60)], bands=bands, stretch=Stretch("none"))
            assert np.abs(next(tiles).array.astype(int) - IMAGE).mean() < (1 if driver == "PNG" else 60)


def polygon(info):
    from tiling import raster_outline

    return [raster_outline(info)]


def test_jpeg_2000(tmp_path):
    path = tmp_path / "image.jp2"
    place = {"crs": "EPSG:32631", "transform": from_origin(5e5, 5.8e6, 0.5, 0.5)}
    profile = {"driver": "JP2OpenJPEG", "width": 80, "height": 60, "count": 3, "dtype": "uint8", **place}
    with rasterio.open(path, "w", QUALITY="100", REVERSIBLE="YES", **profile) as out:
        out.write(IMAGE)
    with open_raster(path) as raster:
        assert raster.info.driver == "JP2OpenJPEG"
        assert raster.info.gsd_m == pytest.approx(0.5, rel=1e-3)
        bands = choose_bands(raster.info)
        window = Window(0, 0, 80, 60)
        tile = next(read_windows(raster, pixel_canvas(raster.info), [window], bands=bands, stretch=Stretch("none")))
    np.testing.assert_array_equal(tile.array, IMAGE)


@pytest.mark.parametrize("transform", [Affine(0, 0, 5, 0, 0, 5), Affine(1, 1, 0, 1, 1, 0)])
def test_a_degenerate_geotransform_counts_as_none(make_raster, transform):
    with open_raster(make_raster(IMAGE, transform=transform)) as raster:
        assert not raster.info.is_georeferenced
        assert raster.info.gsd_m is None
        assert plan_canvas(raster.info, None).width_px == 80


@pytest.mark.parametrize(
    ("crs", "transform", "size_m"),
    [
        ("EPSG:32631", from_origin(5e5, 5.8e6, 0.5, 0.5), (0.5 / 0.9996, 0.5 / 0.9996)),
        ("EPSG:4326", from_origin(5, 60, 1e-5, 1e-5), (0.558, 1.114)),
        ("EPSG:3857", from_origin(5.5e5, 8.4e6, 1, 1), (0.5, 0.5)),
        ("EPSG:26914", from_origin(5e5, 4.6e6, 5, 5), (5.002, 5.002)),
        ("EPSG:2263", from_origin(1e6, 2e5, 1, 1), (0.3048, 0.3048)),
        ("ESRI:104905", from_origin(5, 0, 1e-4, 1e-4), (5.927, 5.893)),
    ],
)
def test_ground_size_is_geodesic(make_raster, crs, transform, size_m):
    with open_raster(make_raster(IMAGE, crs=crs, transform=transform)) as raster:
        info = raster.info
    assert info.gsd_x_m == pytest.approx(size_m[0], rel=0.01)
    assert info.gsd_y_m == pytest.approx(size_m[1], rel=0.01)
    area = area_m2(polygon(info), info.crs)
    assert area[0] == pytest.approx(info.gsd_x_m * info.gsd_y_m * 80 * 60, rel=1e-4)


def test_areas_of_many_boxes_are_quick_and_right():
    import time

    import shapely

    rng = np.random.default_rng(3)
    x, y = rng.uniform(4e5, 6e5, 10_000), rng.uniform(5e6, 6e6, 10_000)
    boxes = shapely.box(x, y, x + 20, y + 10)
    begun = time.monotonic()
    areas = area_m2(boxes, "EPSG:32631")
    assert time.monotonic() - begun < 10
    np.testing.assert_allclose(areas, 200, rtol=1e-3)
    holed = shapely.Polygon([(0, 0), (1, 0), (1, 1), (0, 1)], [[(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)]])
    whole, part = area_m2([shapely.box(0, 0, 1, 1), holed], "EPSG:4326")
    assert whole == pytest.approx(abs(Geod(ellps="WGS84").geometry_area_perimeter(shapely.box(0, 0, 1, 1))[0]))
    assert part == pytest.approx(0.64 * whole, rel=1e-3)
    assert area_m2([shapely.Point(0, 0), shapely.Polygon()], "EPSG:4326").tolist() == [0, 0]
    assert area_m2([shapely.box(0, 0, 1, 1)], None) is None


def test_mars_uses_its_own_ellipsoid():
    mars = CRS.from_wkt(
        'GEOGCS["Mars",DATUM["D_Mars",SPHEROID["Mars",3396190,169.894447223612]],'
        'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
    )
    x_m, _ = ground_size_m(mars, from_origin(0, 0.5, 0.01, 0.01), 100, 100)
    assert x_m == pytest.approx(2 * np.pi * 3396190 / 36000, rel=1e-3)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.5, 0, 5e5, 0, 0.5, 5.8e6),
        Affine.translation(5e5, 5.8e6) * Affine.rotation(30) * Affine.scale(0.5, -0.5),
        Affine(-0.5, 0, 5e5, 0, -0.5, 5.8e6),
    ],
    ids=["south-up", "rotated", "mirrored"],
)
def test_only_the_affine_decides(make_raster, transform):
    with open_raster(make_raster(IMAGE, transform=transform)) as raster:
        assert raster.info.gsd_x_m == pytest.approx(0.5, rel=1e-3)
        canvas = plan_canvas(raster.info, 1.0)
        assert canvas.scale_x == 2
        assert (canvas.transform * (3, 5)) == pytest.approx(transform * (6, 10))
        bands = choose_bands(raster.info)
        tile = next(read_windows(raster, canvas, [Window(4, 6, 10, 10)], bands=bands, stretch=Stretch("none")))
        assert tile.transform * (0, 0) == pytest.approx(transform * (8, 12))


def test_across_180_degrees(make_raster):
    with open_raster(make_raster(IMAGE, crs="EPSG:4326", transform=from_origin(179.9995, 10, 1e-5, 1e-5))) as raster:
        assert raster.info.gsd_m == pytest.approx(1.1, rel=0.02)
        assert area_m2(polygon(raster.info), raster.info.crs)[0] == pytest.approx(
            raster.info.gsd_m**2 * 80 * 60, rel=1e-3
        )


def test_square_metres_in_degrees(make_raster):
    with open_raster(make_raster(IMAGE, crs="EPSG:4326", transform=from_origin(5, 60, 1e-5, 1e-5))) as raster:
        canvas = plan_canvas(raster.info, 2.0)
        assert canvas.gsd_m == 2
        assert canvas.scale_x / canvas.scale_y == pytest.approx(1.996, abs=0.01)
        native = plan_canvas(raster.info, None)
        assert native.scale_x == pytest.approx(1)
        assert native.scale_y == pytest.approx(0.5, rel=0.01)


def test_upsampling_is_limited_and_told(make_raster):
    with open_raster(make_raster(IMAGE)) as raster:
        canvas = plan_canvas(raster.info, 0.05)
        assert canvas.gsd_m == pytest.approx(0.25, rel=1e-3)
        assert canvas.is_clamped
        assert (canvas.width_px, canvas.height_px) == (160, 120)
        assert not plan_canvas(raster.info, 0.3).is_clamped
        for wrong in (0.0, -1.0, float("nan")):
            with pytest.raises(UsageError):
                plan_canvas(raster.info, wrong)


def test_metres_without_crs_are_refused_and_pixels_work(make_raster, tmp_path):
    plain = make_raster(IMAGE, "plain.tif", crs=None)
    control = tmp_path / "gcp.tif"
    points = [GroundControlPoint(r, c, 5 + c / 1e4, 52 - r / 1e4) for r, c in ((0, 0), (0, 80), (60, 0), (60, 80))]
    with rasterio.open(
        control, "w", driver="GTiff", width=80, height=60, count=3, dtype="uint8", gcps=points, crs="EPSG:4326"
    ) as out:
        out.write(IMAGE)
    for path, remedy in ((plain, "assign a CRS"), (control, "gdalwarp")):
        with open_raster(path) as raster:
            assert raster.info.gsd_m is None
            assert raster.info.crs is None
            canvas = plan_canvas(raster.info, None)
            assert (canvas.scale_x, canvas.gsd_m) == (1, None)
            with pytest.raises(NotGeoreferencedError, match=remedy) as error:
                plan_canvas(raster.info, 1.0)
            one_line(error)


@pytest.mark.parametrize(
    ("array", "profile"),
    [
        (np.ones((1, 1, 1), "uint8"), {}),
        (np.ones((3, 1, 1), "float32"), {}),
        (np.zeros((3, 40, 40), "uint16"), {"nodata": 0}),
        (np.full((1, 40, 40), np.nan, "float64"), {}),
        (np.ones((1, 8, 8), "complex64"), {}),
        (np.ones((2, 8, 8), "int16"), {}),
        (np.ones((7, 8, 8), "int8"), {}),
        (np.full((3, 8, 8), 2**31, "uint32"), {}),
        (np.full((3, 8, 8), -(2**40), "int64"), {}),
    ],
)
def test_awkward_rasters_give_a_picture_or_one_line(make_raster, array, profile):
    try:
        with open_raster(make_raster(array, **profile)) as raster:
            bands = choose_bands(raster.info)
            stretch = plan_stretch(raster, bands)
            canvas = plan_canvas(raster.info, None, snap_px=14)
            window = Window(0, 0, canvas.width_px, canvas.height_px)
            tile = next(read_windows(raster, canvas, [window], bands=bands, stretch=stretch))
            assert tile.array.shape == (3, canvas.height_px, canvas.width_px)
    except GeoAlignError as error:
        assert "\n" not in str(error)
        assert isinstance(error, UnsupportedRasterError)
