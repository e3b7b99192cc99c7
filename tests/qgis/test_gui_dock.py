"""The panel under keyboard and mouse."""

from __future__ import annotations

import time

import pytest
from qgis.core import QgsProject
from qgis.PyQt.QtCore import QEvent, QPoint, Qt
from qgis.PyQt.QtGui import QColor, QImage, QPalette
from qgis.PyQt.QtWidgets import QAbstractButton, QApplication, QLabel, QStyle, QStyleOptionComboBox, QWidget

from qgis_plugin.engine.protocol import Progress
from qgis_plugin.gui import look, states
from qgis_plugin.gui.delegate import VERDICT_ROLE, button_rects
from qgis_plugin.gui.dock import AskDock
from qgis_plugin.gui.model import Results, Row, SearchOptions, snap_threshold

ROWS = tuple(Row(10 + n, 0.95 - n / 20, f"127,{400 + n} E", "yes" if n == 0 else "") for n in range(6))
HISTOGRAM = tuple(range(40, 0, -1))


@pytest.fixture
def dock(qtbot):
    dock = AskDock()
    qtbot.addWidget(dock)
    dock.resize(340, 640)
    dock.show()
    qtbot.waitExposed(dock)
    return dock


@pytest.fixture
def answered(dock):
    dock.show_results(Results(ROWS, len(ROWS), HISTOGRAM, 55))
    dock.show_view(states.results("Searched"))
    QApplication.processEvents()
    return dock


def heard(signal):
    calls = []
    signal.connect(lambda *args: calls.append(args if len(args) != 1 else args[0]))
    return calls


# Asking


def test_return_asks_and_an_empty_question_does_not(dock, qtbot):
    asked = heard(dock.askRequested)
    dock.show_view(states.ready(("cars",)))
    qtbot.keyClick(dock.question_row.edit, Qt.Key.Key_Return)
    assert not asked
    qtbot.keyClicks(dock.question_row.edit, "  boats ")
    qtbot.keyClick(dock.question_row.edit, Qt.Key.Key_Return)
    assert len(asked) == 1 and dock.question() == "boats"


def test_ask_turns_into_stop_and_escape_stops(dock, qtbot):
    asked, stopped = heard(dock.askRequested), heard(dock.stopRequested)
    dock.set_question("boats")
    dock.show_view(states.indexing(Progress("scoring", 1, 2, None)))
    dock.question_row.button.click()
    dock.progress.stop_button.click()
    qtbot.keyClick(dock.question_row.edit, Qt.Key.Key_Escape)
    qtbot.keyClick(dock.question_row.edit, Qt.Key.Key_Return)
    assert len(stopped) == 3 and not asked
    dock.show_view(states.ready(()))
    qtbot.keyClick(dock.question_row.edit, Qt.Key.Key_Escape)
    assert len(stopped) == 3


def test_typing_is_possible_while_the_image_is_read(dock, qtbot):
    dock.show_view(states.indexing(Progress("embedding", 1, 2, None), ask="ask"))
    asked = heard(dock.askRequested)
    qtbot.keyClicks(dock.question_row.edit, "boats")
    qtbot.keyClick(dock.question_row.edit, Qt.Key.Key_Return)
    assert len(asked) == 1


def test_focus_returns_to_the_question_after_a_run(dock, qtbot):
    dock.activateWindow()
    dock.show_view(states.indexing(Progress("scoring", 1, 2, None)))
    dock.question_row.button.setFocus()
    dock.show_results(Results(ROWS, 6, HISTOGRAM, 55))
    dock.show_view(states.results())
    assert dock.window().focusWidget() is dock.question_row.edit


def test_recent_questions_open_with_alt_down_and_complete(dock, qtbot):
    dock.set_recent(["boats along the canal", "solar panels on roofs", "cars"])
    edit = dock.question_row.edit
    edit.setFocus()
    qtbot.keyClick(edit, Qt.Key.Key_Down, Qt.KeyboardModifier.AltModifier)
    assert edit.completer().popup().isVisible()
    assert edit.completer().completionCount() == 3
    edit.completer().popup().hide()
    edit.completer().setCompletionPrefix("PANELS")
    assert edit.completer().currentCompletion() == "solar panels on roofs"


