"""The ten states as values, and what the panel makes of each."""

from __future__ import annotations

import pytest
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import QApplication

from qgis_plugin import words
from qgis_plugin.engine.protocol import EngineError, Progress
from qgis_plugin.gui import states
from qgis_plugin.gui.dock import AskDock
from qgis_plugin.gui.model import Results, Row

PROBLEM = EngineError("raster", "The image could not be read", "aerial.tif was moved.", "no such file")
REPAIR = states.Action("repair_path", "Repair Path…")
VIEWS = {
    "no_layer": states.no_layer(),
    "no_engine": states.no_engine(240, "/data/geoalign/engine-0.1.0"),
    "starting": states.starting(),
    "not_indexed": states.not_indexed(1024, 140, 14e6, "Engine: ready"),
    "indexing": states.indexing(Progress("embedding", 380, 1000, 95.0), "Engine: ready"),
    "ready": states.ready(("cars", "boats"), "Engine: ready"),
    "results": states.results("Searched"),
    "empty": states.empty(55, 0.41, "Searched"),
    "error": states.error(PROBLEM, REPAIR, "Engine: ready"),
    "stopped": states.stopped(EngineError("engine_stopped", "Gone", "It most likely ran out of memory.", "signal 9")),
}
KEYS = {
    "no_layer": ["add_layer"],
    "no_engine": ["use_existing", "install"],
    "not_indexed": ["start"],
    "empty": ["lower", "best10"],
    "error": ["copy_details", "repair_path"],
    "stopped": ["copy_details", "restart"],
}


def test_an_engine_that_never_ran_sends_to_the_settings():
    view = states.stopped(EngineError("engine_stopped", "It is no engine.", "Choose another one."), never_ran=True)
    assert view.card.title == "It is no engine"
    assert [action.key for action in view.card.actions] == ["engine_settings", "restart"]


@pytest.fixture
def dock(qtbot):
    dock = AskDock()
    qtbot.addWidget(dock)
    dock.resize(330, 600)
    dock.show()
    return dock


def test_there_are_ten_states():
    assert sorted(view.state.value for view in VIEWS.values()) == sorted(state.value for state in states.State)
    assert len(states.State) == 10


@pytest.mark.parametrize("name", list(VIEWS))
def test_a_state_shows_what_it_says_and_nothing_else(dock, qtbot, name):
    view = VIEWS[name]
    dock.show_view(view)
    assert dock.card.isVisible() == (view.card is not None)
    assert dock.progress.isVisible() == (view.progress is not None)
    assert dock.block.isVisible() == (name in ("results", "empty"))
    assert dock.question_row.edit.isEnabled() == (name not in ("no_layer", "no_engine"))
    off = ("no_layer", "no_engine", "starting", "not_indexed", "stopped")
    assert dock.question_row.button.isEnabled() == (name not in off)
    assert dock.question_row.button.text() == ("Stop" if name == "indexing" else "Ask")
    assert dock.footer.text() == view.footer
    shown = [button for button in dock.card.buttons if button.isVisible()]
    pressed = []
    dock.cardAction.connect(pressed.append)
    for button in shown:
        button.click()
    assert pressed == KEYS.get(name, [])
    assert len(shown) <= 2


def test_nothing_above_the_card_moves_between_states(dock, qtbot):
    places = set()
    for view in VIEWS.values():
        dock.show_view(view)
        QApplication.processEvents()
        rows = (dock.layer_box, dock.settings_button, dock.question_row.edit, dock.question_row.button)
        rows += (dock.where_box, dock.what_box, dock.similar_button)
        places.add(tuple((w.mapTo(dock, w.rect().topLeft()).x(), w.mapTo(dock, w.rect().topLeft()).y()) for w in rows))
    assert len(places) == 1


@pytest.mark.parametrize("name", list(VIEWS))
def test_no_state_is_wider_than_the_dock(dock, name):
    dock.show_results(Results(tuple(Row(i, 0.9, "far away " * 9) for i in range(9)), 9, (5, 4, 3, 2), 55))
    dock.search_options.setCollapsed(False)
    dock.show_view(VIEWS[name])
    QApplication.processEvents()
    assert dock.body.minimumSizeHint().width() <= 300
    assert dock.minimumSizeHint().width() <= 300
    assert dock.minimumSizeHint().height() <= 500


