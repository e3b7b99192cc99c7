"""Small widgets that the panel is put together from."""

from __future__ import annotations

from qgis.PyQt.QtCore import QPoint, QRect, QSize, Qt, pyqtSignal
from qgis.PyQt.QtGui import QPainter
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLayout,
    QLayoutItem,
    QProgressBar,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ..words import tr
from . import look
from .states import ProgressView

BUTTON_PX = 28
ICON_PX = 18


class IconButton(QToolButton):
    """A tool button with one of the plugin's drawings in the colour of the text."""

    def __init__(self, drawing: str, name: str) -> None:
        super().__init__()
        self.drawing = drawing
        self.setAccessibleName(name)
        self.setToolTip(name)
        self.setFixedSize(BUTTON_PX, BUTTON_PX)
        self.setIconSize(QSize(ICON_PX, ICON_PX))
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAutoRaise(True)
        self.repaint_icon()

    def repaint_icon(self) -> None:
        """Draw the icon in the palette's colour."""
        self.setIcon(look.icon(self.drawing, look.scene(self)[1], ICON_PX))

    def showEvent(self, event) -> None:  # noqa: ANN001
        """The colours are known once the button has its place."""
        super().showEvent(event)
        self.repaint_icon()


def icon_button(drawing: str, name: str, checkable: bool = False) -> IconButton:
    """Make an icon button whose name is read aloud and shown as its tool tip."""
    button = IconButton(drawing, name)
    button.setCheckable(checkable)
    button.setAutoRaise(not checkable)
    return button


def repaint_icons(root: QWidget) -> None:
    """Draw all icons below a widget again."""
    for widget in root.findChildren(QWidget):
        if hasattr(widget, "repaint_icon"):
            widget.repaint_icon()


class ElidedLabel(QLabel):
    """One quiet line that never widens the panel; what does not fit is in the tool tip."""

    def __init__(self) -> None:
        super().__init__()
        self.setFont(look.small(self.font()))
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setToolTip("")

    def setText(self, text: str) -> None:
        """Show a line; read aloud in full."""
        super().setText(text)
        self.setToolTip(text)

    def minimumSizeHint(self) -> QSize:
        """Be as narrow as the panel likes."""
        return QSize(0, super().minimumSizeHint().height())

    def paintEvent(self, _event: object) -> None:
        """Paint the text with an ellipsis where it ends too soon."""
        painter = QPainter(self)
        area = self.contentsRect()
        if self.frameWidth() > 0:  # style sheets give labels a frame, and framed labels indent their text
            area.setLeft(area.left() + self.fontMetrics().horizontalAdvance("x") // 2)
        text = self.fontMetrics().elidedText(self.text(), Qt.TextElideMode.ElideRight, area.width())
        painter.setPen(look.scene(self)[1])
        painter.drawText(area, int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft), text)


class ElidedCombo(QComboBox):
    """A combo box that ends with an ellipsis where its text does not fit."""

    def paintEvent(self, _event: object) -> None:
        """Paint frame and text as the style does, the text shortened."""
        painter = QStylePainter(self)
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        part = QStyle.SubControl.SC_ComboBoxEditField
        field = self.style().subControlRect(QStyle.ComplexControl.CC_ComboBox, option, part, self)
        room = field.width() - 2
        option.currentText = self.fontMetrics().elidedText(option.currentText, Qt.TextElideMode.ElideRight, room)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)


class ProgressRow(QWidget):
    """A thin bar without text, Stop beside it, and what is going on in a line below."""

    stopRequested = pyqtSignal()

    def __init__(self) -> None:
        super().__init__()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(10)
        self.bar.setAccessibleName(tr("Progress"))
        self.label = QLabel()
        self.label.setFont(look.small(self.label.font()))
        self.label.setWordWrap(True)
        self.label.setTextFormat(Qt.TextFormat.PlainText)
        self.stop_button = icon_button("stop", tr("Stop"))
        self.stop_button.clicked.connect(self.stopRequested)
        line = QHBoxLayout()
        line.setSpacing(6)
        line.addWidget(self.bar, 1)
        line.addWidget(self.stop_button)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addLayout(line)
        rows.addWidget(self.label)
        self.hide()

    def stops(self) -> list[QWidget]:
        """Return the widgets the Tab key visits."""
        return [self.stop_button]

    def show_progress(self, progress: ProgressView | None, can_stop: bool) -> None:
        """Show the bar, or hide the row."""
        self.setVisible(progress is not None)
        if progress is None:
            return
        self.bar.setRange(0, 0 if progress.fraction is None else 1000)
        if progress.fraction is not None:
            self.bar.setValue(round(progress.fraction * 1000))
        self.bar.setAccessibleDescription(progress.text)
        self.label.setText(progress.text)
        self.stop_button.setVisible(can_stop)


class RightFlow(QLayout):
    """Buttons in a line to the right; the ones that do not fit go to the next line."""

    def __init__(self, gap: int = 6) -> None:
        super().__init__()
        self._items: list[QLayoutItem] = []
        self._gap = gap
        self.setContentsMargins(0, 0, 0, 0)

    def addItem(self, item: QLayoutItem) -> None:
        """Take an item."""
        self._items.append(item)

    def count(self) -> int:
        """Return the number of items."""
        return len(self._items)

    def itemAt(self, index: int) -> QLayoutItem | None:
        """Return an item."""
        return self._items[index] if 0 <= index < len(self._items) else None

    def takeAt(self, index: int) -> QLayoutItem | None:
        """Remove an item."""
        return self._items.pop(index) if 0 <= index < len(self._items) else None

    def expandingDirections(self):  # noqa: ANN201
        """Take no more room than needed."""
        return Qt.Orientation(0)

    def hasHeightForWidth(self) -> bool:
        """The narrower, the higher."""
        return True

    def heightForWidth(self, width: int) -> int:
        """Return the height at a width."""
        return sum(height + self._gap for _, _, height in self._lines(width)) - self._gap if self._items else 0

    def sizeHint(self) -> QSize:
        """Return the size of one line."""
        sizes = [item.sizeHint() for item in self._items]
        width = sum(size.width() + self._gap for size in sizes) - self._gap
        return QSize(max(0, width), max((size.height() for size in sizes), default=0))

    def minimumSize(self) -> QSize:
        """Return the size of the widest item."""
        sizes = [item.minimumSize() for item in self._items]
        return QSize(max((s.width() for s in sizes), default=0), max((s.height() for s in sizes), default=0))

    def setGeometry(self, rect: QRect) -> None:
        """Place the items, each line to the right."""
        super().setGeometry(rect)
        top = rect.top()
        for items, width, height in self._lines(rect.width()):
            left = rect.left() + max(0, rect.width() - width)
            for item in items:
                size = item.sizeHint().boundedTo(QSize(rect.width(), height))
                item.setGeometry(QRect(QPoint(left, top), QSize(size.width(), height)))
                left += size.width() + self._gap
            top += height + self._gap

    def _lines(self, width: int) -> list[tuple[list[QLayoutItem], int, int]]:
        lines: list[tuple[list[QLayoutItem], int, int]] = []
        for item in self._items:
            size = item.sizeHint()
            if lines and lines[-1][1] + self._gap + size.width() <= width:
                items, used, height = lines[-1]
                lines[-1] = ([*items, item], used + self._gap + size.width(), max(height, size.height()))
            else:
                lines.append(([item], size.width(), size.height()))
        return lines
