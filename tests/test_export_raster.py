"""Heatmaps and class maps: what GDAL, QGIS and people find in the file."""

import json
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoalign_core.export import class_colors, write_classes, write_heatmap
from geoalign_core.export.colors import HEAT_ALPHA_MAX, heat_alpha, heat_rgb
from geoalign_core.export.style import boxes_qml, classes_qml, heatmap_qml, polygons_qml
from tiling.errors import OutputExistsError, UsageError

ROTATED = Affine.translation(500000, 5800000) * Affine.rotation(30) * Affine.scale(0.5, -0.5)
UTM = "EPSG:32631"


@pytest.fixture
def heat():
    values = np.random.default_rng(0).random((1200, 700), dtype=np.float32)
    values[:100] = np.nan
    return values


def test_heatmap_is_a_cog_with_everything_inside(tmp_path, heat):
    tags = {"query": "Schwimmbäder 游泳池", "model": "test", "threshold": "0.5"}
    path = write_heatmap(tmp_path / "h.tif", heat, transform=ROTATED, crs=UTM, tags=tags)
    assert [item.name for item in tmp_path.iterdir()] == ["h.tif"]
    with rasterio.open(path) as raster:
        structure = raster.tags(ns="IMAGE_STRUCTURE")
        assert structure["LAYOUT"] == "COG"
        assert (structure["COMPRESSION"], structure["PREDICTOR"]) == ("DEFLATE", "3")
        assert raster.block_shapes == [(512, 512)]
        assert raster.overviews(1)
        assert raster.dtypes == ("float32",)
        assert math.isnan(raster.nodata)
        assert raster.crs.to_epsg() == 32631
        assert raster.transform.almost_equals(ROTATED)
        assert raster.descriptions == (tags["query"],)
        assert tags.items() <= raster.tags().items()
        np.testing.assert_array_equal(raster.read(1), heat)
        half = raster.read(1, out_shape=(600, 350))
        assert np.isnan(half[:50]).all() and abs(half[50:].mean() - 0.5) < 0.01


def test_heatmap_statistics_are_exact(tmp_path, heat):
    path = write_heatmap(tmp_path / "h.tif", heat, transform=ROTATED, crs=UTM, tags={})
    with rasterio.open(path) as raster:
        found = {name: float(value) for name, value in raster.tags(1).items() if name.startswith("STATISTICS_")}
    valid = heat[100:].astype(np.float64)
    assert found["STATISTICS_MINIMUM"] == pytest.approx(valid.min(), rel=1e-7)
    assert found["STATISTICS_MAXIMUM"] == pytest.approx(valid.max(), rel=1e-7)
    assert found["STATISTICS_MEAN"] == pytest.approx(valid.mean(), rel=1e-7)
    assert found["STATISTICS_STDDEV"] == pytest.approx(valid.std(), rel=1e-7)
    assert found["STATISTICS_VALID_PERCENT"] == pytest.approx(100 * 1100 / 1200, rel=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (600, 3)])
def test_heatmaps_of_any_shape_in_pixel_mode(tmp_path, shape, recwarn):
    values = np.full(shape, np.nan, np.float32)
    path = write_heatmap(tmp_path / "h.tif", values, transform=Affine.identity(), crs=None, tags={})
    assert not recwarn.list
    with rasterio.open(path) as raster:
        assert raster.crs is None
        assert raster.tags(1)["STATISTICS_VALID_PERCENT"] == "0"
        assert np.isnan(raster.read(1)).all()


def test_heatmap_style_and_overwriting(tmp_path, heat):
    target = tmp_path / "h.tif"
    (tmp_path / "h.qml").write_text("mine")
    options = {"transform": ROTATED, "crs": UTM, "tags": {}, "threshold": 0.6}
    with pytest.raises(OutputExistsError, match=r"h\.qml"):
        write_heatmap(target, heat, **options)
    assert not target.exists()
    write_heatmap(target, heat, **options, overwrite=True)
    (tmp_path / "h.tif.aux.xml").write_text("<PAMDataset/>")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_heatmap(target, heat, **options)
    write_heatmap(target, heat[:, :300], **options, overwrite=True)
    assert {item.name for item in tmp_path.iterdir()} == {"h.tif", "h.qml"}
    assert ET.parse(tmp_path / "h.qml").find("pipe/rasterrenderer").get("type") == "singlebandpseudocolor"


