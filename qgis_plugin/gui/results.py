"""The list of matches: model, keyboard, mouse and context menu."""

from __future__ import annotations

from qgis.PyQt.QtCore import QAbstractListModel, QEvent, QModelIndex, QPoint, QSize, Qt, pyqtSignal
from qgis.PyQt.QtGui import QImage, QPixmap
from qgis.PyQt.QtWidgets import QAbstractItemView, QListView, QMenu, QSizePolicy, QToolTip

from ..words import tr
from .delegate import (
    ID_ROLE,
    PLACE_ROLE,
    SCORE_ROLE,
    THUMB_ROLE,
    VERDICT_ROLE,
    MatchDelegate,
    button_rects,
    verdict_text,
)
from .model import Row

VERDICT_KEYS = {
    Qt.Key.Key_Y: "yes",
    Qt.Key.Key_Plus: "yes",
    Qt.Key.Key_X: "no",
    Qt.Key.Key_Minus: "no",
    Qt.Key.Key_Delete: "",
    Qt.Key.Key_Backspace: "",
}
STEP_KEYS = {Qt.Key.Key_N: 1, Qt.Key.Key_P: -1}
ENTER_KEYS = (Qt.Key.Key_Return, Qt.Key.Key_Enter)
LEAST_PX = 92
PLAIN = (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.KeypadModifier)