def test_f1_opens_the_help_from_any_widget(answered, qtbot):
    helped = heard(answered.helpRequested)
    for widget in (answered.question_row.edit, answered.block.list, answered.block.slider, answered.where_box):
        qtbot.keyClick(widget, Qt.Key.Key_F1)
    assert len(helped) == 4


def test_a_long_question_is_shown_from_its_beginning(dock):
    dock.set_question("a very long question " * 9)
    assert dock.question_row.edit.cursorPosition() == 0


# Layer, area, product


def test_the_first_image_is_chosen_by_itself(dock, sample_layer):
    assert dock.layer() == sample_layer
    dock.set_layer(None)
    assert dock.layer() is None and dock.layer_box.currentText() == "Choose an image layer"
    changed = heard(dock.layerChanged)
    dock.set_layer(sample_layer)
    assert not changed
    QgsProject.instance().removeMapLayer(sample_layer.id())
    assert dock.layer() is None


def test_where_and_what_are_silent_when_set_and_heard_when_chosen(dock):
    areas, products = heard(dock.areaChanged), heard(dock.whatChanged)
    for where in ("visible", "layer", "selection", "rectangle"):
        dock.set_where(where)
        assert dock.where() == where
    for what in ("both", "heatmap", "boxes"):
        dock.set_what(what)
        assert dock.what() == what
    assert not areas and not products
    dock.where_box.activated.emit(3)
    dock.what_box.activated.emit(1)
    assert len(areas) == len(products) == 1


def test_find_similar_is_a_toggle_that_escape_leaves(dock, qtbot):
    dock.show_view(states.ready(()))
    toggled, selected = heard(dock.similarToggled), heard(dock.similarFromSelection)
    dock.similar_button.click()
    qtbot.keyClick(dock.question_row.edit, Qt.Key.Key_Escape)
    assert toggled == [True, False] and not dock.similar_button.isChecked()
    dock.set_similar_active(True)
    assert toggled == [True, False]
    dock.similar_button.menu().actions()[1].trigger()
    assert len(selected) == 1


# Threshold


def test_slider_number_and_histogram_stay_in_step(answered, qtbot):
    moved, block = heard(answered.thresholdMoved), answered.block
    block.slider.setValue(14)
    assert (block.spin.value(), block.histogram.threshold()) == (0.7, 70)
    block.spin.setValue(0.33)
    assert (block.slider.value(), block.histogram.threshold(), block.spin.value()) == (7, 35, 0.35)
    qtbot.keyClick(block.histogram, Qt.Key.Key_Right)
    qtbot.keyClick(block.histogram, Qt.Key.Key_End)
    qtbot.keyClick(block.histogram, Qt.Key.Key_PageDown)
    qtbot.keyClick(block.histogram, Qt.Key.Key_Home)
    assert moved == [70, 35, 40, 95, 75, 10]
    answered.set_threshold(60)
    assert (block.slider.value(), block.spin.value(), block.histogram.threshold()) == (12, 0.6, 60)
    assert len(moved) == 6


