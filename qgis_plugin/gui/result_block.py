"""The result block: count, histogram, threshold, examples, and the list of matches."""

from __future__ import annotations

from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtWidgets import QDoubleSpinBox, QHBoxLayout, QLabel, QSizePolicy, QSlider, QVBoxLayout, QWidget

from ..words import tr
from . import look
from .histogram import Histogram
from .model import THRESHOLD_MAX, THRESHOLD_MIN, THRESHOLD_STEP, Results, Row, snap_threshold
from .pieces import icon_button
from .precision import PrecisionLine
from .results import MatchList
from .states import count_text


class ResultBlock(QWidget):
    """Shows an answer; slider, number, histogram and what the number means always agree."""

    thresholdMoved = pyqtSignal(int)
    markToggled = pyqtSignal(bool)
    undoRequested = pyqtSignal()
    saveRequested = pyqtSignal()
    stepRequested = pyqtSignal(int)

    def __init__(self) -> None:
        super().__init__()
        self._percent = 55
        self._build()
        self._lay_out()
        self._connect()
        self.set_examples(0, 0, can_undo=False)
        self.set_threshold(self._percent)
        self.set_rows((), 0)
        self.hide()

    def stops(self) -> list[QWidget]:
        """Return the widgets the Tab key visits."""
        tools = [self.previous_button, self.next_button, self.save_button]
        return [*tools, self.histogram, self.slider, self.spin, self.undo_button, self.mark_button, self.list]

    def show_results(self, results: Results) -> None:
        """Show a new answer."""
        self.histogram.set_counts(results.histogram)
        self.precision.set_curve(results.curve, results.by_example)
        self.set_threshold(results.threshold_pct)
        self.list.set_rows((), keep_thumbnails=False)
        self.set_rows(results.rows, results.count)

    def set_rows(self, rows: tuple[Row, ...], count: int) -> None:
        """Show the matches at the current threshold."""
        self.list.set_rows(rows)
        self.list.setVisible(bool(rows))
        self._filler.setVisible(not rows)
        if count == 1:
            text = tr("1 match")
        elif len(rows) < count:
            text = tr("{count} matches, best {shown} listed").format(count=count_text(count), shown=len(rows))
        else:
            text = tr("{count} matches").format(count=count_text(count))
        self.count_label.setText(text)
        for button in (self.previous_button, self.next_button, self.save_button):
            button.setEnabled(count > 0)

    def set_threshold(self, percent: int) -> None:
        """Move all three controls without telling anybody."""
        self._percent = snap_threshold(percent)
        for widget, value in ((self.slider, self._percent // THRESHOLD_STEP), (self.spin, self._percent / 100)):
            blocked = widget.blockSignals(True)
            widget.setValue(value)
            widget.blockSignals(blocked)
        self.precision.set_threshold(self._percent)
        self.slider.setAccessibleDescription(f"{self._percent / 100:.2f}. {self.precision.text()}")
        self.histogram.set_threshold(self._percent)

    def set_examples(self, yes: int, no: int, can_undo: bool) -> None:
        """Tell how many examples steer the search."""
        if yes or no:
            text = tr("{yes} like this · {no} not this").format(yes=yes, no=no)
        else:
            text = tr("Mark matches to improve the search")
        self.examples_label.setText(text)
        self.undo_button.setEnabled(can_undo)

    def set_mark_active(self, active: bool) -> None:
        """Show whether clicks on the map mark examples."""
        self.mark_button.setChecked(active)
        self.hint.setVisible(active)

    def _build(self) -> None:
        self.count_label = QLabel()
        self.count_label.setFont(look.bold(self.count_label.font()))
        self.count_label.setWordWrap(True)
        self.previous_button = icon_button("previous", tr("Previous match (P)"))
        self.next_button = icon_button("next", tr("Next match (N)"))
        self.save_button = icon_button("save", tr("Save matches as…"))
        self.histogram = Histogram()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(THRESHOLD_MIN // THRESHOLD_STEP, THRESHOLD_MAX // THRESHOLD_STEP)
        self.slider.setPageStep(4)
        self.slider.setMinimumWidth(40)
        self.slider.setAccessibleName(tr("Minimum match"))
        self.threshold_label = QLabel(tr("Minimum match"))
        self.threshold_label.setBuddy(self.slider)
        self.spin = QDoubleSpinBox()
        self.spin.setRange(THRESHOLD_MIN / 100, THRESHOLD_MAX / 100)
        self.spin.setSingleStep(THRESHOLD_STEP / 100)
        self.spin.setDecimals(2)
        self.spin.setKeyboardTracking(False)
        self.spin.setAccessibleName(tr("Minimum match as a number"))
        self.precision = PrecisionLine()
        self.examples_label = QLabel()
        self.examples_label.setWordWrap(True)
        self.undo_button = icon_button("undo", tr("Undo the last mark"))
        self.mark_button = icon_button("mark", tr("Mark examples on the map"), checkable=True)
        self.hint = QLabel(tr("Click what is right, right-click what is wrong. Esc ends."))
        self.hint.setWordWrap(True)
        self.hint.setFont(look.small(self.hint.font()))
        self.hint.hide()
        self.list = MatchList()
        self.count_label.setBuddy(self.list)
        self.examples_label.setBuddy(self.mark_button)
        self._filler = QWidget()
        self._filler.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)

    def _lay_out(self) -> None:
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(4)
        rows.addLayout(_line(self.count_label, self.previous_button, self.next_button, self.save_button))
        rows.addWidget(self.histogram)
        threshold = _line(self.threshold_label, self.slider, self.spin)
        threshold.setStretch(0, 0)
        threshold.setStretch(1, 1)
        rows.addLayout(threshold)
        rows.addWidget(self.precision)
        rows.addLayout(_line(self.examples_label, self.undo_button, self.mark_button))
        rows.addWidget(self.hint)
        rows.addWidget(self.list, 1)
        rows.addWidget(self._filler, 1)

    def _connect(self) -> None:
        self.slider.valueChanged.connect(lambda value: self._move(value * THRESHOLD_STEP))
        self.spin.valueChanged.connect(lambda value: self._move(value * 100))
        self.histogram.thresholdMoved.connect(self._move)
        self.previous_button.clicked.connect(lambda: self.stepRequested.emit(-1))
        self.next_button.clicked.connect(lambda: self.stepRequested.emit(1))
        self.list.stepRequested.connect(self.stepRequested)
        self.save_button.clicked.connect(lambda: self.saveRequested.emit())
        self.undo_button.clicked.connect(lambda: self.undoRequested.emit())
        self.mark_button.clicked.connect(self._on_mark)

    def _move(self, percent: float) -> None:
        moved = snap_threshold(percent) != self._percent
        self.set_threshold(snap_threshold(percent))
        if moved:
            self.thresholdMoved.emit(self._percent)

    def _on_mark(self, active: bool) -> None:
        self.set_mark_active(active)
        self.markToggled.emit(active)


def _line(*widgets: QWidget, grow: int = 0) -> QHBoxLayout:
    line = QHBoxLayout()
    line.setSpacing(4)
    for place, widget in enumerate(widgets):
        line.addWidget(widget, 1 if place == grow else 0)
    return line
