"""Areas of interest in any CRS land in the raster's."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from tiling import AreaError, open_raster, parse_area

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
        ("0,0,1,1@EPSG:999999", "not known"),
        ("0,0,1,1@nonsense", "not known"),
    ],
)
def test_what_cannot_be_is_told(info, spec, reason):
    with pytest.raises(AreaError, match=reason) as error:
        parse_area(spec, info)
    assert "\n" not in str(error.value)


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