def test_the_cut_is_dragged_in_the_histogram(answered, qtbot):
    moved, histogram = heard(answered.thresholdMoved), answered.block.histogram
    qtbot.mousePress(histogram, Qt.MouseButton.LeftButton, pos=QPoint(histogram.width() // 2, 20))
    qtbot.mouseRelease(histogram, Qt.MouseButton.LeftButton, pos=QPoint(histogram.width() // 2, 20))
    assert moved == [50]
    qtbot.mouseClick(histogram, Qt.MouseButton.LeftButton, pos=QPoint(histogram.width() - 1, 20))
    assert moved == [50, 95]


def test_bars_above_the_cut_are_in_the_highlight_colour(answered):
    histogram = answered.block.histogram
    histogram.clearFocus()
    image = histogram.grab().toImage()
    highlight = look.readable(histogram.palette().color(QPalette.ColorRole.Highlight), look.scene(histogram)[0], 3.0)
    y = histogram.height() - 7

    def colors(first, last):
        return {image.pixelColor(x, y).name() for x in range(int(image.width() * first), int(image.width() * last))}

    assert highlight.name() in colors(0.7, 0.95) and highlight.name() not in colors(0.05, 0.5)


def test_thresholds_snap_to_the_rungs():
    assert [snap_threshold(p) for p in (-5, 0, 12, 13, 55, 97, 200)] == [10, 10, 10, 15, 55, 95, 95]


def test_histogram_tells_its_value_to_screen_readers(answered):
    answered.set_threshold(10)
    assert "0.10" in answered.block.histogram.accessibleDescription()
    assert "82.0%" not in answered.block.histogram.accessibleDescription()
    answered.show_results(Results((), 0, (6, 0, 0, 2), 50))
    assert "25.0%" in answered.block.histogram.accessibleDescription()


# Matches


def test_count_and_step_buttons(answered):
    steps = heard(answered.stepRequested)
    assert answered.block.count_label.text() == "6 matches"
    answered.block.next_button.click()
    answered.block.previous_button.click()
    assert steps == [1, -1]
    answered.set_rows(ROWS[:1], 1)
    assert answered.block.count_label.text() == "1 match"
    answered.set_rows(ROWS, 1200)
    assert answered.block.count_label.text() == "1,200 matches, best 6 listed"
    answered.set_rows((), 0)
    assert not answered.block.next_button.isEnabled() and not answered.block.list.isVisible()


def test_list_keys_zoom_judge_and_step(answered, qtbot):
    zoomed, marked, steps = (
        heard(s) for s in (answered.resultActivated, answered.resultMarked, answered.stepRequested)
    )
    answered.select_result(11)
    matches = answered.block.list
    for key in ("Return", "Y", "Plus", "X", "Minus", "Delete", "N", "P"):
        qtbot.keyClick(matches, getattr(Qt.Key, f"Key_{key}"))
    assert zoomed == [11]
    assert marked == [(11, "yes"), (11, "yes"), (11, "no"), (11, "no"), (11, "")]
    assert steps == [1, -1]
    qtbot.keyClick(matches, Qt.Key.Key_Down)
    assert answered.block.list.current_id() == 12


def test_row_buttons_judge_without_zooming(answered, qtbot):
    zoomed, marked = heard(answered.resultActivated), heard(answered.resultMarked)
    matches = answered.block.list
    for place, verdict in ((1, "yes"), (1, "no"), (0, "yes")):
        rect = button_rects(matches.visualRect(matches.model().index(place, 0)))[verdict]
        qtbot.mouseClick(matches.viewport(), Qt.MouseButton.LeftButton, pos=rect.center())
    assert marked == [(11, "yes"), (11, "no"), (10, "")]
    assert not zoomed
    row = matches.visualRect(matches.model().index(1, 0))
    qtbot.mouseClick(matches.viewport(), Qt.MouseButton.LeftButton, pos=row.topLeft() + QPoint(20, 20))
    assert zoomed == [11] and answered.block.list.current_id() == 11


def test_no_choice_is_cut_at_the_width_the_panel_opens_with(dock):
    dock.resize(dock.sizeHint())
    QApplication.processEvents()
    for box in (dock.where_box, dock.what_box):
        option = QStyleOptionComboBox()
        box.initStyleOption(option)
        part = QStyle.SubControl.SC_ComboBoxEditField
        field = box.style().subControlRect(QStyle.ComplexControl.CC_ComboBox, option, part, box)
        for index in range(box.count()):
            assert box.fontMetrics().horizontalAdvance(box.itemText(index)) <= field.width() - 2, box.itemText(index)


def test_context_menu_offers_everything(answered):
    got = [heard(s) for s in (answered.resultActivated, answered.resultSimilar, answered.resultMarked)]
    copied = heard(answered.resultCopied)
    menu = answered.block.list.menu(10)
    actions = [action for action in menu.actions() if not action.isSeparator()]
    texts = [action.text().replace("&", "") for action in actions]
    assert texts == ["Zoom to Match", "Find Similar", "Like This", "Not This", "Clear Mark", "Copy Coordinates"]
    for action in actions:
        action.trigger()
    assert got == [[10], [10], [(10, "yes"), (10, "no"), (10, "")]] and copied == [10]


def test_rows_are_words_for_screen_readers(answered):
    first = answered.block.list.model().index(0, 0)
    assert first.data(Qt.ItemDataRole.AccessibleTextRole) == "Match 1: 0.95, 127,400 E, Like this"


def test_selection_and_thumbnails_survive_a_move_of_the_threshold(answered):
    answered.select_result(12)
    image = QImage(48, 48, QImage.Format.Format_RGB32)
    image.fill(QColor("red"))
    answered.set_thumbnail(12, image)
    answered.set_thumbnail(99, image)
    answered.set_rows(tuple(ROWS[:3]), 3)
    matches = answered.block.list
    assert answered.block.list.current_id() == 12
    QApplication.processEvents()
    rect = matches.visualRect(matches.currentIndex())
    shown = matches.viewport().grab().toImage().pixelColor(rect.left() + 20, rect.top() + 25)
    assert shown.name() == "#ff0000"
    answered.set_rows(ROWS[:1], 1)
    assert answered.block.list.current_id() is None


def test_a_new_answer_forgets_old_thumbnails(answered):
    from qgis_plugin.gui.delegate import THUMB_ROLE

    image = QImage(48, 48, QImage.Format.Format_RGB32)
    answered.set_thumbnail(10, image)
    answered.show_results(Results(ROWS, 6, HISTOGRAM, 55))
    assert answered.block.list.model().index(0, 0).data(THUMB_ROLE) is None
    assert answered.block.list.model().index(0, 0).data(VERDICT_ROLE) == "yes"


def test_five_hundred_rows_stay_quick(answered):
    rows = tuple(Row(n, 1 - n / 1000, f"place {n}") for n in range(500))
    start = time.perf_counter()
    for percent in range(10, 100, 5):
        answered.set_threshold(percent)
        answered.set_rows(rows, 500)
        answered.grab()
    assert (time.perf_counter() - start) / 18 < 0.1


def test_examples_and_the_mark_tool(answered, qtbot):
    marks, undone, block = heard(answered.markToggled), heard(answered.undoRequested), answered.block
    assert not block.undo_button.isEnabled()
    answered.set_examples(2, 1, True)
    assert block.examples_label.text() == "2 like this · 1 not this"
    block.undo_button.click()
    block.mark_button.click()
    assert block.hint.isVisible() and marks == [True] and len(undone) == 1
    qtbot.keyClick(block.list, Qt.Key.Key_Escape)
    assert marks == [True, False] and not block.hint.isVisible()


# Options


def test_options_make_a_round_trip(dock, sample_layer, qtbot):
    changed = heard(dock.optionsChanged)
    assert dock.options() == SearchOptions()
    wanted = SearchOptions(0.25, (3, 2, 1), False, ("shadow", "water"), "geoalign-s", "cuda:0", 12.5)
    dock.set_options(wanted)
    assert dock.options() == wanted
    dock.set_choices([{"name": "geoalign-s", "title": "GeoAlign S"}], [{"name": "cpu", "title": "CPU"}])
    assert dock.options() == wanted
    dock.set_options(SearchOptions())
    assert dock.options() == SearchOptions()
    assert not changed


def test_models_of_one_title_are_told_apart(dock, sample_layer):
    names = (("geoalign-s", "GeoAlign S"), ("first", "FarSLIP"), ("second", "FarSLIP"))
    dock.set_choices([{"name": name, "title": title} for name, title in names], [])
    box = dock.search_options.model
    shown = [(box.itemData(index), box.itemText(index)) for index in range(1, box.count())]
    assert shown == [("geoalign-s", "GeoAlign S"), ("first", "FarSLIP · first"), ("second", "FarSLIP · second")]


def test_choosing_one_band_fills_the_others(dock, sample_layer):
    changed = heard(dock.optionsChanged)
    bands = dock.search_options.bands
    bands[0].setBand(3)
    assert dock.options().bands == (3, 2, 3)
    assert len(changed) == 1
    bands[1].setBand(-1)
    assert dock.options().bands is None


def test_options_tell_of_every_change(dock, qtbot):
    changed = heard(dock.optionsChanged)
    box = dock.search_options
    box.setCollapsed(False)
    box.stretch.click()
    box.gsd.setValue(0.5)
    box.area.setValue(20)
    box.avoid.setText("shadow")
    box.avoid.editingFinished.emit()
    box.avoid.editingFinished.emit()
    assert len(changed) == 4


# Access


def focusable(dock):
    inner = ("qt_", "ScrollBar")
    for widget in dock.findChildren(QWidget):
        if widget.focusPolicy() & Qt.FocusPolicy.TabFocus and not widget.objectName().startswith(inner):
            yield widget


def test_every_stop_of_the_tab_key_has_a_name(answered):
    answered.show_view(states.no_engine(240, ""))
    answered.search_options.setCollapsed(False)
    stops = answered.question_row.stops() + answered.block.stops() + answered.search_options.stops()
    stops += [
        answered.layer_box,
        answered.settings_button,
        answered.where_box,
        answered.what_box,
        answered.similar_button,
    ]
    stops += answered.card.stops() + answered.progress.stops()
    for widget in stops:
        name = widget.accessibleName() or (widget.text() if isinstance(widget, QAbstractButton) else "")
        assert name, widget


def test_every_label_with_a_field_has_a_buddy(answered):
    answered.search_options.setCollapsed(False)
    labels = [label for label in answered.search_options.findChildren(QLabel) if label.text()]
    assert len(labels) >= 7 and all(label.buddy() is not None for label in labels)
    assert answered.block.threshold_label.buddy() is answered.block.slider


def test_tab_order_is_the_visual_order(answered):
    edit = answered.question_row.edit
    seen, widget = [], edit
    for _ in range(80):
        widget = widget.nextInFocusChain()
        seen.append(widget)
        if widget is edit:
            break
    wanted = [answered.question_row.button, answered.where_box, answered.what_box, answered.similar_button]
    wanted += [answered.block.previous_button, answered.block.histogram, answered.block.slider, answered.block.list]
    places = [seen.index(widget) for widget in wanted]
    assert places == sorted(places)


# Colours


DARK = {"Window": "#323232", "WindowText": "#aaaaaa", "Base": "#222222", "Text": "#aaaaaa", "Highlight": "#0f6e00"}


def test_a_new_palette_repaints_icons_and_card(answered, qtbot):
    answered.show_view(states.no_layer())
    before = answered.grab().toImage()
    palette = answered.palette()
    for role, color in DARK.items():
        palette.setColor(getattr(QPalette.ColorRole, role), QColor(color))
    answered.setPalette(palette)
    QApplication.processEvents()
    after = answered.grab().toImage()
    assert before != after
    icon = answered.settings_button.icon().pixmap(18, 18).toImage()
    strongest = max((icon.pixelColor(x, y) for x in range(18) for y in range(18)), key=lambda c: c.alpha())
    assert strongest.lightness() > 120


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_reach_the_contrast_of_wcag(theme, answered):
    if theme == "dark":
        palette = answered.palette()
        for role, color in DARK.items():
            palette.setColor(getattr(QPalette.ColorRole, role), QColor(color))
        answered.setPalette(palette)
    ground, text = look.scene(answered.card)
    link = look.readable(answered.card.palette().color(QPalette.ColorRole.Link), look.card_ground(ground, text), 4.5)
    assert look.contrast(text, ground) >= 4.5
    assert look.contrast(text, look.card_ground(ground, text)) >= 4.5
    assert look.contrast(link, look.card_ground(ground, text)) >= 4.5
    highlight = answered.palette().color(QPalette.ColorRole.Highlight)
    assert (
        look.contrast(look.ink(answered.palette().color(QPalette.ColorRole.HighlightedText), highlight), highlight)
        >= 4.5
    )


def test_a_theme_change_reaches_the_dock(dock):
    QApplication.sendEvent(dock, QEvent(QEvent.Type.StyleChange))
    assert not dock.settings_button.icon().isNull()
