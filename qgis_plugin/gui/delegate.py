"""How one match is painted: thumbnail, score, place, verdict, and the two buttons to judge it."""

from __future__ import annotations

from qgis.PyQt.QtCore import QModelIndex, QPoint, QRect, QSize, Qt
from qgis.PyQt.QtGui import QColor, QPainter, QPalette, QPen
from qgis.PyQt.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from ..words import tr
from . import look

THUMB_PX = 48
PAD = 5
BUTTON_PX = 24
ROLE = int(Qt.ItemDataRole.UserRole)
ID_ROLE, SCORE_ROLE, PLACE_ROLE, VERDICT_ROLE, THUMB_ROLE = range(ROLE, ROLE + 5)


def verdict_text(verdict: str) -> str:
    """Return a verdict in words."""
    return {"yes": tr("Like this"), "no": tr("Not this")}.get(verdict, "")


def button_rects(row: QRect) -> dict[str, QRect]:
    """Return where the two buttons of a row are."""
    top = row.top() + PAD
    right = row.right() - PAD
    no = QRect(right - BUTTON_PX, top, BUTTON_PX, BUTTON_PX)
    return {"yes": no.translated(-BUTTON_PX - 4, 0), "no": no}


class MatchDelegate(QStyledItemDelegate):
    """Paints a row from the model's roles; buttons are seen on the selected row and under the pointer."""

    def sizeHint(self, option: QStyleOptionViewItem, _index: QModelIndex) -> QSize:
        """All rows are equally high."""
        return QSize(120, max(THUMB_PX, 2 * option.fontMetrics.height() + 4) + 2 * PAD)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Paint one row."""
        painter.save()
        selected = bool(option.state & QStyle.StateFlag.State_Selected)
        hovered = bool(option.state & QStyle.StateFlag.State_MouseOver)
        palette = option.palette
        group = QPalette.ColorGroup.Active
        ground = palette.color(group, QPalette.ColorRole.Base)
        text = palette.color(group, QPalette.ColorRole.Text)
        if selected:
            ground = palette.color(group, QPalette.ColorRole.Highlight)
            text = look.ink(palette.color(group, QPalette.ColorRole.HighlightedText), ground)
        elif hovered:
            ground = look.mix(ground, text, 0.08)
        painter.fillRect(option.rect, ground)
        thumb = QRect(option.rect.left() + PAD, option.rect.top() + PAD, THUMB_PX, THUMB_PX)
        thumb.moveTop(option.rect.top() + (option.rect.height() - THUMB_PX) // 2)
        self._paint_thumb(painter, thumb, index.data(THUMB_ROLE), look.mix(ground, text, 0.15))
        words = option.rect.adjusted(THUMB_PX + 3 * PAD, PAD, -PAD, -PAD)
        room = words.width()
        if selected or hovered:
            buttons = button_rects(option.rect)
            for verdict, rect in buttons.items():
                self._paint_button(painter, rect, verdict, index.data(VERDICT_ROLE) == verdict, palette)
            room = buttons["yes"].left() - PAD - words.left()
        self._paint_words(painter, words, room, index, option, text, ground)
        painter.restore()

    def _paint_thumb(self, painter: QPainter, rect: QRect, thumb: object, empty: QColor) -> None:
        if thumb is None:
            painter.fillRect(rect, empty)
        else:
            painter.drawPixmap(rect, thumb)

    def _paint_button(self, painter: QPainter, rect: QRect, verdict: str, chosen: bool, palette: QPalette) -> None:
        face = palette.color(QPalette.ColorGroup.Active, QPalette.ColorRole.Button)
        ink = palette.color(QPalette.ColorGroup.Active, QPalette.ColorRole.ButtonText)
        color = look.YES if verdict == "yes" else look.NO
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(color if chosen else look.mix(face, ink, 0.45), 1))
        painter.setBrush(color if chosen else face)
        painter.drawRoundedRect(rect, 4, 4)
        white = QColor(Qt.GlobalColor.white)
        stroke = white if chosen else look.readable(color, face, 3.0)
        self._paint_icon(painter, rect, verdict, stroke, 16)

    def _paint_icon(self, painter: QPainter, rect: QRect, name: str, color: QColor, size: int) -> None:
        corner = QPoint(rect.left() + (rect.width() - size) // 2, rect.top() + (rect.height() - size) // 2)
        scale = painter.device().devicePixelRatioF()
        painter.drawPixmap(corner, look.pixmap(name, color, size, scale))

    def _paint_words(
        self,
        painter: QPainter,
        area: QRect,
        room: int,
        index: QModelIndex,
        option: QStyleOptionViewItem,
        text: QColor,
        ground: QColor,
    ) -> None:
        line = option.fontMetrics.height()
        first = QRect(area.left(), area.top(), room, max(BUTTON_PX, line))
        second = QRect(area.left(), area.bottom() - line, area.width(), line)
        flags = int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft)
        painter.setPen(text)
        painter.setFont(look.bold(option.font))
        score = f"{index.data(SCORE_ROLE):.2f}"
        painter.drawText(first, flags, score)
        used = painter.fontMetrics().horizontalAdvance(score) + 8
        painter.setFont(look.small(option.font))
        verdict = index.data(VERDICT_ROLE)
        if verdict:
            color = look.readable(look.YES if verdict == "yes" else look.NO, ground, 3.0)
            self._paint_icon(painter, QRect(first.left() + used, first.top(), 14, first.height()), verdict, color, 14)
            rest = first.adjusted(used + 18, 0, 0, 0)
            painter.drawText(rest, flags, _fit(painter, verdict_text(verdict), rest.width()))
        painter.setFont(option.font)
        painter.drawText(second, flags, _fit(painter, index.data(PLACE_ROLE), area.width()))


def _fit(painter: QPainter, text: str, width: int) -> str:
    return painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, max(0, width))
