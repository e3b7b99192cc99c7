"""What the minimum match means: the line below the slider, the column of the layers, and the way there."""

from __future__ import annotations

import os
import subprocess

import pytest
from answer_files import write_answer
from qgis.core import QgsProject, QgsRasterLayer, QgsVectorLayer
from qgis.PyQt.QtCore import QEvent, QLocale, QPoint, Qt
from qgis.PyQt.QtGui import QHelpEvent, QPalette
from qgis.PyQt.QtWidgets import QApplication, QToolTip

from qgis_plugin import words
from qgis_plugin.gui import look, states
from qgis_plugin.gui.answers import AnswerView
from qgis_plugin.gui.controller import AskController
from qgis_plugin.gui.dock import AskDock
from qgis_plugin.gui.model import Curve, Results, Row, SearchOptions
from qgis_plugin.layers.export import export_matches
from qgis_plugin.layers.project import Question, load_questions, save_questions
from qgis_plugin.layers.results import AnswerGroup
from tests.qgis.conftest import REPO

SENT = {"scores": [0.0, 0.5, 1.0], "precisions": [0, 0.2, 0.8], "prior": 0.021, "protocol": "p", "data": "DIOR"}
CURVE = Curve.read(SENT)
ROWS = tuple(Row(n, 0.9 - n / 20, f"place {n}") for n in range(5))
HISTOGRAM = tuple(range(40, 0, -1))
WAIT_MS = 200_000


def results(curve: Curve | None = None, *, by_example: bool = False, percent: int = 55) -> Results:
    return Results(ROWS, len(ROWS), HISTOGRAM, percent, curve, by_example)


@pytest.fixture(autouse=True)
def _english_again():
    yield
    words.install_translator("en")
    QLocale.setDefault(QLocale("en"))


def german() -> None:
    words.install_translator("de")
    QLocale.setDefault(QLocale("de"))


def make_dock(qtbot) -> AskDock:
    dock = AskDock()
    qtbot.addWidget(dock)
    dock.resize(340, 640)
    dock.show()
    dock.show_results(results(CURVE))
    dock.show_view(states.results("Searched"))
    QApplication.processEvents()
    return dock


@pytest.fixture
def dock(qtbot):
    return make_dock(qtbot)


# The curve


def test_a_curve_by_hand():
    scores = (-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0)
    assert [CURVE.precision(score) for score in scores] == pytest.approx([0, 0, 0.1, 0.2, 0.5, 0.8, 0.8])
    level = Curve.read({**SENT, "scores": [0.2, 0.4, 0.6], "precisions": [0.3, 0.3, 0.7]})
    assert [level.precision(score) for score in (0.1, 0.3, 0.4, 0.5, 0.6, 0.9)] == pytest.approx(
        [0.3, 0.3, 0.3, 0.5, 0.7, 0.7]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"scores": []}, {"scores": [0, 1]}, {"scores": [0, 0, 1]}, {"scores": [0, 0.6, 0.5]}, {"scores": "abc"},
        {"scores": [0, None, 1]}, {"scores": [0, float("nan"), 1]}, {"precisions": [0, 0.5, 0.4]}, {"prior": 1},
        {"precisions": [0, 0.5, 1.1]}, {"precisions": {"a": 1}}, {"prior": None}, {"prior": "x"}, {"prior": 0},
        {"scores": [0.5], "precisions": [0.5]}, {"prior": float("inf")}, {"scores": [0, 10**400, 1]},
    ],
)  # fmt: skip
def test_what_is_no_curve_counts_as_none(change):
    assert Curve.read({**SENT, **change}) is None


def test_an_engine_may_know_more_or_nothing():
    assert [Curve.read(item) for item in (None, 7, [], "x", {})] == [None] * 5
    assert Curve.read({**SENT, "data": None, "more": 1}) == Curve((0.0, 0.5, 1.0), (0.0, 0.2, 0.8), 0.021, "")


# The line


def test_the_line_follows_slider_number_and_histogram(dock, qtbot):
    block = dock.block
    assert block.precision.text() == "About 26% of places at this limit are right"
    block.slider.setValue(14)
    assert block.precision.text() == "About 44% of places at this limit are right"
    block.spin.setValue(0.2)
    assert block.precision.text() == "About 8.0% of places at this limit are right"
    qtbot.keyClick(block.histogram, Qt.Key.Key_End)
    assert block.precision.text() == "About 74% of places at this limit are right"
    dock.set_threshold(50)
    assert block.precision.text() == "About 20% of places at this limit are right"


