"""The whole panel against the real engine and the embedded model: ask, teach, filter, save, restore."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from qgis.core import (
    QgsApplication,
    QgsCoordinateTransform,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import Qt
from tile_server import serve_tiles

from qgis_plugin.gui.controller import AskController
from qgis_plugin.gui.states import State
from qgis_plugin.layers.area import geometry_of
from tests.qgis.conftest import REPO

WAIT_MS = 200_000


@pytest.fixture
def image(indexed_sample):
    layer = QgsRasterLayer(str(indexed_sample), "aerial_2023")
    QgsProject.instance().addMapLayer(layer)
    return layer


@pytest.fixture
def panel(qgis_iface, engine_python, image, monkeypatch, qtbot):
    """The controller with the sample chosen and its whole area asked for."""
    monkeypatch.setenv("GEOALIGN_PYTHON", engine_python)
    qgis_iface.mapCanvas().setExtent(image.extent())
    controller = AskController(qgis_iface)
    qtbot.addWidget(controller.dock)
    qgis_iface.mainWindow().show()
    controller.dock.show()
    controller.dock.set_layer(image)
    controller.dock.set_where("layer")
    yield controller
    controller.close()
    qgis_iface.mainWindow().hide()


def state(panel) -> State:
    return panel._view().state


def ask(panel, qtbot, text: str) -> None:
    panel.dock.set_question(text)
    panel.ask()
    wait(panel, qtbot)


def wait(panel, qtbot) -> None:
    """Wait until nothing runs, agreeing to any cost on the way: a busy machine asks for more."""

    def over() -> bool:
        if panel.runner.waits:
            panel.dock.cardAction.emit("start")
        return panel.runner.search is None

    qtbot.waitUntil(over, timeout=WAIT_MS)


def ask_a_fresh_image(panel, qtbot, path) -> None:
    """Ask a ready engine about an image that it has not read, and return while it works."""
    fresh = QgsRasterLayer(str(path), "fresh")
    QgsProject.instance().addMapLayer(fresh)
    panel.dock.set_layer(fresh)
    panel.client.start()
    qtbot.waitUntil(lambda: panel.client.state == "ready", timeout=WAIT_MS)
    wait(panel, qtbot)
    panel.dock.set_question("trees")
    panel.ask()


def group_of(panel):
    return panel.answers._group


@pytest.mark.engine
def test_a_question_becomes_layers_rows_and_a_count(panel, qtbot):
    ask(panel, qtbot, "trees")
    assert state(panel) is State.RESULTS
    group = group_of(panel)
    names = [child.name() for child in QgsProject.instance().layerTreeRoot().children()]
    assert "trees" in names[0]
    assert names.index(names[0]) < names.index("aerial_2023")
    assert group.heatmap.isValid()
    assert group.regions.isValid()
    matches = panel.answers.matches
    assert len(matches) == group.count(50) == group.regions.featureCount() > 5
    assert all(match.score >= 0.5 for match in matches)
    assert [match.score for match in matches] == sorted((match.score for match in matches), reverse=True)
    assert panel.dock.block.list.model().rowCount() == len(matches)


@pytest.mark.engine
def test_the_threshold_filters_without_the_engine(panel, qtbot):
    ask(panel, qtbot, "trees")
    before = {percent: group_of(panel).count(percent) for percent in (50, 70, 90)}
    panel.client.stop()
    for percent, count in before.items():
        panel.dock.thresholdMoved.emit(percent)
        qtbot.waitUntil(lambda count=count: group_of(panel).regions.featureCount() == count, timeout=2000)
        assert all(match.score >= percent / 100 for match in panel.answers.matches)


@pytest.mark.engine
def test_marks_move_the_heatmap_and_can_be_taken_back(panel, qtbot):
    ask(panel, qtbot, "trees")
    first = group_of(panel).heatmap.source()
    wrong = panel.answers.matches[0]
    panel.dock.resultMarked.emit(wrong.id, "no")
    qtbot.waitUntil(lambda: panel.runner.search is not None, timeout=2000)
    wait(panel, qtbot)
    assert panel.runner.error is None
    heatmap = group_of(panel).heatmap
    assert heatmap.source() != first
    centre = geometry_of(panel.saved.current.exclude[0]).pointOnSurface().asPoint()
    value, known = heatmap.dataProvider().sample(centre, 1)
    assert known
    assert value < 0.5
    assert len(panel.saved.current.exclude) == 1
    panel.dock.undoRequested.emit()
    qtbot.waitUntil(lambda: panel.runner.search is not None, timeout=2000)
    wait(panel, qtbot)
    value, _ = group_of(panel).heatmap.dataProvider().sample(centre, 1)
    assert value > 0.5
    assert not panel.saved.current.exclude


@pytest.mark.engine
def test_a_click_on_the_map_teaches(panel, qtbot, image):
    ask(panel, qtbot, "trees")
    panel.tools.canvas.setDestinationCrs(image.crs())
    place = image.extent().center()
    panel.tools.placeMarked.emit(QgsPointXY(place), "yes")
    qtbot.waitUntil(lambda: panel.runner.search is not None, timeout=2000)
    wait(panel, qtbot)
    value, _ = group_of(panel).heatmap.dataProvider().sample(QgsPointXY(place), 1)
    assert value > 0.5
    assert len(panel.saved.current.include) == 1


@pytest.mark.engine
def test_find_similar_from_a_box(panel, qtbot, image):
    panel.tools.canvas.setDestinationCrs(image.crs())
    box = QgsRectangle(image.extent())
    box.scale(0.03)
    panel.tools.exampleDrawn.emit(QgsGeometry.fromRect(box))
    qtbot.waitUntil(lambda: panel.answers.question is not None and panel.runner.search is None, timeout=WAIT_MS)
    value, _ = group_of(panel).heatmap.dataProvider().sample(box.center(), 1)
    assert value > 0.5
    assert panel.answers.question.text == ""


@pytest.mark.engine
def test_a_project_brings_its_questions_back(panel, qtbot, tmp_path, indexed_sample):
    ask(panel, qtbot, "water")
    panel.dock.thresholdMoved.emit(70)
    count = group_of(panel).count(70)
    project = QgsProject.instance()
    assert project.write(str(tmp_path / "project.qgz"))
    project.clear()
    assert state(panel) is State.NO_LAYER
    assert project.read(str(tmp_path / "project.qgz"))
    assert panel.dock.question() == "water"
    assert panel.answers.question.threshold_pct == 70
    assert len(panel.answers.matches) == count
    assert group_of(panel).heatmap.isValid()
    assert state(panel) is State.RESULTS


@pytest.mark.engine
def test_a_refit_that_is_not_saved_leaves_the_saved_answer_whole(panel, qtbot, tmp_path):
    ask(panel, qtbot, "water")
    project = QgsProject.instance()
    assert project.write(str(tmp_path / "project.qgz"))
    saved = dict(panel.answers.question.files)
    panel.dock.resultMarked.emit(panel.answers.matches[0].id, "yes")
    qtbot.waitUntil(lambda: panel.runner.search is not None, timeout=2000)
    wait(panel, qtbot)
    assert panel.answers.question.files["heatmap"] != saved["heatmap"]
    assert project.read(str(tmp_path / "project.qgz"))
    assert group_of(panel).heatmap.isValid()
    assert panel.answers.matches and not panel.answers.question.include
    panel.dock.resultMarked.emit(panel.answers.matches[0].id, "yes")
    qtbot.waitUntil(lambda: panel.runner.search is not None, timeout=2000)
    wait(panel, qtbot)
    assert project.write()
    assert not Path(saved["heatmap"]).exists()


@pytest.mark.engine
def test_what_is_wrong_comes_last_and_is_not_saved(panel, qtbot, tmp_path):
    ask(panel, qtbot, "trees")
    count = len(panel.answers.matches)
    wrong = panel.answers.matches[0]
    panel.answers.marks.mark(wrong.geometry, "no")
    panel.answers.show_rows()
    model = panel.dock.block.list.model()
    assert "not this" in model.data(model.index(count - 1, 0), Qt.ItemDataRole.DisplayRole).lower()
    panel.answers.export(str(tmp_path / "right.gpkg"))
    assert QgsVectorLayer(str(tmp_path / "right.gpkg"), "right", "ogr").featureCount() == count - 1


@pytest.mark.engine
@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson"])
def test_matches_are_saved_as_files(panel, qtbot, tmp_path, suffix):
    ask(panel, qtbot, "trees")
    panel.dock.thresholdMoved.emit(80)
    panel.answers.export(str(tmp_path / f"out{suffix}"))
    saved = QgsVectorLayer(str(tmp_path / f"out{suffix}"), "saved", "ogr")
    assert saved.featureCount() == len(panel.answers.matches)
    assert {feature["query"] for feature in saved.getFeatures()} == {"trees"}


@pytest.mark.engine
def test_nothing_found_is_a_state_and_the_best_can_be_shown(panel, qtbot):
    ask(panel, qtbot, "swimming pools")
    panel.dock.thresholdMoved.emit(95)
    assert state(panel) is State.EMPTY
    assert panel.answers.question.best_score < 0.95
    panel.dock.cardAction.emit("lower")
    assert panel.answers.question.threshold_pct < 95
    assert panel.answers.matches


@pytest.mark.engine
def test_the_engine_dies_during_a_run_and_the_answer_still_comes(panel, qtbot, sample):
    ask_a_fresh_image(panel, qtbot, sample)
    qtbot.waitUntil(lambda: panel.client.state == "busy", timeout=WAIT_MS)
    os.kill(panel.client.hello["pid"], signal.SIGKILL)
    wait(panel, qtbot)
    assert panel.answers.matches
    assert state(panel) is State.RESULTS


@pytest.mark.engine
def test_the_image_is_removed_during_a_run(panel, qtbot, sample):
    fresh = QgsRasterLayer(str(sample), "fresh")
    QgsProject.instance().addMapLayer(fresh)
    panel.dock.set_layer(fresh)
    panel.dock.set_question("trees")
    panel.ask()
    qtbot.waitUntil(lambda: panel.runner.search is not None, timeout=WAIT_MS)
    QgsProject.instance().removeMapLayer(fresh.id())
    wait(panel, qtbot)
    assert state(panel) is not State.RESULTS


@pytest.mark.engine
def test_a_moved_image_offers_to_repair_its_path(panel, qtbot, sample, tmp_path, monkeypatch):
    layer = QgsRasterLayer(str(sample), "moved")
    QgsProject.instance().addMapLayer(layer)
    panel.dock.set_layer(layer)
    moved = shutil.move(str(sample), str(tmp_path / "elsewhere.tif"))
    panel.refresh()
    assert [action.key for action in panel._view().card.actions] == ["repair_path"]
    monkeypatch.setattr("qgis_plugin.gui.cards.QFileDialog.getOpenFileName", lambda *_: (moved, ""))
    panel.dock.cardAction.emit("repair_path")
    assert state(panel) is not State.NO_LAYER


def test_without_an_engine_the_panel_says_what_to_do(qgis_iface, qtbot, sample_layer, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    controller = AskController(qgis_iface)
    qtbot.addWidget(controller.dock)
    try:
        controller.dock.set_layer(sample_layer)
        controller.refresh()
        view = controller._view()
        assert view.state is State.NO_ENGINE
        assert [action.key for action in view.card.actions] == ["use_existing", "install"]
    finally:
        controller.close()


@pytest.mark.engine
def test_cancelled_in_the_task_bar(panel, qtbot, sample):
    ask_a_fresh_image(panel, qtbot, sample)

    def running() -> bool:
        if panel.runner.waits:
            panel.dock.cardAction.emit("start")
        return bool(QgsApplication.taskManager().activeTasks())

    qtbot.waitUntil(running, timeout=WAIT_MS)
    QgsApplication.taskManager().cancelAll()
    qtbot.waitUntil(lambda: panel.runner.search is None, timeout=WAIT_MS)
    ask(panel, qtbot, "trees")
    assert panel.answers.matches


@pytest.mark.engine
def test_a_choice_made_while_a_cost_is_on_show_ends_the_waiting(panel, qtbot, sample, image, monkeypatch):
    monkeypatch.setattr("qgis_plugin.gui.search.PATIENCE_S", -1)
    fresh = QgsRasterLayer(str(sample), "fresh")
    QgsProject.instance().addMapLayer(fresh)
    panel.dock.set_layer(fresh)
    panel.dock.set_question("trees")
    panel.ask()
    qtbot.waitUntil(lambda: panel.runner.waits, timeout=WAIT_MS)
    assert state(panel) is State.NOT_INDEXED
    panel.dock.set_layer(image)
    panel.dock.layerChanged.emit()
    qtbot.waitUntil(lambda: panel.runner.search is None or panel.runner.search.op == "describe", timeout=5000)
    assert state(panel) is not State.INDEXING


@pytest.mark.engine
def test_answers_are_not_offered_as_images_and_each_image_remembers_its_own(panel, qtbot, image, sample):
    ask(panel, qtbot, "trees")
    offered = [panel.dock.layer_box.layer(row) for row in range(panel.dock.layer_box.count())]
    assert group_of(panel).heatmap not in offered
    other = QgsRasterLayer(str(sample), "other")
    QgsProject.instance().addMapLayer(other)
    panel.dock.set_layer(other)
    panel.dock.layerChanged.emit()
    assert panel.answers.question is None
    panel.dock.set_layer(image)
    panel.dock.layerChanged.emit()
    assert panel.answers.question.text == "trees"
    assert panel.answers.matches


def test_an_area_that_is_missing_is_no_fault_of_the_program(
    qgis_iface, qtbot, sample_layer, engine_python, monkeypatch
):
    monkeypatch.setenv("GEOALIGN_PYTHON", engine_python)
    controller = AskController(qgis_iface)
    qtbot.addWidget(controller.dock)
    try:
        controller.client.start()
        qtbot.waitUntil(lambda: controller.client.state in ("ready", "busy"), timeout=WAIT_MS)
        controller.dock.set_layer(sample_layer)
        controller.dock.set_where("selection")
        controller.dock.set_question("trees")
        controller.ask()
        card = controller._view().card
        assert card.title == "Choose a polygon layer and select the polygons to search in"
        assert not card.actions and not card.details
        controller.dock.set_where("layer")
        controller.dock.areaChanged.emit()
        assert controller.runner.error is None
    finally:
        controller.close()


@pytest.mark.engine
def test_a_layer_of_map_tiles_is_drawn_and_searched(panel, qtbot, image, tmp_path):
    project = QgsProject.instance()
    with serve_tiles(REPO / "samples" / "canal.tif", tmp_path) as source:
        layer = QgsRasterLayer(source, "orthophoto", "wms")
        assert layer.isValid()
        project.addMapLayer(layer)
        canvas = panel.tools.canvas
        canvas.setDestinationCrs(layer.crs())
        canvas.setExtent(QgsCoordinateTransform(image.crs(), layer.crs(), project).transformBoundingBox(image.extent()))
        panel.dock.set_layer(layer)
        panel.dock.set_where("visible")
        ask(panel, qtbot, "trees")
        assert panel.runner.error is None
        assert panel.answers.matches
        assert group_of(panel).heatmap.crs() == layer.crs()
    # The picture stays, so a mark needs no server.
    panel.dock.resultMarked.emit(panel.answers.matches[0].id, "no")
    qtbot.waitUntil(lambda: panel.runner.search is not None, timeout=2000)
    wait(panel, qtbot)
    assert panel.runner.error is None
