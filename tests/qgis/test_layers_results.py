"""Answers as layers: made, filtered at the slider's pace, swapped, exported, and gone without a crash."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from answer_files import write_answer, write_raster
from osgeo import ogr
from qgis.core import (
    QgsLayerTreeModel,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.gui import QgsMapCanvas, QgsRubberBand
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QSize

from qgis_plugin.layers.export import ExportError
from qgis_plugin.layers.overlay import Overlay
from qgis_plugin.layers.results import AnswerGroup, question_of


@pytest.fixture
def project():
    return QgsProject.instance()


@pytest.fixture
def image(tmp_path, project):
    array = np.full((3, 100, 100), 90, np.uint8)
    layer = QgsRasterLayer(write_raster(tmp_path / "image.tif", array), "image")
    project.addMapLayer(layer, False)
    group = project.layerTreeRoot().addGroup("Imagery")
    group.addGroup("other")
    group.addLayer(layer)
    return layer


@pytest.fixture
def answer(project, image, tmp_path):
    group = AnswerGroup.create(project, image, "trees", "q1")
    group.show(write_answer(tmp_path / "geoalign", "trees-q1"), "both", 50)
    return group


def names(node):
    return [child.name() for child in node.children()]


def test_group_lies_directly_above_its_image(project, answer):
    imagery = project.layerTreeRoot().findGroup("Imagery")
    assert names(imagery) == ["other", "Ask: trees", "image"]
    assert names(imagery.findGroup("Ask: trees")) == ["Matches", "Heatmap"]


def test_threshold_filters_rows_and_heatmap(answer, qtbot):
    answer.set_threshold(80)
    assert answer.regions.featureCount() == answer.count(80) == len(answer.matches(80)) == 0
    assert answer.heatmap.renderer().classificationMin() == pytest.approx(0.8)
    answer.set_threshold(20)
    qtbot.waitUntil(lambda: answer.regions.featureCount() == answer.count(20) == 10, timeout=2000)
    scores = [match.score for match in answer.matches(20)]
    assert scores == sorted(scores, reverse=True)
    assert answer.matches(20, limit=3) == answer.matches(20)[:3]


def test_boxes_follow_a_fast_slider(answer, qtbot):
    for pct in (20, 30, 40, 45, 35):
        answer.set_threshold(pct)
    qtbot.waitUntil(lambda: answer.regions.featureCount() == answer.count(35), timeout=2000)
    assert answer.regions.subsetString() == '"min_match" = 35'


def test_heatmap_is_clear_below_the_limit(answer):
    shader = answer.heatmap.renderer().shader().rasterShaderFunction()
    assert shader.shade(0.45)[4] == 0
    assert shader.shade(0.505)[4] > 80
    assert "weaker" in shader.legendSettings().minimumLabel()


def test_picture_shows_heat_above_the_limit_only(answer, image):
    settings = QgsMapSettings()
    settings.setLayers([answer.heatmap, image])
    settings.setOutputSize(QSize(200, 200))
    settings.setExtent(image.extent())
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    picture = job.renderedImage()
    hot, cold = picture.pixelColor(60, 60), picture.pixelColor(190, 10)
    assert hot.red() > 150 > hot.blue()
    assert (cold.red(), cold.green(), cold.blue()) == (90, 90, 90)


def test_regions_speak_in_words(answer):
    regions = answer.regions
    assert regions.attributeDisplayName(regions.fields().lookupField("area_m2")) == "Area (m²)"
    assert regions.labelsEnabled()
    assert "query" in regions.mapTipTemplate()


def test_thirty_thresholds_a_second(project, image, tmp_path):
    group = AnswerGroup.create(project, image, "trees", "big")
    group.show(write_answer(tmp_path, "big", per_rung=1000, heat_px=2000), "both", 50)
    canvas = QgsMapCanvas()
    canvas.setLayers([group.regions, group.heatmap])
    canvas.setExtent(image.extent())
    pace = []
    for step in range(60):
        start = time.perf_counter()
        group.set_threshold(10 + 5 * (step % 18))
        pace.append(time.perf_counter() - start)
    canvas.stopRendering()
    canvas.deleteLater()
    assert sum(pace) / len(pace) < 0.033


def test_refit_keeps_what_the_user_set(project, answer, tmp_path):
    old = answer.files
    ids = answer.heatmap.id(), answer.regions.id()
    answer.heatmap.setOpacity(0.31)
    answer.heatmap.setName("my heat")
    group = project.layerTreeRoot().findGroup("Ask: trees")
    group.findLayer(answer.heatmap.id()).setItemVisibilityChecked(False)
    new = write_answer(tmp_path / "geoalign", "trees-q1-r2", per_rung=20, seed=2)
    answer.show(new, "both", 40)
    assert (answer.heatmap.id(), answer.regions.id()) == ids
    assert answer.files == new
    assert answer.heatmap.opacity() == pytest.approx(0.31)
    assert answer.heatmap.name() == "my heat"
    assert not group.findLayer(answer.heatmap.id()).itemVisibilityChecked()
    assert answer.regions.labelsEnabled()
    assert answer.heatmap.isValid() and answer.regions.isValid()
    assert answer.count(40) == answer.regions.featureCount() == 14
    assert not any(Path(path).exists() for path in old.values())


@pytest.mark.parametrize("victim", ["group", "heatmap", "regions", "image", "project"])
def test_users_delete_what_they_like(project, answer, image, victim, tmp_path):
    answer.matches(50)
    if victim == "group":
        imagery = project.layerTreeRoot().findGroup("Imagery")
        imagery.removeChildNode(imagery.findGroup("Ask: trees"))
        project.removeMapLayers([answer.heatmap.id(), answer.regions.id()])
    elif victim == "project":
        project.clear()
    else:
        layer = image if victim == "image" else getattr(answer, victim)
        project.removeMapLayer(layer.id())
    answer.set_threshold(70)
    answer.matches(60)
    answer.count(60)
    answer.show(write_answer(tmp_path / "geoalign", "trees-q1-r2"), "both", 30)
    assert answer.exists == (victim not in ("group", "project"))
    if answer.exists:
        assert answer.regions.featureCount() == 8


def test_list_lives_without_the_boxes(project, answer):
    files = answer.files
    answer.show(files, "heatmap", 50)
    assert not is_checked(project, answer.regions)
    assert answer.count(50) == len(answer.matches(50)) == 4
    assert AnswerGroup.find(project, "q1", files).count(50) == 4
    assert AnswerGroup.find(project, "q1").count(50) == 4


def test_layer_in_edit_mode_is_left_to_the_user(answer, tmp_path):
    theirs, old = answer.regions, answer.files["regions"]
    assert theirs.startEditing()
    answer.set_threshold(30)
    assert theirs.isEditable()
    answer.show(write_answer(tmp_path / "geoalign", "trees-q1-r2"), "both", 30)
    assert theirs.isEditable()
    assert Path(old).exists()
    assert answer.regions.id() != theirs.id()
    assert answer.regions.featureCount() == 8
    theirs.rollBack()


def test_lost_file_does_not_break_the_layer(answer, tmp_path):
    before = answer.files
    answer.show({"heatmap": str(tmp_path / "never.tif"), "regions": None}, "both", 40)
    assert answer.files == before
    assert answer.heatmap.isValid()
    assert answer.regions.featureCount() == 6


def test_legend_shows_the_ramp_only(project, answer):
    node = project.layerTreeRoot().findLayer(answer.heatmap.id())
    model = QgsLayerTreeModel(project.layerTreeRoot())
    assert len(model.layerLegendNodes(node)) == 1
    answer.set_threshold(70)
    assert len(model.layerLegendNodes(node)) == 1


def test_answer_is_found_again(project, answer, tmp_path):
    again = AnswerGroup.find(project, "q1")
    assert again.files == answer.files
    assert again.count(50) == answer.count(50)
    assert AnswerGroup.find(project, "other") is None


def test_polygons_instead_of_boxes(project, image, tmp_path):
    group = AnswerGroup.create(project, image, "trees", "q2")
    group.show(write_answer(tmp_path, "poly"), "outlines", 50)
    assert "layername=polygons" in group.regions.source()
    assert AnswerGroup.find(project, "q2").count(50) == 4


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson"])
def test_export_holds_the_shown_rows(answer, tmp_path, suffix):
    target = tmp_path / "out" / f"trees.{suffix}"
    target.parent.mkdir()
    assert answer.export(target, 30) == 8
    assert answer.export(target, 40) == 6
    layer = QgsVectorLayer(str(target), "x", "ogr")
    assert layer.featureCount() == 6
    assert {"query", "score", "rank"} <= {field.name() for field in layer.fields()}
    assert "min_match" not in {field.name() for field in layer.fields()}
    assert layer.crs().authid() == ("EPSG:4326" if suffix == "geojson" else "EPSG:28992")
    if suffix == "geojson":
        first = json.loads(target.read_text())["features"][0]["geometry"]["coordinates"][0][0]
        assert 4 < first[0] < 6 and 51 < first[1] < 53
    if suffix == "gpkg":
        assert layer.labelsEnabled()
    assert not list(target.parent.glob(".geoalign-*"))


def test_export_says_what_is_wrong(answer, tmp_path):
    with pytest.raises(ExportError, match="unknown ending"):
        answer.export(tmp_path / "a.kml", 50)
    with pytest.raises(ExportError, match="lower the minimum"):
        answer.export(tmp_path / "a.gpkg", 95)
    with pytest.raises(ExportError, match="cannot be written"):
        answer.export(tmp_path / "missing" / "a.gpkg", 50)


def is_checked(project, layer) -> bool:
    return project.layerTreeRoot().findLayer(layer.id()).itemVisibilityChecked()


def test_what_is_not_wanted_is_hidden_and_keeps_its_name(project, answer):
    answer.regions.setName("My boats")
    answer.show({}, "heatmap", 50)
    assert (is_checked(project, answer.heatmap), is_checked(project, answer.regions)) == (True, False)
    answer.show({}, "boxes", 50)
    assert (is_checked(project, answer.heatmap), is_checked(project, answer.regions)) == (False, True)
    assert answer.regions.name() == "My boats"


def test_a_new_answer_comes_on_top_and_hides_the_others(project, image, answer, tmp_path):
    newer = AnswerGroup.create(project, image, "boats " * 50, "q9")
    newer.show(write_answer(tmp_path / "geoalign", "boats-q9"), "both", 50)
    newer.bring_forward()
    names = [node.name() for node in project.layerTreeRoot().findGroup("Imagery").children()]
    mine, other = (next(name for name in names if name.startswith(start)) for start in ("Ask: boats", "Ask: trees"))
    assert len(mine) < 80
    assert names.index(mine) == names.index(other) - 1
    groups = {node.name(): node for node in project.layerTreeRoot().findGroups(True)}
    assert groups[mine].itemVisibilityChecked() and not groups[other].itemVisibilityChecked()


def test_overlay_outlives_its_canvas(answer, image):
    canvas = QgsMapCanvas()
    overlay = Overlay(canvas)
    place = answer.matches(50)[0].geometry
    overlay.highlight(place, image.crs())
    overlay.show_marks([place], [place], image.crs())
    bands = [item for item in canvas.scene().items() if isinstance(item, QgsRubberBand)]
    assert len(bands) == 3
    overlay.highlight(None)
    sip.delete(canvas)
    overlay.clear()


def test_layers_know_their_question(answer, image):
    assert question_of(answer.heatmap) == question_of(answer.regions) == "q1"
    assert question_of(image) == ""


def test_style_stands_without_the_engines(answer):
    with_styles = ogr.Open(answer.files["regions"])
    assert with_styles.GetLayerByName("layer_styles") is None