def test_the_line_is_told_to_screen_readers(dock):
    block = dock.block
    assert block.precision.accessibleName() == block.precision.text()
    assert "Counted on DIOR, where 2.1%" in block.precision.accessibleDescription()
    dock.set_threshold(75)
    assert block.slider.accessibleDescription() == "0.75. About 50% of places at this limit are right"


def test_without_a_calibration_it_says_so_and_why(dock):
    line = dock.block.precision
    dock.show_results(results())
    assert line.text() == "The match is a rank, not a probability"
    assert "not calibrated" in line.toolTip() and "not calibrated" in line.accessibleDescription()
    dock.show_results(results(by_example=True))
    assert "with examples" in line.toolTip() and "not calibrated" not in line.toolTip()
    dock.show_results(results(CURVE, percent=100))
    assert "Counted on" in line.toolTip()


def test_nothing_moves_whatever_it_says(dock):
    block = dock.block

    def places() -> list[tuple[int, int, int, int]]:
        QApplication.processEvents()
        widgets = (block.slider, block.precision, block.mark_button, block.list)
        return [widget.geometry().getRect() for widget in widgets]

    before = places()
    for shown in (results(), results(by_example=True), results(CURVE, percent=10), results(CURVE, percent=95)):
        dock.show_results(shown)
        assert places() == before
    top, line, examples, rows = before
    assert top[1] + top[3] <= line[1] and line[1] + line[3] <= examples[1] and examples[1] + examples[3] <= rows[1]


def test_it_never_widens_the_panel(qtbot):
    narrow = make_dock(qtbot).block.minimumSizeHint().width()
    german()
    dock = make_dock(qtbot)
    dock.show_results(results(Curve.read({**SENT, "data": "a long name " * 99})))
    assert dock.block.precision.minimumSizeHint().width() == 0 and dock.block.minimumSizeHint().width() <= narrow


def test_german(qtbot):
    german()
    line = make_dock(qtbot).block.precision
    assert line.text() == "An dieser Grenze stimmen etwa 26\u00a0% der Stellen"
    assert "wo 2,1\u00a0% der Stellen das Gesuchte waren" in line.toolTip()


def test_a_name_with_markup_stays_text(dock):
    shown = results(Curve.read({**SENT, "data": '<img src="file:///etc/passwd"> & <b>fat</b>'}))
    dock.show_results(shown)
    line = dock.block.precision
    assert "<img" not in line.toolTip() and "&lt;img" in line.toolTip() and "&amp;" in line.toolTip()
    QApplication.sendEvent(line, QHelpEvent(QEvent.Type.ToolTip, QPoint(5, 5), line.mapToGlobal(QPoint(5, 5))))
    assert QToolTip.text() == line.toolTip()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_painted_in_a_colour_that_can_be_read(dock, theme):
    ground, text = ("#323232", "#aaaaaa") if theme == "dark" else ("#efefef", "#101010")
    palette = dock.palette()
    palette.setColor(QPalette.ColorRole.Window, look.QColor(ground))
    palette.setColor(QPalette.ColorRole.WindowText, look.QColor(text))
    dock.setPalette(palette)
    QApplication.processEvents()
    image = dock.block.precision.grab().toImage()
    colors = [image.pixelColor(x, y) for x in range(image.width()) for y in range(image.height())]
    assert max(look.contrast(color, look.QColor(ground)) for color in colors) >= 4.5


# The layers


@pytest.fixture
def image(sample_layer, tmp_path):
    return sample_layer


def alias(layer: QgsVectorLayer, name: str = "precision") -> str:
    return layer.attributeAlias(layer.fields().lookupField(name))


def test_the_column_has_a_name_in_words_as_soon_as_it_is_there(image, tmp_path):
    group = AnswerGroup.create(QgsProject.instance(), image, "trees", "q1")
    group.show(write_answer(tmp_path / "a", "trees"), "both", 50)
    regions = group.regions
    assert regions.fields().lookupField("precision") < 0
    regions.setFieldAlias(regions.fields().lookupField("score"), "mine")
    group.show(write_answer(tmp_path / "a", "trees-r2", precision=True), "both", 50)
    assert group.regions.id() == regions.id()
    assert (alias(regions), alias(regions, "score")) == ("Expected precision (0–1)", "mine")
    group.show(write_answer(tmp_path / "a", "trees-r3"), "both", 50)
    assert group.regions.isValid() and group.count(50) == group.regions.featureCount()


