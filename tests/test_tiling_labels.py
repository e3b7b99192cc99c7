"""Labels of any vector file land in the right pixels of the right tiles, and in files that others can read."""

from __future__ import annotations

import csv
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj.exceptions import ProjError
from rasterio.features import rasterize

from tiling import open_raster
from tiling.canvas import pixel_canvas, plan_canvas
from tiling.chips.labelfiles import LabelledTile, label_files, write_labels
from tiling.chips.labels import LabelIndex, Labels
from tiling.chips.labelsource import LabelError, measure
from tiling.chips.spec import LabelSpec
from tiling.errors import GeoAlignError, NotGeoreferencedError, OutputExistsError, OutputWriteError, UsageError
from tiling.grid import TileGrid, Window

geopandas = pytest.importorskip("geopandas")
WIDTH, HEIGHT = 230, 170
IMAGE = np.zeros((1, HEIGHT, WIDTH), "uint8")
WHOLE = Window(0, 0, WIDTH, HEIGHT)
NORTH_UP = Affine(0.5, 0, 500000, 0, -0.5, 5800000)
TRANSFORMS = {
    "north up": NORTH_UP,
    "south up": Affine(0.5, 0, 500000, 0, 0.5, 5800000),
    "rotated": Affine.translation(500000, 5800000) * Affine.rotation(30) * Affine.scale(0.5, -0.5),
    "oblong": Affine(0.5, 0, 500000, 0, -0.8, 5800000),
}


@pytest.fixture
def lay(make_raster, tmp_path):
    """Write labels given in pixels of a raster, read them, and lay them over it: (labels, index, info, canvas)."""

    def run(shapes, columns=None, *, transform=NORTH_UP, raster_crs="EPSG:32631", to=None, suffix="gpkg", **spec):
        with open_raster(make_raster(IMAGE, transform=transform, crs=raster_crs)) as raster:
            info = raster.info
        series = geopandas.GeoSeries(shapes).affine_transform(
            transform.to_shapely() if raster_crs else [1, 0, 0, 1, 0, 0]
        )
        frame = geopandas.GeoDataFrame(columns or {}, geometry=series, crs=raster_crs)
        path = tmp_path / f"things.{suffix}"
        frame = frame if to is None else frame.to_crs(to)
        frame.to_parquet(path) if suffix == "parquet" else frame.to_file(path)
        labels = Labels.load(LabelSpec(path, **spec))
        canvas = pixel_canvas(info)
        return labels, labels.onto(info, canvas), info, canvas

    return run


def index_of(shapes, *, width=WIDTH, height=HEIGHT, min_visible=0.0):
    shapes = np.array(shapes, dtype=object)
    zeros = np.zeros(len(shapes), int)
    return LabelIndex(shapes, measure(shapes), zeros, np.arange(len(shapes)), ("thing",), width, height, min_visible)


def tiled(index, window=WHOLE, *, path="images/one.tif", split=None, transform=NORTH_UP, crs="EPSG:32631"):
    place = transform * Affine.translation(window.col_off_px, window.row_off_px)
    crs = None if crs is None else rasterio.CRS.from_user_input(crs)
    return LabelledTile(path, window, place, crs, split, tuple(index.cut(window)))


