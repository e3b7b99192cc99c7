"""What a layer is to the engine, its area, and where its answers go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from answer_files import write_raster
from osgeo import gdal
from qgis.core import (
    QgsContrastEnhancement,
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsGeometry,
    QgsProject,
    QgsRasterLayer,
    QgsRasterMinMaxOrigin,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.gui import QgsMapCanvas

from qgis_plugin.layers.area import AreaError, area_of, geometry_of
from qgis_plugin.layers.folders import results_folder, stem_for
from qgis_plugin.layers.source import LayerSource, describe

RGB = np.full((3, 100, 100), 90, np.uint8)
RD = (127_500.0, 428_000.0, 127_600.0, 428_100.0)


def crs(code):
    return QgsCoordinateReferenceSystem(f"EPSG:{code}")


@pytest.fixture
def image(tmp_path):
    return QgsRasterLayer(write_raster(tmp_path / "image.tif", RGB), "image")


@pytest.fixture
def canvas(qgis_app):
    canvas = QgsMapCanvas()
    canvas.resize(400, 200)
    yield canvas
    canvas.deleteLater()


def test_plain_file(image):
    source = describe(image)
    assert source.kind == "file"
    assert source.request_source() == {"path": image.source(), "crs": None, "allow_vrt": False}
    assert source.extent == RD
    assert source.gsd_m == pytest.approx(1.0, rel=2e-3)
    assert source.bands == (1, 2, 3)
    assert source.ranges is None
    assert source.request_look() == {"bands": [1, 2, 3]}


@pytest.mark.parametrize(
    ("code", "origin", "pixel", "gsd"),
    [(4326, (5.0, 52.0), 1e-5, 0.87), (3857, (557_000.0, 6_800_000.0), 1.0, 0.614), (32631, (6e5, 5.7e6), 0.5, 0.5),
     (2263, (980_000.0, 200_000.0), 1.0, 0.3048)],
)  # fmt: skip
def test_ground_resolution_is_in_metres(tmp_path, code, origin, pixel, gsd):
    path = write_raster(tmp_path / "a.tif", RGB, origin=origin, pixel=pixel, epsg=code)
    assert describe(QgsRasterLayer(path, "a")).gsd_m == pytest.approx(gsd, rel=0.02)


def test_crs_override(image):
    image.setCrs(crs(32631))
    source = describe(image)
    assert source.crs_override
    assert source.crs == crs(32631)
    assert "32631" in source.request_source()["crs"]
    assert source.request_source("/drawn.tif") == {"path": "/drawn.tif", "crs": None, "allow_vrt": False}


def test_file_without_crs(tmp_path):
    layer = QgsRasterLayer(write_raster(tmp_path / "a.tif", RGB, epsg=None), "a")
    layer.setCrs(QgsCoordinateReferenceSystem())
    source = describe(layer)
    assert (source.kind, source.remedy) == ("none", "set_crs")
    assert source.reason == "This layer has no coordinate system"
    layer.setCrs(crs(28992))
    assert describe(layer).crs_override


def test_image_without_place(tmp_path):
    layer = QgsRasterLayer(write_raster(tmp_path / "a.tif", RGB, epsg=None, placed=False), "a")
    layer.setCrs(crs(28992))
    assert describe(layer).kind == "none"
    assert "georeference" in describe(layer).reason


def test_relative_names_are_files_too(image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = describe(QgsRasterLayer("image.tif", "image"))
    assert (source.kind, source.path) == ("file", str(tmp_path / "image.tif"))


def test_moved_file(image):
    Path(image.source()).unlink()
    assert describe(image).remedy == "repair_path"
    gone = QgsRasterLayer("/nowhere/a.tif", "gone")
    assert (describe(gone).kind, describe(gone).remedy) == ("none", "repair_path")


def test_no_image(tmp_path):
    assert describe(None).remedy == "add_layer"
    assert describe(QgsVectorLayer("Point?crs=EPSG:4326", "p", "memory")).reason == "This layer is not an image"


def test_what_only_gdal_reads_is_drawn(tmp_path):
    write_raster("/vsimem/a.tif", RGB)
    assert describe(QgsRasterLayer("/vsimem/a.tif", "memory")).kind == "render"
    erdas = QgsRasterLayer(write_raster(tmp_path / "a.img", RGB, driver="HFA"), "erdas")
    assert describe(erdas).kind == "render"
    assert describe(erdas).path == ""
    netcdf = QgsRasterLayer(f"GTIFF_DIR:1:{write_raster(tmp_path / 'b.tif', RGB)}", "subdataset")
    assert netcdf.isValid()
    assert describe(netcdf).kind == "render"
    gdal.Unlink("/vsimem/a.tif")


def test_virtual_rasters(tmp_path, image):
    plain = tmp_path / "plain.vrt"
    gdal.BuildVRT(str(plain), [image.source()]).FlushCache()
    source = describe(QgsRasterLayer(str(plain), "plain"))
    assert (source.kind, source.allow_vrt) == ("file", True)
    write_raster("/vsimem/c.tif", RGB)
    leading = tmp_path / "leading.vrt"
    gdal.BuildVRT(str(leading), ["/vsimem/c.tif"]).FlushCache()
    assert describe(QgsRasterLayer(str(leading), "leading")).kind == "render"
    gdal.Unlink("/vsimem/c.tif")


def test_web_tiles_are_drawn():
    layer = QgsRasterLayer("type=xyz&url=file:///tmp/%7Bz%7D/%7Bx%7D/%7By%7D.png&zmax=18&zmin=0", "xyz", "wms")
    source = describe(layer)
    assert (source.kind, source.gsd_m, source.bands) == ("render", None, None)
    assert source.crs == crs(3857)


def stretched(layer, low, high):
    renderer = layer.renderer()
    for name in ("Red", "Green", "Blue"):
        stretch = QgsContrastEnhancement(layer.dataProvider().dataType(1))
        stretch.setMinimumValue(low)
        stretch.setMaximumValue(high)
        stretch.setContrastEnhancementAlgorithm(
            QgsContrastEnhancement.ContrastEnhancementAlgorithm.StretchToMinimumMaximum
        )
        getattr(renderer, f"set{name}ContrastEnhancement")(stretch)
    return layer


def test_stretch_as_shown(tmp_path):
    array = (np.arange(40_000, dtype=np.uint16) % 3000).reshape(4, 100, 100)
    layer = QgsRasterLayer(write_raster(tmp_path / "a.tif", array), "a")
    layer.renderer().setRedBand(4)
    stretched(layer, 100, 2000)
    assert describe(layer).bands == (4, 2, 3)
    assert describe(layer).ranges == ((100.0, 2000.0),) * 3
    assert describe(layer).request_look()["stretch"] == {"ranges": [[100.0, 2000.0]] * 3}
    assert describe(layer, stretch_as_shown=False).ranges is None
    assert describe(layer, bands=(2, 3, 4)).ranges == ((100.0, 2000.0),) * 3
    assert describe(layer, bands=(1, 2, 3)).ranges is None
    origin = QgsRasterMinMaxOrigin()
    origin.setExtent(QgsRasterMinMaxOrigin.Extent.UpdatedCanvas)
    layer.renderer().setMinMaxOrigin(origin)
    assert describe(layer).ranges is None


def test_grey_and_palette(tmp_path):
    grey = QgsRasterLayer(write_raster(tmp_path / "a.tif", RGB[0].astype(np.uint16) + np.arange(100, dtype="u2")), "a")
    source = describe(grey)
    assert source.bands == (1,)
    assert source.ranges is not None and source.ranges[0][0] < source.ranges[0][1]


def test_visible_area(canvas, image):
    source = describe(image)
    canvas.setDestinationCrs(crs(28992))
    canvas.setExtent(QgsRectangle(127_550, 428_040, 127_570, 428_050))
    area = geometry_of(area_of("visible", source, canvas))
    assert area.boundingBox().width() == pytest.approx(20, abs=0.1)
    canvas.setExtent(QgsRectangle(127_000, 427_000, 128_000, 429_000))
    assert area_of("visible", source, canvas) is None
    canvas.setExtent(QgsRectangle(0, 0, 10, 10))
    with pytest.raises(AreaError, match="zoom to it"):
        area_of("visible", source, canvas)


def test_visible_area_follows_rotation(canvas, image):
    canvas.setDestinationCrs(crs(28992))
    canvas.setExtent(QgsRectangle(127_540, 428_045, 127_560, 428_055))
    canvas.setRotation(45)
    area = geometry_of(area_of("visible", describe(image), canvas))
    assert area.area() < 0.6 * area.boundingBox().area()


@pytest.mark.parametrize("code", [3857, 4326, 32631, 25832])
def test_visible_area_in_another_crs(canvas, image, code):
    canvas.setDestinationCrs(crs(code))
    canvas.setExtent(
        canvas.mapSettings().layerExtentToOutputExtent(image, QgsRectangle(127_520, 428_020, 127_540, 428_040))
    )
    area = geometry_of(area_of("visible", describe(image), canvas))
    assert area.boundingBox().contains(QgsRectangle(127_521, 428_021, 127_539, 428_039))


def test_world_map_over_a_national_grid(canvas, image):
    canvas.setDestinationCrs(crs(4326))
    canvas.setExtent(QgsRectangle(-200, -100, 200, 100))
    assert area_of("visible", describe(image), canvas) is None
    canvas.setExtent(QgsRectangle(100, -80, 170, 80))
    with pytest.raises(AreaError):
        area_of("visible", describe(image), canvas)


def test_world_of_tiles_under_a_utm_map(canvas):
    world = 20_037_508.342789
    source = LayerSource(kind="render", crs_wkt=crs(3857).toWkt(), extent=(-world, -world, world, world))
    canvas.setDestinationCrs(crs(32631))
    canvas.setExtent(QgsRectangle(500_000, 5_700_000, 501_000, 5_701_000))
    box = geometry_of(area_of("visible", source, canvas)).boundingBox()
    assert 1000 < box.height() < 5000
    canvas.setDestinationCrs(crs(4326))
    canvas.setExtent(QgsRectangle(-180, -90, 180, 90))
    assert geometry_of(area_of("visible", source, canvas) or {"type": ""}) is not None


def test_antimeridian_is_a_sentence(canvas):
    source = LayerSource(kind="file", crs_wkt=crs(4326).toWkt(), extent=(-180.0, -90.0, 180.0, 90.0))
    canvas.setDestinationCrs(crs(3832))
    canvas.setExtent(QgsRectangle(3_000_000, 0, 4_500_000, 500_000))
    with pytest.raises(AreaError, match="180"):
        area_of("visible", source, canvas)


def selection(code="28992", kind="Polygon"):
    return QgsVectorLayer(f"{kind}?crs=EPSG:{code}", "zones", "memory")


def add(layer, rectangle):
    feature = QgsFeature()
    feature.setGeometry(QgsGeometry.fromRect(rectangle))
    layer.dataProvider().addFeatures([feature])


def test_selected_polygons(canvas, image):
    layer = selection()
    add(layer, QgsRectangle(127_510, 428_010, 127_520, 428_020))
    add(layer, QgsRectangle(127_590, 428_010, 127_700, 428_020))
    source = describe(image)
    with pytest.raises(AreaError, match="No polygon is selected in “zones”"):
        area_of("selection", source, canvas, layer)
    layer.selectAll()
    area = area_of("selection", source, canvas, layer)
    assert area["type"] == "MultiPolygon"
    assert geometry_of(area).area() == pytest.approx(200)
    with pytest.raises(AreaError, match="Choose a polygon layer"):
        area_of("selection", source, canvas, None)
    with pytest.raises(AreaError, match="has no polygons"):
        area_of("selection", source, canvas, selection(kind="Point"))
    far = selection("4326")
    add(far, QgsRectangle(100, 10, 101, 11))
    far.selectAll()
    with pytest.raises(AreaError):
        area_of("selection", source, canvas, far)


def test_drawn_rectangle(canvas, image):
    canvas.setDestinationCrs(crs(28992))
    source = describe(image)
    with pytest.raises(AreaError, match="No rectangle"):
        area_of("rectangle", source, canvas)
    drawn = QgsGeometry.fromRect(QgsRectangle(127_590, 428_090, 127_700, 428_200))
    assert geometry_of(area_of("rectangle", source, canvas, rectangle=drawn)).area() == pytest.approx(100)
    assert area_of("layer", source, None) is None


def test_results_lie_beside_project_or_image(tmp_path, image):
    project = QgsProject.instance()
    source = describe(image)
    assert results_folder(project, source) == tmp_path / "geoalign"
    project.setFileName(str(tmp_path / "maps" / "map.qgz"))
    (tmp_path / "maps").mkdir()
    assert results_folder(project, source) == tmp_path / "maps" / "geoalign"
    project.clear()
    drawn = LayerSource(kind="render")
    assert results_folder(project, drawn).parts[-2:] == ("geoalign", "results")


def test_read_only_folders_are_passed_over(tmp_path):
    (tmp_path / "geoalign").write_text("a file is in the way")
    source = LayerSource(kind="file", path=str(tmp_path / "a.tif"))
    assert results_folder(QgsProject.instance(), source).name == "results"


@pytest.mark.parametrize(
    ("text", "stem"),
    [("Parking lots, many cars!", "parking-lots-many-cars-ab12"), ("дома", "question-ab12"),
     ("Bäume/../etc", "baume-etc-ab12"), ("", "question-ab12")],
)  # fmt: skip
def test_stems_are_plain(text, stem):
    assert stem_for(text, "ab-12", 1) == stem
    assert stem_for(text, "ab-12", 2) == f"{stem}-r2"
    assert len(stem_for(text * 50, "ab-12", 10)) < 60