class MatchModel(QAbstractListModel):
    """Rows with their thumbnails, which arrive later and survive a move of the threshold."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: tuple[Row, ...] = ()
        self._where: dict[int, int] = {}
        self._thumbs: dict[int, QPixmap] = {}

    def set_rows(self, rows: tuple[Row, ...], keep_thumbnails: bool) -> None:
        """Replace all rows."""
        self.beginResetModel()
        self._rows = tuple(rows)
        self._where = {row.id: place for place, row in enumerate(self._rows)}
        if not keep_thumbnails:
            self._thumbs.clear()
        self.endResetModel()

    def set_thumbnail(self, result_id: int, image: QImage) -> None:
        """Keep a thumbnail and repaint its row."""
        self._thumbs[result_id] = QPixmap.fromImage(image)
        index = self.index_of(result_id)
        if index.isValid():
            self.dataChanged.emit(index, index, [THUMB_ROLE])

    def index_of(self, result_id: int | None) -> QModelIndex:
        """Return the index of a match, invalid when it is not listed."""
        place = self._where.get(result_id)
        return QModelIndex() if place is None else self.index(place, 0)

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        """Return the number of rows."""
        return 0 if parent.isValid() else len(self._rows)

    def data(self, index: QModelIndex, role: int = 0):  # noqa: ANN201
        """Return what a role asks for."""
        if not index.isValid() or index.row() >= len(self._rows):
            return None
        row = self._rows[index.row()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.AccessibleTextRole):
            return self._spoken(index.row(), row)
        return {
            ID_ROLE: row.id,
            SCORE_ROLE: row.score,
            VERDICT_ROLE: row.verdict,
            THUMB_ROLE: self._thumbs.get(row.id),
            PLACE_ROLE: row.place,
            Qt.ItemDataRole.ToolTipRole: row.place,
        }.get(role)

    def _spoken(self, place: int, row: Row) -> str:
        text = tr("Match {number}: {score}, {place}").format(
            number=place + 1, score=f"{row.score:.2f}", place=row.place
        )
        return f"{text}, {verdict_text(row.verdict)}" if row.verdict else text


class MatchList(QListView):
    """The matches. Enter zooms, Y and X judge, Delete clears, N and P go on and back."""

    zoomRequested = pyqtSignal(int)
    marked = pyqtSignal(int, str)
    similarRequested = pyqtSignal(int)
    copyRequested = pyqtSignal(int)
    stepRequested = pyqtSignal(int)

    def __init__(self) -> None:
        super().__init__()
        self._model = MatchModel()
        self.setModel(self._model)
        self.setItemDelegate(MatchDelegate(self))
        self.setUniformItemSizes(True)
        self.setMouseTracking(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(LEAST_PX)
        self.setAccessibleName(tr("Matches"))
        self.setAccessibleDescription(
            tr("Enter zooms to a match, Y marks it as right, X as wrong, Delete clears it, N and P go on and back.")
        )

    def set_rows(self, rows: tuple[Row, ...], keep_thumbnails: bool = True) -> None:
        """Replace the rows; the selected match stays selected while it is listed."""
        current = self.current_id()
        at = self.verticalScrollBar().value()
        self._model.set_rows(rows, keep_thumbnails)
        if keep_thumbnails:
            index = self._model.index_of(current)
            if index.isValid():
                self.setCurrentIndex(index)
            self.verticalScrollBar().setValue(at)
        else:
            self.scrollToTop()

    def set_thumbnail(self, result_id: int, image: QImage) -> None:
        """Show a thumbnail."""
        self._model.set_thumbnail(result_id, image)

    def select(self, result_id: int) -> None:
        """Select a match and bring it into view."""
        index = self._model.index_of(result_id)
        if index.isValid():
            self.setCurrentIndex(index)
            self.scrollTo(index)

    def current_id(self) -> int | None:
        """Return the selected match."""
        index = self.currentIndex()
        return index.data(ID_ROLE) if index.isValid() else None

    # Qt

    def event(self, event: QEvent) -> bool:
        """Keep the list's single keys from the shortcuts of the main window."""
        if event.type() == QEvent.Type.ShortcutOverride and self._knows(event):
            event.accept()
            return True
        return super().event(event)

    def sizeHint(self) -> QSize:
        """Ask for little: the list takes what the rest of the panel leaves."""
        return QSize(240, LEAST_PX)

    def keyPressEvent(self, event) -> None:  # noqa: ANN001
        """Judge, zoom and step by keyboard."""
        key, current = event.key(), self.current_id()
        if not self._knows(event):
            super().keyPressEvent(event)
        elif key in STEP_KEYS:
            self.stepRequested.emit(STEP_KEYS[key])
        elif current is None:
            event.ignore()
        elif key in ENTER_KEYS:
            self.zoomRequested.emit(current)
        else:
            self.marked.emit(current, VERDICT_KEYS[key])

    def mousePressEvent(self, event) -> None:  # noqa: ANN001
        """A press on a button of a row is not a selection."""
        if event.button() != Qt.MouseButton.LeftButton or self._button_at(event.pos()) is None:
            super().mousePressEvent(event)

    def mouseReleaseEvent(self, event) -> None:  # noqa: ANN001
        """Judge by a row's buttons; a click elsewhere on the row zooms."""
        if event.button() != Qt.MouseButton.LeftButton:
            super().mouseReleaseEvent(event)
            return
        index, verdict = self.indexAt(event.pos()), self._button_at(event.pos())
        if verdict is not None:
            again = index.data(VERDICT_ROLE) == verdict
            self.marked.emit(index.data(ID_ROLE), "" if again else verdict)
            return
        super().mouseReleaseEvent(event)
        if index.isValid():
            self.zoomRequested.emit(index.data(ID_ROLE))

    def viewportEvent(self, event: QEvent) -> bool:
        """Name the buttons of a row in their tool tips."""
        if event.type() == QEvent.Type.ToolTip:
            verdict = self._button_at(event.pos())
            if verdict is not None:
                texts = {"yes": tr("Like This (Y)"), "no": tr("Not This (X)")}
                QToolTip.showText(event.globalPos(), texts[verdict], self)
                return True
        return super().viewportEvent(event)

    def contextMenuEvent(self, event) -> None:  # noqa: ANN001
        """Offer everything that can be done with a match."""
        index = self.indexAt(event.pos())
        if not index.isValid():
            index = self.currentIndex()
        if index.isValid():
            at = event.globalPos() if self.rect().contains(event.pos()) else self._corner(index)
            self.menu(index.data(ID_ROLE)).exec(at)

    def menu(self, result_id: int) -> QMenu:
        """Make the menu of a match."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction(tr("Zoom to Match"), lambda: self.zoomRequested.emit(result_id))
        menu.addAction(tr("Find Similar"), lambda: self.similarRequested.emit(result_id))
        menu.addSeparator()
        menu.addAction(tr("Like This"), lambda: self.marked.emit(result_id, "yes"))
        menu.addAction(tr("Not This"), lambda: self.marked.emit(result_id, "no"))
        if self._model.index_of(result_id).data(VERDICT_ROLE):
            menu.addAction(tr("Clear Mark"), lambda: self.marked.emit(result_id, ""))
        menu.addSeparator()
        menu.addAction(tr("Copy Coordinates"), lambda: self.copyRequested.emit(result_id))
        return menu

    # Inside

    def _knows(self, event) -> bool:  # noqa: ANN001
        plain = event.modifiers() in PLAIN
        return plain and (event.key() in VERDICT_KEYS or event.key() in STEP_KEYS or event.key() in ENTER_KEYS)

    def _button_at(self, point: QPoint) -> str | None:
        index = self.indexAt(point)
        if not index.isValid():
            return None
        rects = button_rects(self.visualRect(index))
        return next((verdict for verdict, rect in rects.items() if rect.contains(point)), None)

    def _corner(self, index: QModelIndex) -> QPoint:
        return self.viewport().mapToGlobal(self.visualRect(index).center())