def random_shapes(count, seed=1):
    """Boxes, blobs, blobs with holes and pairs of blobs, some of them beyond the raster."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(count):
        x, y, r = *rng.uniform(-20, (WIDTH + 20, HEIGHT + 20)), rng.uniform(1, 40)
        blob = shapely.affinity.rotate(shapely.Point(x, y).buffer(r, quad_segs=3), rng.uniform(0, 90))
        kinds = (
            shapely.box(x, y, x + r, y + r / 3), blob, blob - shapely.Point(x, y).buffer(r / 2),
            shapely.union_all([blob, shapely.affinity.translate(blob, 3 * r, r)]),
        )  # fmt: skip
        shapes.append(kinds[rng.integers(4)])
    return shapes


# Clipping ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("to", [None, "EPSG:4326"])
def test_pieces_are_those_of_geopandas(lay, name, to):
    transform = TRANSFORMS[name]
    _, index, _, _ = lay(random_shapes(60), {"class": range(60)}, transform=transform, to=to)
    frame = geopandas.GeoDataFrame(geometry=random_shapes(60)).affine_transform(transform.to_shapely())
    for window in TileGrid(WIDTH, HEIGHT, 64, 48, "partial"):
        x, y = window.col_off_px, window.row_off_px
        tile = shapely.affinity.affine_transform(
            shapely.box(x, y, window.col_end_px, window.row_end_px), transform.to_shapely()
        )
        clipped = geopandas.clip(frame, tile)
        wanted = clipped[clipped.area > 1e-2]
        labels = {label.feature: label for label in index.cut(window) if label.geometry.area > 0.03}
        assert set(labels) >= {feature for feature in wanted.index if wanted[feature].area > 0.02}
        place = (transform * Affine.translation(x, y)).to_shapely()
        for feature, label in labels.items():
            piece = shapely.affinity.affine_transform(label.geometry, place)
            assert piece.symmetric_difference(clipped[feature]).area < 1e-3
            assert label.visible == pytest.approx(clipped[feature].area / frame[feature].area, rel=1e-5)
            assert label.truncated == (not tile.buffer(1e-6).covers(frame[feature]))


coordinate = st.floats(-30, 130, width=32)
boxes = st.builds(lambda x, y, w, h: shapely.box(x, y, x + w, y + h), coordinate, coordinate, *[st.floats(0.5, 90)] * 2)
polygons = st.one_of(
    boxes,
    st.builds(lambda x, y, r: shapely.Point(x, y).buffer(r, quad_segs=2), coordinate, coordinate, st.floats(0.5, 60)),
    st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9).map(
        lambda ring: shapely.make_valid(shapely.Polygon(ring), method="structure", keep_collapsed=False)
    ).filter(lambda shape: shape.area > 0.1),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    st.lists(polygons, min_size=1, max_size=5),
    *[st.integers(1, 100)] * 2,
    st.integers(5, 60),
    st.sampled_from(["partial", "pad"]),
)
def test_no_area_is_lost_or_doubled_on_a_grid_without_overlap(shapes, width, height, tile_px, edge):
    index = index_of(shapes, width=width, height=height)
    seen = np.zeros(len(shapes))
    for window in TileGrid(width, height, tile_px, tile_px, edge):
        tile = shapely.box(0, 0, window.width_px, window.height_px)
        for label in index.cut(window):
            assert label.geometry.is_valid
            assert shapely.get_dimensions(label.geometry) == 2
            assert tile.covers(label.geometry)
            assert 0 < label.visible <= 1
            assert label.truncated == (label.visible < 1)
            seen[label.feature] += label.geometry.area
    np.testing.assert_allclose(
        seen, shapely.area(shapely.intersection(shapes, shapely.box(0, 0, width, height))), atol=0.2
    )


whole = st.integers(0, 40)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(whole, whole), min_size=2, max_size=6, unique=True), st.integers(3, 20))
def test_points_and_lines_on_borders_belong_to_one_tile(corners, tile_px):
    line, points = shapely.LineString(corners[:2]), shapely.MultiPoint(corners)
    index = index_of([line, points, *map(shapely.Point, corners)], width=41, height=41)
    seen = np.zeros(len(index))
    for window in TileGrid(41, 41, tile_px, tile_px, "partial"):
        for label in index.cut(window):
            seen[label.feature] += measure(np.array([label.geometry]))[0]
    np.testing.assert_allclose(seen, [line.length, len(corners), *[1] * len(corners)], rtol=1e-9)


def test_overlapping_windows_each_hold_the_piece_and_what_is_left_of_it():
    index = index_of([shapely.box(90, 10, 110, 20), shapely.box(10, 10, 20, 20)])
    first, second = index.cut(Window(0, 0, 100, 100)), index.cut(Window(95, 5, 100, 100))
    assert [(label.feature, label.truncated, label.visible) for label in first] == [(0, True, 0.5), (1, False, 1.0)]
    assert [(label.feature, label.truncated, label.visible) for label in second] == [(0, True, 0.75)]
    assert second[0].geometry.bounds == (0, 5, 15, 15)


def test_rounding_makes_no_slivers_and_truncates_nothing():
    index = index_of([shapely.box(50 - 1e-8, 0, 100 + 1e-8, 100), shapely.box(10, 10, 10.001, 10.001)])
    left, middle, right = (index.cut(Window(x, 0, 50, 100)) for x in (0, 50, 100))
    assert [label.feature for label in left] == [1]
    assert [(label.feature, label.truncated, label.visible) for label in middle] == [(0, False, 1.0)]
    assert right == []


def test_what_is_hardly_visible_is_left_out():
    shapes = [shapely.box(90, 0, 190, 10), shapely.box(50, 50, 60, 60), shapely.LineString([(95, 5), (195, 5)])]
    counts = {
        least: [label.feature for label in index_of(shapes, min_visible=least).cut(Window(0, 0, 100, 100))]
        for least in (0.0, 0.05, 0.1, 0.2, 1.0)
    }
    assert counts == {0.0: [0, 1, 2], 0.05: [0, 1, 2], 0.1: [0, 1], 0.2: [1], 1.0: [1]}


def test_nothing_is_visible_beyond_the_raster():
    index = index_of([shapely.box(-10, -10, WIDTH + 10, HEIGHT + 10)])
    (label,) = index.cut(Window(192, 128, 64, 64))
    assert label.geometry.bounds == (0, 0, WIDTH - 192, HEIGHT - 128)
    assert index.cut(Window(WIDTH, 0, 64, 64)) == []


# CRSs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gsd_m", [None, 1.3])
def test_long_straight_edges_bend_as_the_map_does(make_raster, tmp_path, gsd_m):
    transform = Affine(100, 0, 500000, 0, -100, 7000000)
    with open_raster(make_raster(np.zeros((1, 2000, 2000), "uint8"), transform=transform)) as raster:
        info = raster.info
    box = geopandas.GeoSeries([shapely.box(3.2, 62, 6, 63)], crs=4326)
    box.to_file(tmp_path / "box.gpkg")
    canvas = plan_canvas(info, None if gsd_m is None else gsd_m * 100)
    (label,) = Labels.load(LabelSpec(tmp_path / "box.gpkg")).onto(info, canvas).cut(Window(0, 0, 2000, 2000))
    truth = box.segmentize(0.001).to_crs(info.crs).affine_transform((~canvas.transform).to_shapely())[0]
    assert label.geometry.hausdorff_distance(truth) < 0.1
    assert not label.truncated


def test_a_label_around_the_world_is_cut_before_it_is_transformed(lay, tmp_path, make_raster):
    world = geopandas.GeoDataFrame({"class": ["world"]}, geometry=[shapely.box(-180, -90, 180, 90)], crs=4326)
    world.to_file(tmp_path / "world.gpkg")
    with open_raster(make_raster(IMAGE)) as raster:
        index = Labels.load(LabelSpec(tmp_path / "world.gpkg")).onto(raster.info, pixel_canvas(raster.info))
    (label,) = index.cut(WHOLE)
    assert label.geometry.area == pytest.approx(WIDTH * HEIGHT)
    assert label.truncated
    assert 0 < label.visible < 1e-9


def test_degrees_are_turned_to_the_rasters_side(make_raster, tmp_path):
    frame = geopandas.GeoDataFrame(geometry=[shapely.Point(-90.5, 10.5), shapely.Point(179.5, 0.5)], crs=4326)
    frame.to_file(tmp_path / "points.gpkg")
    labels = Labels.load(LabelSpec(tmp_path / "points.gpkg"))
    for width, west, wanted in ((360, 0, [(269.5, 79.5), (179.5, 89.5)]), (20, 170, [(9.5, 89.5)])):
        path = make_raster(np.zeros((1, 180, width), "uint8"), crs=4326, transform=Affine(1, 0, west, 0, -1, 90))
        with open_raster(path) as raster:
            index = labels.onto(raster.info, pixel_canvas(raster.info))
        found = index.cut(Window(0, 0, width, 180))
        assert [(label.geometry.x, label.geometry.y) for label in found] == wanted


def test_the_pole_is_a_place_like_others(make_raster, tmp_path):
    frame = geopandas.GeoDataFrame(geometry=[shapely.Point(77, 89.99), shapely.box(-180, 89.5, 180, 90)], crs=4326)
    frame.to_file(tmp_path / "pole.gpkg")
    transform = Affine(1000, 0, -100_000, 0, -1000, 100_000)
    with open_raster(make_raster(np.zeros((1, 200, 200), "uint8"), crs=3413, transform=transform)) as raster:
        index = Labels.load(LabelSpec(tmp_path / "pole.gpkg")).onto(raster.info, pixel_canvas(raster.info))
    point, cap = index.cut(Window(0, 0, 200, 200))
    assert point.geometry.distance(shapely.Point(100, 100)) == pytest.approx(1.1, abs=0.1)
    edge = shapely.Point(geopandas.GeoSeries.from_xy([0], [89.5], crs=4326).to_crs(3413)[0]).distance(
        shapely.Point(0, 0)
    )
    assert cap.geometry.area == pytest.approx(np.pi * (edge / 1000) ** 2, rel=0.01)
    assert not cap.truncated


def test_labels_without_crs_take_the_rasters(lay, tmp_path, make_raster):
    with open_raster(make_raster(IMAGE)) as raster:
        geopandas.GeoDataFrame(geometry=[shapely.box(500005, 5799990, 500010, 5799995)]).to_file(tmp_path / "bare.gpkg")
        labels = Labels.load(LabelSpec(tmp_path / "bare.gpkg"))
        (label,) = labels.onto(raster.info, pixel_canvas(raster.info)).cut(WHOLE)
    assert label.geometry.bounds == (10, 10, 20, 20)
    assert any("have no CRS" in note for note in labels.notes)


def test_pixels_on_a_raster_without_crs(lay):
    _, index, _, _ = lay([shapely.box(10, 20, 30, 40)], raster_crs=None)
    assert index.cut(WHOLE)[0].geometry.bounds == (10, 20, 30, 40)
    with pytest.raises(NotGeoreferencedError, match="geoparquet"):
        lay([shapely.box(10, 20, 30, 40)], raster_crs=None, format="geojson")


def test_geojson_in_metres_or_pixels_is_not_taken_for_degrees(lay, make_raster):
    labels, index, _, _ = lay([shapely.box(110, 120, 130, 140)], raster_crs=None, suffix="geojson")
    assert index.cut(WHOLE)[0].geometry.bounds == (110, 120, 130, 140)
    assert any("cannot be in degrees" in note for note in labels.notes)


def test_labels_with_crs_need_a_raster_with_one(lay, make_raster):
    labels, *_ = lay([shapely.box(1, 2, 3, 4)])
    with (
        open_raster(make_raster(IMAGE, "bare.tif", crs=None)) as raster,
        pytest.raises(LabelError, match="the raster has none"),
    ):
        labels.onto(raster.info, pixel_canvas(raster.info))


def test_labels_that_miss_the_raster_are_no_error(lay):
    labels, index, _, _ = lay([shapely.box(5000, 20, 5010, 40), shapely.box(0, -9, 9, -1)], to="EPSG:4326")
    assert len(labels) == 2
    assert index.cut(WHOLE) == []


@pytest.mark.data
def test_the_middle_of_every_real_raster_is_found_from_degrees(data_dir, tmp_path):
    folder, checked = data_dir / "rasters", 0
    with (folder / "catalog.csv").open() as stream:
        files = [next(iter(row.values())) for row in csv.DictReader(stream)]
    for name in files:
        try:
            with open_raster(folder / name) as raster:
                info = raster.info
        except GeoAlignError:
            continue
        if info.crs is None or info.gsd_m is None:
            continue
        x, y = info.transform * (info.width_px / 2, info.height_px / 2)
        try:
            point = geopandas.GeoSeries.from_xy([x], [y], crs=info.crs).to_crs("OGC:CRS84")
        except ProjError:
            continue  # a moon of Jupiter
        point.to_file(tmp_path / "middle.fgb")
        index = Labels.load(LabelSpec(tmp_path / "middle.fgb")).onto(info, pixel_canvas(info))
        (label,) = index.cut(Window(0, 0, info.width_px, info.height_px))
        np.testing.assert_allclose(label.geometry.coords[0], (info.width_px / 2, info.height_px / 2), atol=0.01)
        checked += 1
    assert checked > 50


# Reading -------------------------------------------------------------------------------------------------------------


def test_broken_geometries_are_repaired_and_useless_ones_counted(lay):
    bow_tie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    flat = shapely.Polygon([(0, 0), (10, 0), (20, 0)])
    mixed = shapely.GeometryCollection([shapely.box(20, 20, 30, 30), shapely.Point(1, 1)])
    spike = shapely.Polygon([(50, 50), (60, 50), (60, 60), (60, 90), (60, 60), (50, 60)])
    shapes = [bow_tie, None, flat, shapely.Polygon(), mixed, spike, shapely.box(0, 0, 5, 5), shapely.Point(np.inf, 1)]
    labels, index, _, _ = lay(shapes, {"class": ["a", "a", "a", "a", "b", "b", None, "a"]})
    assert [(label.feature, label.class_name) for label in index.cut(WHOLE)] == [(0, "a"), (4, "b"), (5, "b")]
    assert [round(label.geometry.area, 6) for label in index.cut(WHOLE)] == [50, 100, 100]
    assert labels.classes == ("a", "b")
    assert "invalid geometries repaired: 2" in labels.notes
    (note,) = (note for note in labels.notes if "left out" in note)
    assert note == (
        "of 8 features left out: 2 with no geometry, 1 with endless coordinates, 1 with no extent, 1 with no class"
    )


@pytest.mark.parametrize("far", [1e101, 1e160, 1e300])
@pytest.mark.parametrize("to", [None, "EPSG:4326"])
def test_labels_beyond_all_bounds_are_left_out_and_told(make_raster, tmp_path, far, to):
    with open_raster(make_raster(IMAGE)) as raster:
        info = raster.info
    x, y = info.transform * (20, 20)
    shapes = [shapely.box(-far, -far, far, far), shapely.LineString([(0, 0), (far, -far)]), shapely.Point(-far, 0)]
    paths = {name: tmp_path / f"{name}.parquet" for name in ("far", "near")}
    geopandas.GeoSeries(shapes).to_frame("geometry").set_crs(to).to_parquet(paths["far"])
    near = [shapely.box(x, y - 5, x + 5, y)] if to is None else [shapely.box(-179, -80, 179, 80)]
    geopandas.GeoSeries([*shapes, *near]).to_frame("geometry").set_crs(to).to_parquet(paths["near"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        labels = Labels.load(LabelSpec(paths["near"]))
        canvas = pixel_canvas(info)
        assert {label.feature for label in labels.onto(info, canvas).cut(WHOLE)} <= {3}
        assert len(labels) == 1
        assert any("3 with coordinates beyond ±1e+100" in note for note in labels.notes)
        with pytest.raises(LabelError, match="no label"):
            Labels.load(LabelSpec(paths["far"]))


def test_open_rings_are_closed(tmp_path, make_raster):
    ring = [[3.0, 52.0], [3.1, 52.0], [3.1, 52.1]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    (tmp_path / "open.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    assert Labels.load(LabelSpec(tmp_path / "open.geojson")).features.geometries[0].area == pytest.approx(0.005)


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp", "fgb", "parquet"])
def test_formats_and_class_fields(lay, suffix):
    shapes = [shapely.box(10 * n, 10, 10 * n + 5, 15) for n in range(4)]
    labels, index, _, _ = lay(shapes, {"Label": [10, 9, 10, 2]}, suffix=suffix, to="EPSG:4326")
    assert labels.classes == ("2", "9", "10")
    assert [label.class_id for label in sorted(index.cut(WHOLE), key=lambda label: label.geometry.bounds)] == [
        2,
        1,
        2,
        0,
    ]
    assert "classes are those of the field 'Label'" in labels.notes


def test_numbers_with_gaps_stay_whole(lay):
    labels, *_ = lay([shapely.box(n, 0, n + 1, 1) for n in range(3)], {"class": [1, None, 2]})
    assert labels.classes == ("1", "2")


def test_one_class_named_after_the_file(lay):
    labels, *_ = lay([shapely.box(1, 2, 3, 4)], {"class": ["a"], "name": ["b"]})
    assert labels.classes == ("things",)
    assert any("could be in class, name" in note for note in labels.notes)
    labels, *_ = lay([shapely.box(1, 2, 3, 4)], {"class": ["a"], "name": ["b"]}, field="name")
    assert labels.classes == ("b",)


def test_layers_are_chosen_by_name(lay, tmp_path):
    frame = geopandas.GeoDataFrame({"class": ["x"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=32631)
    path = tmp_path / "two.gpkg"
    frame.to_file(path, layer="roofs")
    frame.to_file(path, layer="cars")
    with pytest.raises(LabelError, match=r"several layers; choose one of: roofs, cars"):
        Labels.load(LabelSpec(path))
    with pytest.raises(LabelError, match="no layer 'ships'"):
        Labels.load(LabelSpec(path, layer="ships"))
    assert len(Labels.load(LabelSpec(path, layer="cars"))) == 1


def test_what_cannot_be_read_is_told_in_one_line(lay, tmp_path):
    layer = '<OGRVRTLayer name="things"><SrcDataSource>things.gpkg</SrcDataSource></OGRVRTLayer>'
    vrt = f"<OGRVRTDataSource>{layer}</OGRVRTDataSource>"
    files = {
        "absent.gpkg": (None, "is not a file"),
        "junk.gpkg": ("junk", "not a vector file"),
        "junk.parquet": ("junk", "not a vector file"),
        "labels.vrt": (vrt, "virtual layer"),
        "disguised.geojson": (vrt, "virtual layer"),
        "server.xml": ("<OGRWFSDataSource><URL>http://localhost:9</URL></OGRWFSDataSource>", "virtual layer"),
        "recipe.json": ('{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline"}', "virtual layer"),
        "table.csv": ("a,b\n1,2\n", "holds no geometry"),
        "none.geojson": ('{"type": "FeatureCollection", "features": []}', "no label that can be used"),
    }
    lay([shapely.box(1, 2, 3, 4)])
    for name, (text, reason) in files.items():
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(LabelError, match=reason) as error:
            Labels.load(LabelSpec(tmp_path / name))
        assert "\n" not in str(error.value)
    with pytest.raises(LabelError, match=r"no field 'kind'; there are: size, 'colour"):
        lay([shapely.box(1, 2, 3, 4)], {"size": [1], "'colour'": ["red"]}, field="kind")


# Files ---------------------------------------------------------------------------------------------------------------

HOSTILE = [
    "../../etc/passwd",
    "quote \" ' : {}",
    "line\nbreak: [1]\x00\x85\u2028",
    "Gebäude 建物 🏠",
    "# no: 1",
    "true",
]


@pytest.fixture
def hostile(lay):
    shapes = [shapely.box(20 * n, 10, 20 * n + 15, 30) for n in range(len(HOSTILE))]
    return lay(shapes, {"class": HOSTILE}, suffix="parquet")


@pytest.mark.parametrize("fmt", ["coco", "yolo", "yolo-obb", "geojson", "geoparquet", "mask"])
def test_class_names_break_no_file_and_leave_no_folder(hostile, tmp_path, fmt):
    labels, index, *_ = hostile
    assert "line break: [1]" in labels.classes
    folder = tmp_path / "a" / "b" / "out"
    before = set(tmp_path.rglob("*"))
    files = write_labels(folder, fmt, iter([tiled(index)]), labels.classes)
    assert {path for path in set(tmp_path.rglob("*")) - before if path.is_file()} == set(files)
    assert all(path.is_relative_to(folder) for path in files)
    for path in files:
        if path.suffix in {".json", ".geojson"}:
            json.loads(path.read_text(encoding="utf-8"))
    if fmt == "coco":
        assert [c["name"] for c in json.loads(files[0].read_text())["categories"]] == list(labels.classes)
    if fmt.startswith("yolo"):
        yaml = pytest.importorskip("yaml")
        data = yaml.safe_load(files[-1].read_text(encoding="utf-8"))
        assert data["names"] == dict(enumerate(labels.classes))
        assert data["nc"] == len(labels.classes)
    if fmt.startswith("geo"):
        read = geopandas.read_parquet(files[0]) if fmt == "geoparquet" else geopandas.read_file(files[0])
        assert sorted(read["class"]) == sorted(labels.classes)


FORMATS = ("coco", "yolo", "yolo-obb", "geojson", "geoparquet", "mask")


def two_parts():
    index = index_of([shapely.box(1, 1, 60, 60)])
    return [tiled(index, path=f"images/{part}/{part}.tif", split=part) for part in ("train", "val")]


def named(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("fmt", FORMATS)
def test_files_are_named_before_they_are_written(tmp_path, fmt):
    for count, tiles in ((1, two_parts()), (300, [replace(tile, split=None) for tile in two_parts()]), (1, [])):
        folder = tmp_path / f"{count}_{len(tiles)}"
        classes = [str(number) for number in range(count)]
        names = list(label_files(fmt, [(tile.path, tile.split) for tile in tiles], count))
        written = write_labels(folder, fmt, tiles, classes, overwrite=False)
        assert sorted(names) == sorted(path.relative_to(folder).as_posix() for path in written)
        assert set(names) == named(folder)


@pytest.mark.parametrize("fmt", FORMATS)
def test_files_of_others_are_kept(tmp_path, fmt):
    tiles = two_parts()
    for name in label_files(fmt, [(tile.path, tile.split) for tile in tiles]):
        other = tmp_path / name
        folder = tmp_path / "alone" / name.replace("/", "_")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("mine")
        with pytest.raises(OutputExistsError):
            write_labels(folder, fmt, tiles, ["a"], overwrite=False)
        assert (folder / name).read_text() == "mine"
        write_labels(folder, fmt, tiles, ["a"])
        assert (folder / name).read_bytes() != b"mine"
        assert not other.exists()


@pytest.mark.parametrize("fmt", FORMATS)
def test_links_lead_nowhere(tmp_path, fmt):
    tiles = two_parts()
    for number, name in enumerate(label_files(fmt, [(tile.path, tile.split) for tile in tiles])):
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            outside, folder = tmp_path / f"out{number}{depth}", tmp_path / f"in{number}{depth}"
            link = folder.joinpath(*parts[:depth])
            link.parent.mkdir(parents=True)
            outside.mkdir()
            (outside / "mine").write_text("mine")
            link.symlink_to(outside / "mine" if depth == len(parts) else outside)
            with pytest.raises(OutputWriteError):
                write_labels(folder, fmt, tiles, ["a"])
            assert named(outside) == {"mine"}
            assert (outside / "mine").read_text() == "mine"


def test_a_link_in_a_circle_is_told_in_one_line(tmp_path):
    (tmp_path / "masks").symlink_to("masks")
    with pytest.raises(OutputWriteError):
        write_labels(tmp_path, "mask", two_parts(), ["a"])


def test_an_output_folder_may_itself_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write_labels(tmp_path / "link", "mask", two_parts(), ["a"])
    assert "masks/train/train.png" in named(tmp_path / "real")


@pytest.mark.parametrize("fmt", FORMATS)
def test_what_a_kill_left_is_swept_and_nothing_else(tmp_path, fmt):
    tiles = two_parts()
    files = list(label_files(fmt, [(tile.path, tile.split) for tile in tiles]))
    for name in files:
        path = tmp_path / name
        left = path.with_name(f".{path.name}.kgm_euux.tmp")
        left.mkdir(parents=True)
        (left / path.name).write_text("half")
        odd = path.with_name(f".{path.name}.abcdefgh.tmp.d")
        odd.mkdir()
        full = path.with_name(f".{path.name}.abcdefgh.tmp")
        full.mkdir()
        (full / "diary.txt").write_text("mine")
    write_labels(tmp_path, fmt, tiles, ["a"])
    kept = {path.name for path in tmp_path.rglob("*.tmp*")}
    assert kept == {f".{name.split('/')[-1]}.abcdefgh.tmp{suffix}" for name in files for suffix in ("", ".d")}


@pytest.mark.parametrize(("path", "split"), [("images/a\nb.tif", None), ("images/one.tif", ".."), ("x.tif", "a/../..")])
@pytest.mark.parametrize("fmt", ["coco", "yolo", "mask"])
def test_names_lead_nowhere_else(tmp_path, path, split, fmt):
    if fmt == "coco" and split != "a/../..":
        return  # COCO's files are named after the split, with a suffix, and not after images.
    with pytest.raises(UsageError, match="no plain name"):
        write_labels(tmp_path / "out", fmt, [tiled(index_of([]), path=path, split=split)], ["thing"])
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("fmt", ["coco", "yolo", "geojson", "geoparquet", "mask"])
def test_a_stop_half_way_leaves_no_half_file(tmp_path, fmt):
    def tiles():
        yield tiled(index_of([shapely.box(1, 1, 9, 9)]), split="train")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_labels(tmp_path, fmt, tiles(), ["thing"])
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left == {"yolo": ["one.txt"], "mask": ["one.png"]}.get(fmt, [])


@pytest.mark.parametrize(
    ("fmt", "name"), [("coco", "annotations"), ("yolo", "labels"), ("mask", "masks"), ("geojson", "labels.geojson")]
)
def test_what_cannot_be_written_is_told_in_one_line(tmp_path, fmt, name):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputWriteError) as error:
        write_labels(tmp_path, fmt, [tiled(index_of([shapely.box(1, 1, 9, 9)]))], ["thing"])
    assert "\n" not in str(error.value)
    assert (tmp_path / "elsewhere").read_text() == "mine"


def test_coco_loads_and_its_masks_are_the_labels(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    shapes = [*random_shapes(40), shapely.Point(5.3, 7.7), shapely.LineString([(3, 30), (60, 30)])]
    ring = shapely.Point(100, 80).buffer(60)
    holes = [shapely.Point(x, y).buffer(4) for x in range(60, 150, 12) for y in range(50, 120, 15)]
    shapes.append(ring - shapely.union_all(holes))
    index = index_of(shapes)
    grid = TileGrid(WIDTH, HEIGHT, 128, 100, "partial")
    tiles = [tiled(index, w, path=f"images/{w.row}_{w.col}.tif", split=["train", "val"][w.col % 2]) for w in grid]
    files = write_labels(tmp_path, "coco", iter(tiles), ["thing"])
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        "annotations/train.json",
        "annotations/val.json",
    ]
    by_name = {tile.path: tile for tile in tiles}
    for path in files:
        data = coco.COCO(str(path))
        assert data.loadCats(1)[0]["name"] == "thing"
        for image in data.loadImgs(data.getImgIds()):
            tile = by_name[image["file_name"]]
            annotations = data.loadAnns(data.getAnnIds(image["id"]))
            assert [entry["feature"] for entry in annotations] == [label.feature for label in tile.labels]
            for entry, label in zip(annotations, tile.labels, strict=True):
                assert (entry["truncated"], entry["iscrowd"]) == (label.truncated, 0)
                shape = label.geometry if label.geometry.area else label.geometry.buffer(0.5, cap_style="square")
                mask = data.annToMask(entry)
                assert mask.shape == (tile.window.height_px, tile.window.width_px)
                if label.geometry.area:
                    assert entry["area"] == pytest.approx(label.geometry.area, abs=1e-3)
                    drawn = rasterize([label.geometry], mask.shape)
                    assert (mask != drawn).sum() <= 2 * shape.length + 4
                    if label.geometry.area > 3000:
                        assert mask.sum() == pytest.approx(entry["area"], rel=0.06)
                else:
                    assert entry["area"] > 0
                x, y, width, height = entry["bbox"]
                assert min(x, y) >= 0
                assert x + width <= tile.window.width_px + 1e-3
                assert y + height <= tile.window.height_px + 1e-3
                np.testing.assert_allclose(
                    (x, y, x + width, y + height),
                    (shape & shapely.box(0, 0, tile.window.width_px, tile.window.height_px)).bounds,
                    atol=1e-3,
                )


def test_coco_polygons_have_no_holes_and_the_true_area(tmp_path):
    shape = shapely.box(10, 10, 90, 90) - shapely.box(20, 20, 40, 40) - shapely.box(50, 30, 80, 80)
    (file,) = write_labels(tmp_path, "coco", [tiled(index_of([shape]))], ["thing"])
    (entry,) = json.loads(file.read_text())["annotations"]
    parts = [shapely.Polygon(np.reshape(ring, (-1, 2))) for ring in entry["segmentation"]]
    assert entry["area"] == shape.area == sum(part.area for part in parts)
    assert shapely.union_all(parts).equals(shape)


def test_coco_without_tiles_or_labels_is_whole(tmp_path):
    (file,) = write_labels(tmp_path / "none", "coco", iter(()), ["thing"])
    assert json.loads(file.read_text())["images"] == []
    (file,) = write_labels(tmp_path / "blank", "coco", [tiled(index_of([]))], ["thing"])
    data = json.loads(file.read_text())
    assert (file.name, data["annotations"], data["images"][0]["width"]) == ("instances.json", [], WIDTH)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(polygons, st.builds(shapely.Point, coordinate, coordinate)), max_size=5), st.booleans())
def test_yolo_numbers_are_shares_of_the_tile(tmp_path_factory, shapes, oriented):
    index, folder = index_of(shapes), tmp_path_factory.mktemp("yolo")
    for window in (Window(0, 0, 70, 40), Window(60, 30, 70, 140)):
        tile = tiled(index, window, split="val")
        text, _ = write_labels(folder, "yolo-obb" if oriented else "yolo", [tile], ["thing"])
        assert text == folder / "labels" / "val" / "one.txt"
        rows = [list(map(float, line.split())) for line in text.read_text().splitlines()]
        assert len(rows) == len(tile.labels)
        for row, label in zip(rows, tile.labels, strict=True):
            assert len(row) == (9 if oriented else 5)
            assert row[0] == 0
            assert min(row[1:]) >= 0
            assert max(row[1:]) <= 1
            if not oriented and label.geometry.area:
                x, y, w, h = np.array(row[1:]) * np.tile((window.width_px, window.height_px), 2)
                box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                np.testing.assert_allclose(box, label.geometry.bounds, atol=1e-3)


def test_yolo_oriented_box_worked_by_hand(tmp_path):
    # A 5 × 10 box turned so that its sides run along (3, 4) and (-4, 3), with its top at (50, 40).
    shape = shapely.Polygon([(50, 40), (53, 44), (45, 50), (42, 46)])
    window = Window(0, 0, 100, 50)
    text, _ = write_labels(tmp_path, "yolo-obb", [tiled(index_of([shape]), window)], ["thing"])
    numbers = np.array(text.read_text().split(), float)
    np.testing.assert_allclose(numbers, [0, 0.50, 0.80, 0.53, 0.88, 0.45, 1.00, 0.42, 0.92], atol=1e-6)


def test_yolo_keeps_background_tiles_and_names_the_splits(tmp_path):
    yaml = pytest.importorskip("yaml")
    blank = tiled(index_of([]))
    tiles = [replace(blank, path=f"images/{name}/a.b.png", split=name) for name in ("train", "val", "test")]
    *texts, head = write_labels(tmp_path, "yolo", iter(tiles), ["thing"])
    assert [text.relative_to(tmp_path).as_posix() for text in texts] == [
        f"labels/{name}/a.b.txt" for name in ("train", "val", "test")
    ]
    assert {text.read_text() for text in texts} == {""}
    wanted = {name: f"images/{name}" for name in ("train", "val", "test")}
    assert yaml.safe_load(head.read_text()) == {**wanted, "nc": 1, "names": {0: "thing"}}
    write_labels(tmp_path, "yolo", [blank], ["thing"])
    assert yaml.safe_load(head.read_text())["train"] == yaml.safe_load(head.read_text())["val"] == "images"


def test_masks_are_rasterios_with_small_labels_on_top(tmp_path):
    shapes = [shapely.box(20, 20, 40, 40), shapely.box(0, 0, 100, 100), shapely.Point(30.5, 30.5), *random_shapes(20)]
    index = index_of(shapes)
    index = replace_classes(index, np.arange(len(shapes)) % 7)
    names = [f"class {n}" for n in range(7)]
    for window in TileGrid(WIDTH, HEIGHT, 128, 96, "pad"):
        tile = tiled(index, window)
        file, legend = write_labels(tmp_path, "mask", [tile], names)
        with rasterio.open(file) as data:
            mask = data.read(1)
        order = sorted(tile.labels, key=lambda label: (-shapes[label.feature].area, label.feature))
        wanted = np.zeros((window.height_px, window.width_px), "uint8")
        for label in order:
            drawn = rasterize([label.geometry], wanted.shape)
            wanted[drawn > 0] = label.class_id + 1
        np.testing.assert_array_equal(mask, wanted)
        assert mask.dtype == np.uint8
    assert file.relative_to(tmp_path).as_posix() == "masks/one.png"
    legend = json.loads(legend.read_text())
    assert legend["background"] == 0
    assert {entry["value"]: entry["name"] for entry in legend["classes"]} == {
        n + 1: name for n, name in enumerate(names)
    }


def replace_classes(index, class_ids):
    size = index.width_px, index.height_px
    names = tuple(f"class {n}" for n in range(class_ids.max() + 1))
    return LabelIndex(index.geometries, index.sizes, class_ids, index.features, names, *size)


def test_masks_of_many_classes_are_georeferenced_tifs(tmp_path):
    index = replace_classes(index_of([shapely.box(0, 0, 10, 10)]), np.array([299]))
    tile = tiled(index, split="train")
    file, _ = write_labels(tmp_path, "mask", [tile], [str(n) for n in range(300)])
    assert file == tmp_path / "masks" / "train" / "one.tif"
    with rasterio.open(file) as data:
        assert (data.dtypes[0], data.read(1)[0, 0], data.transform, data.crs) == ("uint16", 300, NORTH_UP, tile.crs)
    with pytest.raises(UsageError, match="too many classes"):
        write_labels(tmp_path, "mask", [tile], ["thing"] * 70000)


@pytest.mark.parametrize("fmt", ["geojson", "geoparquet"])
def test_layers_lie_where_the_labels_came_from(lay, tmp_path, fmt):
    shapes = random_shapes(30)
    _, index, _, _ = lay(shapes, {"class": range(30)})
    grid = TileGrid(WIDTH, HEIGHT, 64, 64, "partial")
    tiles = [tiled(index, w, path=f"images/{w.row}_{w.col}.tif", split="train") for w in grid]
    (file,) = write_labels(tmp_path, fmt, iter(tiles), [str(n) for n in range(30)])
    frame = geopandas.read_parquet(file) if fmt == "geoparquet" else geopandas.read_file(file)
    assert frame.crs == ("EPSG:32631" if fmt == "geoparquet" else "EPSG:4326")
    assert len(frame) == sum(len(tile.labels) for tile in tiles)
    assert set(frame.split) == {"train"}
    assert set(frame.tile) <= {tile.path for tile in tiles}
    assert list(frame["class"]) == [str(feature) for feature in frame.feature]
    merged = frame.to_crs(32631).dissolve("feature").geometry
    raster = shapely.box(500000, 5800000 - HEIGHT / 2, 500000 + WIDTH / 2, 5800000)
    for feature, shape in merged.items():
        whole = shapely.affinity.affine_transform(shapes[feature], NORTH_UP.to_shapely())
        assert shape.symmetric_difference(whole & raster).area < 0.05


@pytest.mark.parametrize("fmt", ["geojson", "geoparquet"])
def test_layers_without_rows_are_whole(tmp_path, fmt):
    (file,) = write_labels(tmp_path, fmt, iter([tiled(index_of([]))]), ["thing"])
    frame = geopandas.read_parquet(file) if fmt == "geoparquet" else geopandas.read_file(file)
    assert len(frame) == 0


def test_tiles_of_several_crss_share_one_layer(tmp_path):
    index = index_of([shapely.box(10, 10, 20, 20)])
    far = Affine(50, 0, 833230, 0, -50, 5000)
    tiles = [tiled(index), tiled(index, crs="EPSG:32660", transform=far), tiled(index, crs=None)]
    (file,) = write_labels(tmp_path, "geoparquet", tiles, ["thing"])
    frame = geopandas.read_parquet(file)
    assert frame.crs == "OGC:CRS84"
    assert frame.geometry.isna().tolist() == [False, False, True]
    assert frame.geometry[0].centroid.distance(shapely.Point(3.0001, 52.3502)) < 1e-3
    # The second label lies across 180°, so it is cut there and does not run round the world.
    assert frame.geometry[1].geom_type == "MultiPolygon"
    assert frame.geometry[1].area < 1e-4
    with pytest.raises(NotGeoreferencedError, match="geoparquet"):
        write_labels(tmp_path, "geojson", tiles, ["thing"])
    (file,) = write_labels(tmp_path, "geojson", tiles[:2], ["thing"])
    second = shapely.geometry.shape(json.loads(file.read_text())["features"][1]["geometry"])
    assert (second.geom_type, second.area < 1e-4) == ("MultiPolygon", True)


def test_pixels_stay_pixels_in_geoparquet(tmp_path):
    tile = tiled(index_of([shapely.box(10, 10, 20, 20)]), crs=None, transform=Affine.identity())
    frame = geopandas.read_parquet(write_labels(tmp_path, "geoparquet", [tile], ["thing"])[0])
    assert frame.crs is None
    assert frame.geometry[0].bounds == (10, 10, 20, 20)
