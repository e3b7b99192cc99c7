"""Vector files: one schema in five formats, RFC 7946, QGIS styles, and limits of the Shapefile."""

import json
import sqlite3
import xml.etree.ElementTree as ET

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geoalign_core.export import VECTOR_SUFFIXES, shapefile, write_vector
from geoalign_core.export.frames import COLUMNS, cut_utf8, short_names
from tiling.errors import NotGeoreferencedError, OutputExistsError, OutputWriteError, UsageError

FIELDS = list(COLUMNS)


def answers(n=5, crs="EPSG:32631", **columns):
    x = 500000 + 40.0 * np.arange(n)
    data = {
        "query": ["Schwimmbäder 游泳池"] * n, "score": np.linspace(0.9, 0.5, n), "rank": np.arange(1, n + 1),
        "area_m2": np.full(n, 400.0), "gsd_m": np.full(n, 0.5), "model": ["test"] * n, **columns,
    }  # fmt: skip
    return gpd.GeoDataFrame(data, geometry=list(shapely.box(x, 5800000.0, x + 20, 5800020.0)), crs=crs)


def read(path, layer=None):
    return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path, layer=layer)


@pytest.mark.parametrize("suffix", VECTOR_SUFFIXES)
def test_round_trip_keeps_rows_columns_and_crs(tmp_path, suffix):
    frame = answers()
    path = write_vector(tmp_path / f"a{suffix}", {"boxes": frame, "polygons": frame})
    back = read(path, "boxes" if suffix == ".gpkg" else None).sort_values("rank", ignore_index=True)
    assert back.crs.to_epsg() == (4326 if suffix == ".geojson" else 32631)
    assert list(back["query"]) == list(frame["query"])
    np.testing.assert_allclose(back["score"], frame["score"], atol=1e-6)
    assert [name for name in back.columns if name in COLUMNS] == FIELDS
    shape = back.to_crs(frame.crs).geometry
    assert shapely.hausdorff_distance(shape.to_numpy(), frame.geometry.to_numpy()).max() < 0.02


@pytest.mark.parametrize("suffix", VECTOR_SUFFIXES)
@pytest.mark.parametrize("crs", ["EPSG:32631", None])
def test_nothing_found_is_a_valid_file_with_the_schema(tmp_path, suffix, crs):
    bare = gpd.GeoDataFrame(geometry=[], crs=crs)
    if suffix == ".geojson" and crs is None:
        with pytest.raises(NotGeoreferencedError, match=r"\.gpkg"):
            write_vector(tmp_path / "a.geojson", {"boxes": bare})
        assert not list(tmp_path.iterdir())
        return
    path = write_vector(tmp_path / f"a{suffix}", {"boxes": bare, "polygons": bare})
    back = read(path, "boxes" if suffix == ".gpkg" else None)
    assert len(back) == 0
    if suffix == ".geojson":
        assert json.loads(path.read_text())["features"] == []
        return
    assert [name for name in back.columns if name != "geometry"] == FIELDS
    if suffix != ".parquet":
        info = pyogrio.read_info(path, layer="boxes" if suffix == ".gpkg" else None)
        assert info["geometry_type"] == "Polygon"
        assert dict(zip(info["fields"], info["dtypes"], strict=True))["score"] == "float64"
        assert (info["crs"] is None) == (crs is None)


@pytest.mark.parametrize("suffix", [s for s in VECTOR_SUFFIXES if s != ".geojson"])
def test_pixel_mode_states_no_crs_and_warns_nobody(tmp_path, suffix, recwarn):
    path = write_vector(tmp_path / f"a{suffix}", {"boxes": answers(crs=None, area_m2=np.nan, gsd_m=np.nan)})
    assert not recwarn.list
    back = read(path, "boxes" if suffix == ".gpkg" else None)
    assert back.crs is None
    assert back["gsd_m"].isna().all()


@pytest.mark.parametrize("suffix", VECTOR_SUFFIXES)
def test_polygons_with_holes_and_parts(tmp_path, suffix):
    ring = shapely.box(500000, 5800000, 500100, 5800100).difference(shapely.box(500040, 5800040, 500060, 5800060))
    two = shapely.union_all(
        [shapely.box(500200, 5800000, 500210, 5800010), shapely.box(500300, 5800000, 500310, 5800010)]
    )
    frame = answers(2)
    frame.geometry = [ring, two]
    back = read(write_vector(tmp_path / f"a{suffix}", {"polygons": frame}), "polygons" if suffix == ".gpkg" else None)
    areas = back.sort_values("rank").to_crs(32631).area
    np.testing.assert_allclose(areas, [9600, 200], rtol=1e-3)


