"""Areas of interest in any CRS land in the raster's."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import shapely
from rasterio.transform import from_bounds

from tiling import AreaError, open_raster, parse_area, raster_outline
from tiling.chips.labelsource import LabelError, read_features
from tiling.chips.spec import LabelSpec

geopandas = pytest.importorskip("geopandas")
IMAGE = np.ones((1, 200, 400), "uint8")


@pytest.fixture
def info(make_raster):
    with open_raster(make_raster(IMAGE, res=10.0)) as raster:
        return raster.info


def test_numbers_are_in_the_rasters_crs(info):
    assert parse_area("500100,5799000,500200,5799500", info).bounds == (500100, 5799000, 500200, 5799500)


def test_numbers_in_another_crs_are_transformed(info):
    box = geopandas.GeoSeries([shapely.box(500500, 5798500, 502000, 5799500)], crs=info.crs).to_crs(4326)
    spec = ",".join(map(str, box.total_bounds)) + "@EPSG:4326"
    np.testing.assert_allclose(parse_area(spec, info).bounds, (500500, 5798500, 502000, 5799500), atol=30)


@pytest.mark.parametrize(("suffix", "crs"), [("gpkg", 3857), ("geojson", 4326), ("gpkg", 32631)])
def test_files_are_joined_and_transformed(info, tmp_path, suffix, crs):
    parts = [shapely.box(500500, 5798500, 501000, 5799000), shapely.box(502000, 5798500, 503000, 5799500)]
    path = tmp_path / f"area.{suffix}"
    geopandas.GeoDataFrame(geometry=parts, crs=32631).to_crs(crs).to_file(path)
    area = parse_area(str(path), info)
    assert area.area == pytest.approx(1_250_000, rel=1e-3)
    assert len(area.geoms) == 2


def test_pixels_without_crs(make_raster):
    with open_raster(make_raster(IMAGE, crs=None)) as raster:
        assert parse_area("10,20,30,40", raster.info).bounds == (10, 20, 30, 40)
        with pytest.raises(AreaError, match="has a CRS and the raster has none"):
            parse_area("1,2,3,4@EPSG:4326", raster.info)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("1,2,3,4", "misses the raster"),
        ("3,2,1,4", "min below max"),
        ("1,2,nan,4", "min below max"),
        ("1,2,3", "neither"),
        ("nosuch.gpkg", "neither"),
        ("nan,2,3,4", "min below max"),
        ("0,0,1,1@EPSG:999999", "not known"),
        ("0,0,1,1@nonsense", "not known"),
    ],
)
def test_what_cannot_be_is_told(info, spec, reason):
    with pytest.raises(AreaError, match=reason) as error:
        parse_area(spec, info)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == (2 if reason in ("min below max", "not known") else 1)


def test_a_miss_shows_both_extents(info):
    with pytest.raises(AreaError, match=r"the area 1,2,3,4 misses the raster 500000,5798000,504000,5800000"):
        parse_area("1,2,3,4", info)


def test_files_that_are_no_areas(info, tmp_path):
    junk = tmp_path / "junk.gpkg"
    junk.write_bytes(b"no such thing")
    with pytest.raises(AreaError, match="not a vector file"):
        parse_area(str(junk), info)
    lines = tmp_path / "lines.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.LineString([(0, 0), (1, 1)])], crs=32631).to_file(lines)
    with pytest.raises(AreaError, match="no surface"):
        parse_area(str(lines), info)
    bowtie = tmp_path / "bowtie.gpkg"
    ring = [(500000, 5798000), (504000, 5800000), (504000, 5798000), (500000, 5800000)]
    geopandas.GeoDataFrame(geometry=[shapely.Polygon(ring)], crs=32631).to_file(bowtie)
    assert parse_area(str(bowtie), info).is_valid


@pytest.mark.parametrize("name", ["evil.gpkg", "evil.geojson", "area.vrt", "evil.zip"])
def test_files_that_lead_elsewhere_are_refused(info, tmp_path, name):
    frame = geopandas.GeoDataFrame(geometry=[shapely.box(500000, 5798000, 504000, 5800000)], crs=32631)
    frame.to_file(tmp_path / "secret.gpkg", layer="things")
    source = f'<SrcDataSource relativeToVRT="0">{tmp_path}/secret.gpkg</SrcDataSource>'
    recipe = f'<OGRVRTDataSource><OGRVRTLayer name="things">{source}</OGRVRTLayer></OGRVRTDataSource>'
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("area.geojson", recipe)
    else:
        (tmp_path / name).write_text(recipe)
    with pytest.raises(AreaError, match="virtual layer"):
        parse_area(str(tmp_path / name), info)
    with pytest.raises(LabelError, match="virtual layer"):
        read_features(LabelSpec(tmp_path / name))


def share(path, spec):
    """Return the share of a raster that an area covers."""
    with open_raster(path) as raster:
        outline = raster_outline(raster.info)
        area = parse_area(spec, raster.info)
    assert area.is_valid
    return area.intersection(outline).area / outline.area


@pytest.mark.parametrize(
    "spec",
    [
        "-180,-90,180,90@EPSG:4326",
        "-100,-80,100,80@EPSG:4326",
        "0,-90,360,90@EPSG:4326",
        "-20037508,-20037508,20037508,20037508@EPSG:3857",
    ],
)
@pytest.mark.parametrize(
    ("crs", "bounds"),
    [
        ("EPSG:32631", (500000, 5798000, 504000, 5800000)),
        ("EPSG:3035", (4000000, 3000000, 4400000, 3200000)),
        ("EPSG:3857", (500000, 6000000, 504000, 6002000)),
    ],
)
def test_the_whole_world_is_cut_to_the_raster(make_raster, crs, bounds, spec):
    path = make_raster(IMAGE, crs=crs, transform=from_bounds(*bounds, 400, 200))
    assert share(path, spec) == pytest.approx(1)


def test_half_the_world_ends_where_it_should(make_raster):
    """The equator and the zone's central meridian are straight lines in both."""
    path = make_raster(IMAGE, crs="EPSG:32631", transform=from_bounds(480000, -10000, 520000, 10000, 400, 200))
    assert share(path, "-180,0,180,90@EPSG:4326") == pytest.approx(0.5, abs=1e-6)
    assert share(path, "3,-90,180,90@EPSG:4326") == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("crs", "bounds", "spec", "expected"),
    [
        ("EPSG:4326", (179.8, 9.5, 180.4, 10), "-179.9,9.6,-179.7,9.9", 0.2),
        ("EPSG:4326", (179.8, 9.5, 180.4, 10), "-179.9,9.6,-179.7,9.9@EPSG:4269", 0.2),
        ("EPSG:4326", (179.8, 9.5, 180.4, 10), "179.9,9.6,180.1,9.9@OGC:CRS84", 0.2),
        ("EPSG:4326", (-180.4, 9.5, -179.8, 10), "179.7,9.6,179.9,9.9", 0.2),
        ("EPSG:4326", (0, -90, 360, 90), "-10,0,10,10", 20 * 10 / (360 * 180)),
        ("EPSG:4326", (-180, -90, 180, 90), "170,0,190,10", 20 * 10 / (360 * 180)),
        ("EPSG:4326", (-180, -90, 180, 90), "-10,0,10,10", 20 * 10 / (360 * 180)),
        ("EPSG:3857", (-20037508.34, -2e7, 20037508.34, 2e7), "-180,0,180,90@EPSG:4326", 0.5),
        ("EPSG:3857", (-20037508.34, 0, 20037508.34, 1118889.97), "170,0,190,10@EPSG:4326", 20 / 360),
    ],
)
def test_degrees_turn_with_the_raster(make_raster, crs, bounds, spec, expected):
    path = make_raster(IMAGE, crs=crs, transform=from_bounds(*bounds, 400, 200))
    assert share(path, spec) == pytest.approx(expected, rel=1e-3)


def test_an_area_over_a_pole_is_not_guessed_in_degrees(make_raster):
    path = make_raster(IMAGE, crs="EPSG:4326", transform=from_bounds(-180, -90, 180, 90, 400, 200))
    with pytest.raises(AreaError, match="crosses a pole"):
        share(path, "-4000000,-4000000,4000000,4000000@EPSG:3413")


def test_an_area_elsewhere_is_told_in_its_own_crs(info):
    with pytest.raises(AreaError, match=r"the area 50,50,60,60 misses the raster 2\.99.*EPSG:4326"):
        parse_area("50,50,60,60@EPSG:4326", info)
