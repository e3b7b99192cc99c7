"""The "Ask the Map" panel: two rows, one card, one result block, one footer line. It decides nothing."""

from __future__ import annotations

from qgis.core import QgsMapLayerProxyModel
from qgis.gui import QgsDockWidget, QgsMapLayerComboBox, QgsScrollArea
from qgis.PyQt.QtCore import QEvent, QSize, Qt, pyqtSignal
from qgis.PyQt.QtGui import QImage
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QMenu,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ..words import tr
from .card import CardWidget
from .model import Results, Row, SearchOptions
from .options import OptionsBox
from .pieces import BUTTON_PX, ElidedCombo, ElidedLabel, ProgressRow, icon_button, repaint_icons
from .question import QuestionRow
from .result_block import ResultBlock
from .states import View

MARGIN = 8
GAP = 6
WIDTH, HEIGHT = 340, 640


class AskDock(QgsDockWidget):
    """The panel. Setters are silent; signals tell what the user did."""

    askRequested = pyqtSignal()
    stopRequested = pyqtSignal()
    layerChanged = pyqtSignal()
    areaChanged = pyqtSignal()
    whatChanged = pyqtSignal()
    similarToggled = pyqtSignal(bool)
    similarFromSelection = pyqtSignal()
    markToggled = pyqtSignal(bool)
    cardAction = pyqtSignal(str)
    exampleClicked = pyqtSignal(str)
    thresholdMoved = pyqtSignal(int)
    resultActivated = pyqtSignal(int)
    resultMarked = pyqtSignal(int, str)
    resultSimilar = pyqtSignal(int)
    resultCopied = pyqtSignal(int)
    stepRequested = pyqtSignal(int)
    saveRequested = pyqtSignal()
    undoRequested = pyqtSignal()
    optionsChanged = pyqtSignal()
    engineSettingsRequested = pyqtSignal()
    reportRequested = pyqtSignal()
    helpRequested = pyqtSignal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(tr("Ask the Map"), parent)
        self.setObjectName("GeoAlignAskDock")
        self._ask = "ask"
        self._build_rows()
        self.card = CardWidget()
        self.progress = ProgressRow()
        self.block = ResultBlock()
        self.search_options = OptionsBox()
        self.footer = ElidedLabel()
        self.footer.setObjectName("footer")
        self._lay_out()
        self._connect()
        self._set_tab_order()

    # What the user has chosen

    def question(self) -> str:
        """Return the question without spaces around it."""
        return self.question_row.text()

    def set_question(self, text: str) -> None:
        """Show a question."""
        self.question_row.set_text(text)

    def layer(self):  # noqa: ANN201 - QgsRasterLayer or None
        """Return the chosen raster layer, or None."""
        return self.layer_box.currentLayer()

    def set_layer(self, layer) -> None:  # noqa: ANN001
        """Choose a layer of the project, or None."""
        blocked = self.layer_box.blockSignals(True)
        if layer is None:
            self.layer_box.setCurrentIndex(0)
        else:
            self.layer_box.setLayer(layer)
        self.layer_box.blockSignals(blocked)
        self.search_options.set_layer(self.layer())

    def where(self) -> str:
        """Return "visible", "layer", "selection" or "rectangle"."""
        return self.where_box.currentData()

    def set_where(self, where: str) -> None:
        """Choose the area."""
        self.where_box.setCurrentIndex(max(0, self.where_box.findData(where)))

    def what(self) -> str:
        """Return "both" (heatmap and boxes), "outlines" (heatmap and outlines), "heatmap" or "boxes"."""
        return self.what_box.currentData()

    def set_what(self, what: str) -> None:
        """Choose what is shown on the map."""
        self.what_box.setCurrentIndex(max(0, self.what_box.findData(what)))

    def options(self) -> SearchOptions:
        """Return the search options."""
        return self.search_options.options()

    def set_options(self, options: SearchOptions) -> None:
        """Show search options."""
        self.search_options.set_options(options)

    def set_choices(self, models: list[dict], devices: list[dict]) -> None:
        """Fill the model and device boxes from the engine's answers (`name` and `title` of each)."""
        self.search_options.set_choices(models, devices)

    def set_recent(self, questions: list[str]) -> None:
        """Offer recent questions, the newest first."""
        self.question_row.set_recent(questions)

    # What the panel shows

    def show_view(self, view: View) -> None:
        """Show a state. After a run the focus returns to the question."""
        ran = self._ask == "stop" and view.ask != "stop"
        self._ask = view.ask
        self.question_row.show_ask(view.ask, view.query_enabled)
        self.similar_button.setEnabled(view.query_enabled)
        self.card.show_card(view.card)
        self.progress.show_progress(view.progress, can_stop=view.ask != "off")
        self.block.setVisible(view.results)
        self._filler.setVisible(not view.results)
        self.footer.setText(view.footer)
        if ran and view.query_enabled and self._has_focus():
            self.focus_question()

    def show_results(self, results: Results) -> None:
        """Fill the result block with a new answer."""
        self.block.show_results(results)

    def set_threshold(self, percent: int) -> None:
        """Move slider, number and cut."""
        self.block.set_threshold(percent)

    def set_rows(self, rows: tuple[Row, ...], count: int) -> None:
        """Replace the rows after the threshold moved; thumbnails and the selection stay."""
        self.block.set_rows(rows, count)

    def set_thumbnail(self, result_id: int, image: QImage) -> None:
        """Show the thumbnail of a row."""
        self.block.list.set_thumbnail(result_id, image)

    def select_result(self, result_id: int) -> None:
        """Select a row and scroll to it."""
        self.block.list.select(result_id)

    def set_examples(self, yes: int, no: int, can_undo: bool) -> None:
        """Tell how many examples steer the search."""
        self.block.set_examples(yes, no, can_undo)

    def set_similar_active(self, active: bool) -> None:
        """Show whether the find-similar tool is the map tool."""
        self.similar_button.setChecked(active)

    def set_mark_active(self, active: bool) -> None:
        """Show whether clicks on the map mark examples."""
        self.block.set_mark_active(active)

    def focus_question(self) -> None:
        """Put the cursor into the question."""
        self.question_row.focus()

    # Qt

    def sizeHint(self) -> QSize:
        """Open wide enough for all words."""
        words = sum(_whole_width(box) for box in (self.where_box, self.what_box))
        bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
        return QSize(max(WIDTH, words + self.similar_button.width() + 2 * (GAP + MARGIN) + bar), HEIGHT)

    def event(self, event: QEvent) -> bool:
        """Claim Esc and F1 before the main window's shortcuts get them."""
        if event.type() == QEvent.Type.ShortcutOverride and self._takes(event.key()):
            event.accept()
            return True
        return super().event(event)

    def keyPressEvent(self, event) -> None:  # noqa: ANN001
        """Esc stops a run or leaves the map tool, F1 opens the help."""
        if not self._takes(event.key()):
            super().keyPressEvent(event)
        elif event.key() == Qt.Key.Key_F1:
            self.helpRequested.emit()
        elif self._ask == "stop":
            self.stopRequested.emit()
        else:
            self._leave_tools()

    def changeEvent(self, event: QEvent) -> None:
        """Draw the icons again in the colours of a new theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            repaint_icons(self)

    # Building

    def _build_rows(self) -> None:
        self.layer_box = QgsMapLayerComboBox()
        self.layer_box.setFilters(QgsMapLayerProxyModel.Filter.RasterLayer)
        self.layer_box.setAllowEmptyLayer(True, tr("Choose an image layer"))
        self.layer_box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.layer_box.setAccessibleName(tr("Image layer"))
        self.layer_box.setToolTip(tr("Image layer to search"))
        self.settings_button = icon_button("settings", tr("Engine and help"))
        menu = QMenu(self.settings_button)
        menu.addAction(tr("Engine Settings…"), self.engineSettingsRequested.emit)
        menu.addAction(tr("Copy Report"), self.reportRequested.emit)
        menu.addSeparator()
        menu.addAction(tr("Help"), self.helpRequested.emit)
        self.settings_button.setMenu(menu)
        self.settings_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.question_row = QuestionRow()
        self.where_box = _combo(
            tr("Where to search: the visible map, the whole layer, selected polygons, or a rectangle you draw"),
            ("visible", tr("Visible Map")),
            ("layer", tr("Whole Layer")),
            ("selection", tr("Selection")),
            ("rectangle", tr("Rectangle")),
        )
        self.what_box = _combo(
            tr("What to show on the map"),
            ("both", tr("Heatmap, Boxes")),
            ("outlines", tr("Heatmap, Outlines")),
            ("heatmap", tr("Heatmap")),
            ("boxes", tr("Boxes")),
        )
        self.similar_button = icon_button(
            "similar", tr("Find similar: draw a box around an example on the map"), checkable=True
        )
        menu = QMenu(self.similar_button)
        menu.addAction(tr("Draw a Box on the Map"), self._draw_example)
        menu.addAction(tr("Use Selected Features"), self.similarFromSelection.emit)
        self.similar_button.setMenu(menu)
        self.similar_button.setPopupMode(QToolButton.ToolButtonPopupMode.MenuButtonPopup)
        self.similar_button.setFixedWidth(BUTTON_PX + 12)

    def _lay_out(self) -> None:
        self._filler = QWidget()
        self._filler.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        body = QWidget()
        rows = QVBoxLayout(body)
        rows.setContentsMargins(MARGIN, MARGIN, MARGIN, 4)
        rows.setSpacing(GAP)
        rows.addLayout(_row(self.layer_box, self.settings_button))
        rows.addWidget(self.question_row)
        area = _row(self.where_box, self.what_box, self.similar_button)
        for index, box in enumerate((self.where_box, self.what_box)):
            area.setStretch(index, _whole_width(box))
        rows.addLayout(area)
        rows.addSpacing(2)
        rows.addWidget(self.card)
        rows.addWidget(self.progress)
        rows.addWidget(self.block, 1)
        rows.addWidget(self.search_options)
        rows.addWidget(self._filler, 1)
        scroll = QgsScrollArea()
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidgetResizable(True)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.setWidget(body)
        self.body = body
        frame = QWidget()
        whole = QVBoxLayout(frame)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(0)
        whole.addWidget(scroll, 1)
        whole.addWidget(self.footer)
        self.footer.setContentsMargins(MARGIN, 2, MARGIN, 6)
        self.setWidget(frame)

    def _connect(self) -> None:
        self.layer_box.layerChanged.connect(self._on_layer)
        self.layer_box.model().rowsInserted.connect(self._choose_first)
        self.question_row.askRequested.connect(self.askRequested)
        self.question_row.stopRequested.connect(self.stopRequested)
        self.progress.stopRequested.connect(self.stopRequested)
        self.where_box.activated.connect(lambda _index: self.areaChanged.emit())
        self.what_box.activated.connect(lambda _index: self.whatChanged.emit())
        self.similar_button.clicked.connect(self.similarToggled)
        self.card.action.connect(self.cardAction)
        self.card.example.connect(self.exampleClicked)
        self.search_options.changed.connect(self.optionsChanged)
        block = self.block
        block.thresholdMoved.connect(self.thresholdMoved)
        block.markToggled.connect(self.markToggled)
        block.undoRequested.connect(self.undoRequested)
        block.saveRequested.connect(self.saveRequested)
        block.stepRequested.connect(self.stepRequested)
        block.list.zoomRequested.connect(self.resultActivated)
        block.list.marked.connect(self.resultMarked)
        block.list.similarRequested.connect(self.resultSimilar)
        block.list.copyRequested.connect(self.resultCopied)

    def _set_tab_order(self) -> None:
        order = [self.layer_box, self.settings_button, *self.question_row.stops(), self.where_box, self.what_box]
        order += [self.similar_button, *self.card.stops(), *self.progress.stops(), *self.block.stops()]
        order += self.search_options.stops()
        for first, second in zip(order, order[1:]):
            QWidget.setTabOrder(first, second)

    # Reactions

    def _on_layer(self, layer) -> None:  # noqa: ANN001
        self.search_options.set_layer(layer)
        self.layerChanged.emit()

    def _choose_first(self, *_: object) -> None:
        """Spare the user the choice when the project's first image arrives."""
        if self.layer() is None:
            for index in range(self.layer_box.count()):
                layer = self.layer_box.layer(index)
                if layer is not None:
                    self.layer_box.setLayer(layer)
                    return

    def _draw_example(self) -> None:
        self.similar_button.setChecked(True)
        self.similarToggled.emit(True)

    def _takes(self, key: int) -> bool:
        tools = self.similar_button.isChecked() or self.block.mark_button.isChecked()
        return key == Qt.Key.Key_F1 or (key == Qt.Key.Key_Escape and (self._ask == "stop" or tools))

    def _leave_tools(self) -> None:
        if self.similar_button.isChecked():
            self.similar_button.setChecked(False)
            self.similarToggled.emit(False)
        if self.block.mark_button.isChecked():
            self.block.set_mark_active(False)
            self.markToggled.emit(False)

    def _has_focus(self) -> bool:
        focus = self.window().focusWidget()
        return focus is not None and self.isAncestorOf(focus)


def _combo(name: str, *items: tuple[str, str]) -> ElidedCombo:
    box = ElidedCombo()
    for data, text in items:
        box.addItem(text, data)
    box.setAccessibleName(name)
    box.setToolTip(name)
    box.setMinimumContentsLength(4)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return box


def _whole_width(box: ElidedCombo) -> int:
    """The width at which no entry of a box is cut."""
    option = QStyleOptionComboBox()
    box.initStyleOption(option)
    letters = box.fontMetrics()
    text = max(letters.horizontalAdvance(box.itemText(index)) for index in range(box.count()))
    size = QSize(text + letters.averageCharWidth(), letters.height())
    return box.style().sizeFromContents(QStyle.ContentsType.CT_ComboBox, option, size, box).width()


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setSpacing(GAP)
    for widget in widgets:
        row.addWidget(widget, 0 if isinstance(widget, QToolButton) else 1)
    return row