@pytest.mark.parametrize("suffix", VECTOR_SUFFIXES)
def test_existing_files_are_refused_then_replaced(tmp_path, suffix):
    path = write_vector(tmp_path / f"a{suffix}", {"boxes": answers(5)})
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_vector(path, {"boxes": answers(2)})
    assert path.read_bytes() == before
    write_vector(path, {"boxes": answers(2)}, overwrite=True)
    assert len(read(path, "boxes" if suffix == ".gpkg" else None)) == 2
    assert not [item for item in tmp_path.iterdir() if item.name.startswith(".")]


def test_unknown_suffix_names_the_known_ones(tmp_path):
    for name in ("a.kml", "a"):
        with pytest.raises(UsageError, match=r"\.gpkg \.shp \.geojson \.fgb \.parquet"):
            write_vector(tmp_path / name, {"boxes": answers()})
    with pytest.raises(UsageError):
        write_vector(tmp_path / "a.gpkg", {})


@pytest.mark.parametrize("suffix", [".geojson", ".fgb", ".parquet"])
def test_same_answers_same_bytes(tmp_path, suffix):
    one = write_vector(tmp_path / f"one/a{suffix}", {"boxes": answers(50)}).read_bytes()
    assert one == write_vector(tmp_path / f"two/a{suffix}", {"boxes": answers(50)}).read_bytes()


# GeoPackage


def test_geopackage_carries_its_styles(tmp_path):
    path = write_vector(tmp_path / "a.gpkg", {"boxes": answers(), "polygons": answers()})
    assert [item.name for item in tmp_path.iterdir()] == ["a.gpkg"]
    with sqlite3.connect(path) as database:
        rows = database.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles"
        ).fetchall()
        kinds = dict(database.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall())
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert database.execute("PRAGMA user_version").fetchone() == (10200,)
    assert kinds == {"boxes": "features", "polygons": "features", "layer_styles": "attributes"}
    assert [row[:3] for row in rows] == [("boxes", "geom", 1), ("polygons", "geom", 1)]
    for *_, qml in rows:
        root = ET.fromstring(qml)
        renderer = root.find("renderer-v2")
        assert renderer.get("attr") == "score"
        assert len(renderer.findall("ranges/range")) == len(renderer.findall("symbols/symbol")) == 6
        assert {alias.get("field") for alias in root.findall("aliases/alias")} == set(COLUMNS)
    assert ET.fromstring(rows[0][3]).find("labeling/settings/text-style") is not None


def test_geopackage_drops_the_journal_of_the_replaced_file(tmp_path):
    path = write_vector(tmp_path / "a.gpkg", {"boxes": answers()})
    (tmp_path / "a.gpkg-wal").write_bytes(b"old")
    write_vector(path, {"boxes": answers(3)}, overwrite=True)
    assert not (tmp_path / "a.gpkg-wal").exists()


# GeoJSON


def geojson(tmp_path, geometry, crs):
    frame = gpd.GeoDataFrame({"score": [0.5]}, geometry=[geometry], crs=crs)
    return json.loads(write_vector(tmp_path / "a.geojson", {"boxes": frame}, overwrite=True).read_text())


def shape_of(document):
    return shapely.geometry.shape(document["features"][0]["geometry"])


def test_geojson_is_lonlat_without_crs_right_handed_and_short(tmp_path):
    hole = shapely.box(500020, 5800020, 500040, 5800040)
    document = geojson(tmp_path, shapely.box(500000, 5800000, 500100, 5800100).difference(hole).reverse(), "EPSG:32631")
    assert "crs" not in document
    shape = shape_of(document)
    assert 2.9 < shape.bounds[0] < 3.1 and 52.2 < shape.bounds[1] < 52.5
    assert shape.exterior.is_ccw and not shape.interiors[0].is_ccw
    rings = document["features"][0]["geometry"]["coordinates"]
    digits = [str(value).split(".")[1] for ring in rings for xy in ring for value in xy]
    assert max(map(len, digits)) <= 7


@pytest.mark.parametrize("offset_m", [-40.0, 40.0])
def test_geojson_is_split_at_180_degrees(tmp_path, offset_m):
    edge, north = gpd.GeoSeries(gpd.points_from_xy([180.0], [52.0]), crs=4326).to_crs(32660)[0].coords[0]
    box = shapely.box(edge - 100 + offset_m, north, edge + 100 + offset_m, north + 100)
    shape = shape_of(geojson(tmp_path, box, "EPSG:32660"))
    assert shape.geom_type == "MultiPolygon"
    assert len(shape.geoms) == 2
    assert all(part.exterior.is_ccw and part.bounds[2] - part.bounds[0] < 0.01 for part in shape.geoms)
    assert sum(abs(part.bounds[0]) == 180 or abs(part.bounds[2]) == 180 for part in shape.geoms) == 2