def test_the_column_is_saved_with_the_matches(image, tmp_path):
    group = AnswerGroup.create(QgsProject.instance(), image, "trees", "q1")
    group.show(write_answer(tmp_path / "a", "trees", precision=True), "both", 50)
    export_matches(group.regions, tmp_path / "out.gpkg", QgsProject.instance().transformContext())
    saved = QgsVectorLayer(f"{tmp_path / 'out.gpkg'}|layername=out", "saved", "ogr")
    assert alias(saved) == "Expected precision (0–1)"
    assert all(0 <= feature["precision"] <= 1 for feature in saved.getFeatures())


# The way there


@pytest.fixture
def view(qgis_iface, qtbot, image, tmp_path):
    dock = AskDock()
    qtbot.addWidget(dock)
    view = AnswerView(qgis_iface, dock, dock)
    yield view
    view.close()


def shown(view: AnswerView, question: Question, layer: QgsRasterLayer, **result: object) -> str:
    view.open(question, layer, "trees")
    view.take(result)
    view.show_rows()
    return view._dock.block.precision.text()


def test_answers_bring_the_curve_and_projects_keep_it(view, image, tmp_path):
    project = QgsProject.instance()
    files = write_answer(tmp_path / "a", "trees")
    asked = Question("q1", "trees", layer_id=image.id())
    assert "About 20%" in shown(view, asked, image, files=files, calibration=SENT)
    save_questions(project, [view.question], "q1")
    (kept,), _ = load_questions(project)
    assert kept.calibration == SENT and Curve.read(kept.calibration) == CURVE
    view.close()
    view.open(kept, image, "trees")
    view.show_rows()
    assert "About 20%" in view._dock.block.precision.text()


@pytest.mark.parametrize("odd", [{}, {"calibration": None}, {"calibration": 7}, {"calibration": {**SENT, "prior": 2}}])
def test_answers_without_one_take_it_away(view, image, tmp_path, odd):
    asked = Question("q1", "trees", layer_id=image.id())
    shown(view, asked, image, files=write_answer(tmp_path / "a", "trees"), calibration=SENT)
    assert "rank" in shown(view, asked, image, **odd)
    assert view.question.calibration is None and "not calibrated" in view._dock.block.precision.toolTip()


def test_examples_are_the_reason_where_there_are_some(view, image, tmp_path):
    place = {"type": "Point", "coordinates": [0.0, 0.0]}
    for question in (Question("q1", "trees", exclude=(place,)), Question("q2", include=(place,))):
        assert "rank" in shown(view, question, image, files=write_answer(tmp_path / question.id, "trees"))
        assert "with examples" in view._dock.block.precision.toolTip()


@pytest.mark.engine
def test_a_calibrated_model_from_question_to_panel(
    qgis_iface, qtbot, engine_python, sample_layer, tmp_path, monkeypatch
):
    model = tmp_path / "tiny"
    made = subprocess.run(
        [engine_python, "-m", "tests.tiny_model", str(model)], cwd=REPO, capture_output=True, text=True, check=False,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    monkeypatch.setenv("GEOALIGN_PYTHON", engine_python)
    panel = AskController(qgis_iface)
    qtbot.addWidget(panel.dock)
    try:
        panel.dock.set_layer(sample_layer)
        panel.dock.set_where("layer")
        panel.dock.set_options(SearchOptions(model=str(model), gsd_m=1.0))
        panel.dock.set_question("trees")
        panel.ask()

        def over() -> bool:
            if panel.runner.waits:
                panel.dock.cardAction.emit("start")
            return panel.runner.search is None

        qtbot.waitUntil(over, timeout=WAIT_MS)
        assert panel.runner.error is None
        known = Curve.read(panel.answers.question.calibration)
        assert known == Curve((0.0, 0.5, 1.0), (0.0, 0.2, 0.8), 0.1, "nothing at all")
        panel.dock.set_threshold(10)
        panel._move_threshold(10)
        line = panel.dock.block.precision
        assert line.text() == "About 4.0% of places at this limit are right"
        matches = panel.answers.matches
        assert matches and alias(panel.answers._group.regions) == "Expected precision (0–1)"
        panel.dock.resultMarked.emit(matches[0].id, "yes")
        qtbot.waitUntil(lambda: panel.runner.search is not None, timeout=5000)
        qtbot.waitUntil(over, timeout=WAIT_MS)
        assert "with examples" in line.toolTip() and panel.answers.question.calibration is None
    finally:
        panel.close()