@pytest.fixture
def desktop_font(qgis_app):
    """The offscreen platform has letters a third larger than a desktop."""
    before = QApplication.font()
    font = QApplication.font()
    font.setPointSizeF(9)
    QApplication.setFont(font)
    yield
    QApplication.setFont(before)


def test_words_40_percent_longer_fit_at_300_pixels(qtbot, monkeypatch, desktop_font):
    class Long(dict):
        def get(self, text, _default=None):
            return text + " " + "abcde " * round(len(text) * 0.4 / 6)

    monkeypatch.setattr(words, "_table", Long())
    dock = AskDock()
    qtbot.addWidget(dock)
    dock.resize(300, 500)
    dock.search_options.setCollapsed(False)
    dock.show()
    for view in (states.no_engine(240, "/a/very/long/folder/" + "name/" * 9), states.empty(55, 0.41)):
        dock.show_view(view)
        QApplication.processEvents()
        assert dock.body.minimumSizeHint().width() <= 285  # and a vertical scroll bar beside it
        for button in dock.card.buttons:
            assert button.width() >= button.sizeHint().width()


def test_progress_has_its_words_below_the_bar(dock):
    dock.show_view(VIEWS["indexing"])
    assert not dock.progress.bar.isTextVisible()
    assert dock.progress.label.text() == "Reading the image · 38% · about 2 min left"
    assert dock.progress.bar.value() == 380
    dock.show_view(VIEWS["starting"])
    assert dock.progress.bar.maximum() == 0
    assert not dock.progress.stop_button.isVisible()


def test_example_questions_are_links_and_escaped(dock, qtbot):
    dock.show_view(states.ready(("cars & <b>vans</b>", "boats")))
    assert "&amp;" in dock.card.links.text() and "&lt;b&gt;" in dock.card.links.text()
    with qtbot.waitSignal(dock.exampleClicked) as caught:
        dock.card.links.linkActivated.emit("0")
    assert caught.args == ["cars & <b>vans</b>"]


def test_an_error_message_is_never_read_as_html(dock):
    dock.show_view(states.error(EngineError("x", "<img src=x>", "<a href='y'>z</a>")))
    assert dock.card.title.textFormat() == dock.card.text.textFormat() == Qt.TextFormat.PlainText


def test_details_are_shown_on_demand_and_copied_by_who_knows_what_must_stay_here(dock, qtbot):
    QApplication.clipboard().clear()
    dock.show_view(VIEWS["error"])
    assert not dock.card.details.isVisible()
    with qtbot.waitSignal(dock.cardAction) as asked:
        dock.card.buttons[0].click()
    assert asked.args == ["copy_details"]
    assert dock.card.details.isVisible() and "no such file" in dock.card.details.toPlainText()
    assert QApplication.clipboard().text() == ""


def test_texts_for_amounts():
    assert states.windows_text(1) == "1 tile" and states.windows_text(1024) == "1,024 tiles"
    assert [states.duration_text(s) for s in (0.2, 59, 140, 7200)] == ["1 s", "59 s", "2 min", "2.0 h"]
    assert [states.size_text(b) for b in (10, 14e6, 2.5e9)] == ["1 kB", "14 MB", "2.5 GB"]
    assert states.progress_view(Progress("odd new stage", 0, 0, None)) == states.ProgressView(None, "Odd new stage")


def test_empty_without_any_match_offers_no_button():
    card = states.empty(55, None).card
    assert card.actions == () and "other words" in card.text


def test_a_bad_layer_says_why_and_how_to_mend_it():
    view = states.bad_layer("It has no coordinate system.", states.Action("set_crs", "Set CRS…"))
    assert view.state is states.State.NO_LAYER
    assert view.card.text == "It has no coordinate system."
    assert [action.key for action in view.card.actions] == ["set_crs"]