@pytest.mark.parametrize(("crs", "sign"), [("EPSG:3995", 1), ("EPSG:3031", -1)])
def test_geojson_around_a_pole(tmp_path, crs, sign):
    shape = shape_of(geojson(tmp_path, shapely.Point(1000, 2000).buffer(1e6), crs))
    assert shape.is_valid
    assert shape.contains(shapely.Point(17, sign * 89.9))
    assert not shape.contains(shapely.Point(17, 0))
    beside = shape_of(geojson(tmp_path, shapely.Point(0, 3e6).buffer(1e5), crs))
    assert beside.area < 100


def test_geojson_keeps_a_box_wider_than_half_the_world(tmp_path):
    shape = shape_of(geojson(tmp_path, shapely.box(-170, -10, 170, 10), "EPSG:4326"))
    assert shape.area == pytest.approx(340 * 20)


def test_geojson_refuses_other_planets_and_coordinates_off_the_map(tmp_path):
    moon = "+proj=longlat +R=1737400 +no_defs"
    with pytest.raises(NotGeoreferencedError, match=r"\.gpkg"):
        geojson(tmp_path, shapely.box(0, 0, 1, 1), moon)
    with pytest.raises(OutputWriteError, match=r"\.gpkg"):
        geojson(tmp_path, shapely.box(1e9, 0, 2e9, 1), "+proj=geos +h=35785831")
    assert not list(tmp_path.iterdir())


# Shapefile


def test_shapefile_parts_names_and_texts(tmp_path):
    long = "ä" * 126 + "游泳池" * 40
    frame = answers(3, query=[long] * 3, confidence_score=[1, 2, 3], confidence_rank=[1, 2, 3])
    path = write_vector(tmp_path / "a.shp", {"boxes": frame})
    assert {item.suffix for item in tmp_path.iterdir()} == {".shp", ".shx", ".dbf", ".prj", ".cpg"}
    assert (tmp_path / "a.cpg").read_text().strip() == "UTF-8"
    back = read(path)
    assert list(back.columns) == [*FIELDS, "confidence", "confiden_2", "geometry"]
    assert back["query"][0] == long[:126]
    assert list(back["confiden_2"]) == [1, 2, 3]


def test_shapefile_refuses_and_cleans_stale_parts(tmp_path):
    (tmp_path / "a.dbf").write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"a\.dbf"):
        write_vector(tmp_path / "a.shp", {"boxes": answers()})
    for suffix in (".qix", ".sbn"):
        (tmp_path / f"a{suffix}").write_bytes(b"stale")
    write_vector(tmp_path / "a.shp", {"boxes": answers(crs=None)}, overwrite=True)
    assert {item.suffix for item in tmp_path.iterdir()} == {".shp", ".shx", ".dbf", ".cpg"}


def test_shapefile_size_is_foreseen(tmp_path, monkeypatch):
    frame = answers(3000)
    path = write_vector(tmp_path / "a.shp", {"boxes": frame})
    real = max(path.stat().st_size, path.with_suffix(".dbf").stat().st_size)
    estimate = shapefile.estimate_bytes(frame)
    assert real <= estimate < 1.5 * real + 100_000
    monkeypatch.setattr(shapefile, "PART_LIMIT_BYTES", estimate - 1)
    with pytest.raises(UsageError, match=r"use \.gpkg"):
        write_vector(tmp_path / "b.shp", {"boxes": frame})
    assert not (tmp_path / "b.shp").exists()


@given(st.text(max_size=200), st.integers(0, 254))
def test_cut_utf8_never_breaks_a_character(text, limit):
    cut = cut_utf8(text, limit)
    assert len(cut.encode()) <= limit
    whole = text.encode("utf-8", "replace").decode()
    assert whole.startswith(cut)
    rest = whole[len(cut) : len(cut) + 1]
    assert not rest or len((cut + rest).encode()) > limit


@given(st.lists(st.text("abcdefghijklmnopé_", min_size=1, max_size=30), unique=True, max_size=30))
def test_short_names_are_short_and_unique(names):
    distinct = list({name.lower(): name for name in names}.values())
    mapped = short_names(distinct)
    assert set(mapped) == set(distinct)
    assert all(len(name.encode()) <= 10 for name in mapped.values())
    assert len({name.lower() for name in mapped.values()}) == len(distinct)


def test_geoparquet_has_a_bbox_covering(tmp_path):
    import pyarrow.parquet as pq

    path = write_vector(tmp_path / "a.parquet", {"boxes": answers()})
    metadata = json.loads(pq.read_metadata(path).metadata[b"geo"])
    assert "bbox" in metadata["columns"]["geometry"]["covering"]


def test_flatgeobuf_has_a_spatial_index(tmp_path):
    path = write_vector(tmp_path / "a.fgb", {"boxes": answers(100)})
    assert pyogrio.read_info(path)["capabilities"]["fast_spatial_filter"]
    assert len(gpd.read_file(path, bbox=(500000, 5800000, 500010, 5800010))) == 1
