"""How well the image matches the question: logarithmic bars, and the cut as a line to drag."""

from __future__ import annotations

import math

from qgis.PyQt.QtCore import QEvent, QPointF, QRectF, QSize, Qt, pyqtSignal
from qgis.PyQt.QtGui import QPainter, QPalette, QPen, QPolygonF
from qgis.PyQt.QtWidgets import QSizePolicy, QToolTip, QWidget

from ..words import tr
from . import look
from .model import THRESHOLD_MAX, THRESHOLD_MIN, THRESHOLD_STEP, snap_threshold
from .states import count_text

HEIGHT_PX = 52
EDGE_PX = 5
KEYS = {
    Qt.Key.Key_Left: -THRESHOLD_STEP,
    Qt.Key.Key_Down: -THRESHOLD_STEP,
    Qt.Key.Key_Right: THRESHOLD_STEP,
    Qt.Key.Key_Up: THRESHOLD_STEP,
    Qt.Key.Key_PageDown: -4 * THRESHOLD_STEP,
    Qt.Key.Key_PageUp: 4 * THRESHOLD_STEP,
    Qt.Key.Key_Home: -100,
    Qt.Key.Key_End: 100,
}


class Histogram(QWidget):
    """Bars of equal width over 0…1; what lies above the cut is in the highlight colour."""

    thresholdMoved = pyqtSignal(int)

    def __init__(self) -> None:
        super().__init__()
        self._counts: tuple[int, ...] = ()
        self._percent = 55
        self.setFixedHeight(HEIGHT_PX)
        self.setMinimumWidth(120)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setAccessibleName(tr("Histogram of matches"))
        self._describe()

    def set_counts(self, counts: tuple[int, ...]) -> None:
        """Show the number of heatmap pixels per bin."""
        self._counts = tuple(counts)
        self._describe()
        self.update()

    def set_threshold(self, percent: int) -> None:
        """Move the cut."""
        self._percent = percent
        self._describe()
        self.update()

    def threshold(self) -> int:
        """Return the cut in percent."""
        return self._percent

    def share_above(self) -> float:
        """Return the share of the pixels that lie at or above the cut."""
        total = sum(self._counts)
        first = math.ceil(self._percent / 100 * len(self._counts) - 1e-9)
        return sum(self._counts[first:]) / total if total else 0.0

    # Qt

    def sizeHint(self) -> QSize:
        """Be as wide as the panel."""
        return QSize(240, HEIGHT_PX)

    def paintEvent(self, _event: object) -> None:
        """Paint bars, base line, cut and focus."""
        painter = QPainter(self)
        ground, text = look.scene(self)
        self._paint_bars(painter, look.mix(ground, text, 0.42), self._bright(ground))
        base = self.height() - 4.5
        painter.setPen(QPen(look.mix(ground, text, 0.5), 1))
        painter.drawLine(QPointF(EDGE_PX, base), QPointF(self.width() - EDGE_PX, base))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        cut = self._x(self._percent / 100)
        painter.setPen(QPen(text, 1.6))
        painter.drawLine(QPointF(cut, 6), QPointF(cut, self.height() - 2))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(text)
        painter.drawPolygon(QPolygonF([QPointF(cut - 5, 1), QPointF(cut + 5, 1), QPointF(cut, 8)]))
        if self.hasFocus():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(self._bright(ground), 1.2, Qt.PenStyle.DotLine))
            painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 3, 3)

    def mousePressEvent(self, event) -> None:  # noqa: ANN001
        """Take hold of the cut."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._drag_to(_x_of(event))

    def mouseMoveEvent(self, event) -> None:  # noqa: ANN001
        """Drag the cut; near it the pointer says so."""
        x = _x_of(event)
        near = abs(x - self._x(self._percent / 100)) <= 6
        self.setCursor(Qt.CursorShape.SplitHCursor if near else Qt.CursorShape.ArrowCursor)
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._drag_to(x)

    def keyPressEvent(self, event) -> None:  # noqa: ANN001
        """Arrow keys move the cut by one step, Page keys by four."""
        step = KEYS.get(event.key())
        if step is None:
            super().keyPressEvent(event)
        else:
            self._move_to(self._percent + step)

    def event(self, event: QEvent) -> bool:
        """Say what a bar means under the pointer."""
        if event.type() == QEvent.Type.ToolTip and self._counts:
            index = self._bin(event.pos().x())
            width = 1 / len(self._counts)
            text = tr("Match {low} to {high}: {count} pixels").format(
                low=f"{index * width:.2f}", high=f"{(index + 1) * width:.2f}", count=count_text(self._counts[index])
            )
            QToolTip.showText(event.globalPos(), text, self)
            return True
        return super().event(event)

    # Inside

    def _bright(self, ground):  # noqa: ANN001, ANN202 - QColor
        highlight = self.palette().color(QPalette.ColorGroup.Active, QPalette.ColorRole.Highlight)
        return look.readable(highlight, ground, 3.0)

    def _paint_bars(self, painter: QPainter, below, above) -> None:  # noqa: ANN001 - QColor
        if not self._counts or not max(self._counts):
            return
        top = math.log1p(max(self._counts))
        room = self.height() - 16
        width = (self.width() - 2 * EDGE_PX) / len(self._counts)
        for index, count in enumerate(self._counts):
            if count <= 0:
                continue
            height = max(1.5, room * math.log1p(count) / top)
            left = EDGE_PX + index * width
            bar = QRectF(left + 0.5, self.height() - 5 - height, max(1.0, width - 1), height)
            painter.fillRect(bar, above if index / len(self._counts) >= self._percent / 100 - 1e-9 else below)

    def _x(self, share: float) -> float:
        return EDGE_PX + share * (self.width() - 2 * EDGE_PX)

    def _bin(self, x: float) -> int:
        share = (x - EDGE_PX) / max(1, self.width() - 2 * EDGE_PX)
        return max(0, min(len(self._counts) - 1, int(share * len(self._counts))))

    def _drag_to(self, x: float) -> None:
        self._move_to(100 * (x - EDGE_PX) / max(1, self.width() - 2 * EDGE_PX))

    def _move_to(self, percent: float) -> None:
        percent = snap_threshold(max(THRESHOLD_MIN, min(THRESHOLD_MAX, percent)))
        if percent != self._percent:
            self.set_threshold(percent)
            self.thresholdMoved.emit(percent)

    def _describe(self) -> None:
        text = tr("Minimum match {limit}, {share} of the image above it").format(
            limit=f"{self._percent / 100:.2f}", share=f"{self.share_above():.1%}"
        )
        self.setAccessibleDescription(text)


def _x_of(event) -> float:  # noqa: ANN001
    """Return the pointer's x; Qt 6 has position(), Qt 5 pos()."""
    return event.position().x() if hasattr(event, "position") else float(event.pos().x())