def test_same_heat_same_bytes(tmp_path, heat):
    one, two = (
        write_heatmap(tmp_path / name / "h.tif", heat, transform=ROTATED, crs=UTM, tags={"query": "a"}).read_bytes()
        for name in "ab"
    )
    assert one == two


def test_class_map_carries_names_and_colours(tmp_path):
    names = ["water & sea", "Bäume", "roads <paved>"]
    classes = np.random.default_rng(0).integers(0, 4, (600, 700), dtype=np.uint8)
    path = write_classes(tmp_path / "c.tif", classes, names, transform=ROTATED, crs=UTM, tags={"model": "test"})
    with rasterio.open(path) as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.nodata == 0
        assert json.loads(raster.tags()["CLASS_NAMES"]) == names
        assert raster.tags(1)["CLASS_2"] == "Bäume"
        assert [raster.colormap(1)[k][:3] for k in (1, 2, 3)] == class_colors(3)
        assert raster.colormap(1)[0][3] == 0
        np.testing.assert_array_equal(raster.read(1), classes)
        assert set(np.unique(raster.read(1, out_shape=(75, 88)))) <= {0, 1, 2, 3}
    sidecar = ET.parse(tmp_path / "c.tif.aux.xml")
    assert [item.text for item in sidecar.findall("PAMRasterBand/CategoryNames/Category")] == ["no data", *names]
    entries = ET.parse(tmp_path / "c.qml").findall("pipe/rasterrenderer/colorPalette/paletteEntry")
    assert [entry.get("label") for entry in entries] == names


def test_class_map_refuses_what_it_cannot_hold(tmp_path):
    plane = np.ones((4, 4), np.uint8)
    options = {"transform": ROTATED, "crs": UTM, "tags": {}}
    for classes, names, colors in [
        (plane, ["x"] * 256, None), (plane, [], None), (plane * 3, ["a", "b"], None), (plane, ["a"], [(0, 0, 0)] * 2),
    ]:  # fmt: skip
        with pytest.raises(UsageError):
            write_classes(tmp_path / "c.tif", classes, names, colors, **options)
    with pytest.raises(UsageError):
        write_heatmap(tmp_path / "h.tif", np.zeros((0, 4), np.float32), **options)
    assert not list(tmp_path.iterdir())
    write_classes(tmp_path / "c.tif", plane * 255, [f"class {k}" for k in range(255)], **options)


def test_class_colours_are_distinct():
    colors = class_colors(255)
    assert len(set(colors)) == 255
    assert colors[:8] == class_colors(8)


def test_heat_colours_get_lighter_and_more_opaque():
    scores = np.linspace(0, 1, 201)
    alpha = heat_alpha(scores, 0.5)
    assert (np.diff(alpha) >= 0).all()
    assert alpha[scores < 0.4].max() == 0
    assert alpha[-1] == pytest.approx(HEAT_ALPHA_MAX)
    luma = heat_rgb(scores[scores >= 0.4], 0.5) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luma) >= -0.5).all()
    assert heat_alpha([np.nan], 0.5) == 0


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_styles_are_xml(threshold):
    for qml in (boxes_qml(), polygons_qml(), heatmap_qml(threshold), classes_qml(['a "quoted" & <name>'], [(1, 2, 3)])):
        assert ET.fromstring(qml).tag == "qgis"
    items = ET.fromstring(heatmap_qml(threshold)).findall(".//colorrampshader/item")
    values = [float(item.get("value")) for item in items]
    assert values == sorted(set(values)) and values[0] == 0 and values[-1] == 1
    assert items[0].get("alpha") == "0"
