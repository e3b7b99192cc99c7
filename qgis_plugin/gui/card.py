"""The card: what is the matter, and what to do next."""

from __future__ import annotations

import re
from html import escape

from qgis.PyQt.QtCore import QRectF, Qt, pyqtSignal
from qgis.PyQt.QtGui import QPainter, QPalette, QPen
from qgis.PyQt.QtWidgets import QHBoxLayout, QLabel, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from ..words import tr
from . import look
from .pieces import RightFlow
from .states import Card

ICON_PX = 24


class CardWidget(QWidget):
    """Paints its own ground and edge: some themes take both away from frames."""

    action = pyqtSignal(str)
    example = pyqtSignal(str)

    def __init__(self) -> None:
        super().__init__()
        self._card: Card | None = None
        self._icon = QLabel()
        self._icon.setFixedSize(ICON_PX, ICON_PX)
        self.title = _label()
        self.title.setFont(look.bold(self.title.font()))
        self.text = _label()
        self.links = _label()
        self.links.setTextFormat(Qt.TextFormat.RichText)
        flags = Qt.TextInteractionFlag.LinksAccessibleByMouse | Qt.TextInteractionFlag.LinksAccessibleByKeyboard
        self.links.setTextInteractionFlags(flags)
        self.links.setAccessibleName(tr("Example questions"))
        self.links.linkActivated.connect(self._on_link)
        self.details = QPlainTextEdit()
        self.details.setReadOnly(True)
        self.details.setTabChangesFocus(True)
        self.details.setMaximumHeight(96)
        self.details.setFont(look.small(self.details.font()))
        self.details.setAccessibleName(tr("Details"))
        self.buttons = [QPushButton(), QPushButton()]
        self._lay_out()
        for button in self.buttons:
            button.setAutoDefault(False)
            button.clicked.connect(lambda _checked=False, button=button: self._on_button(button))
        self.show_card(None)

    def stops(self) -> list[QWidget]:
        """Return the widgets the Tab key visits."""
        return [self.links, self.details, *self.buttons]

    def show_card(self, card: Card | None) -> None:
        """Show a card, or hide."""
        if card == self._card and card is not None:
            return
        self._card = card
        self.setVisible(card is not None)
        if card is None:
            return
        self.title.setText(_breakable(card.title))
        self.text.setText(_breakable(card.text))
        self.text.setVisible(bool(card.text))
        self.links.setVisible(bool(card.links))
        self.details.setPlainText(card.details)
        self.details.hide()
        for button, action in zip(self.buttons, (*card.actions, None, None)):
            button.setVisible(action is not None)
            if action is not None:
                button.setText(action.text)
                button.setProperty("key", action.key)
        self._button_row.setVisible(bool(card.actions))
        self.setAccessibleName(card.title)
        self.setAccessibleDescription(card.text)
        self.repaint_icon()

    def repaint_icon(self) -> None:
        """Draw icon and links in the palette's colours."""
        if self._card is None:
            return
        ground, text = look.scene(self)
        scale = self.devicePixelRatioF()
        self._icon.setPixmap(look.pixmap(self._card.icon, text, ICON_PX, scale))
        link = look.readable(self.palette().color(QPalette.ColorRole.Link), look.card_ground(ground, text), 4.5)
        self.links.setText(self._link_text(link.name()))

    def paintEvent(self, _event: object) -> None:
        """Paint a rounded ground that stands out in every theme."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ground, text = look.scene(self)
        painter.setPen(QPen(look.card_edge(ground, text), 1))
        painter.setBrush(look.card_ground(ground, text))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)

    def _lay_out(self) -> None:
        self._button_row = QWidget()
        flow = RightFlow()
        self._button_row.setLayout(flow)
        for button in self.buttons:
            flow.addWidget(button)
        policy = self._button_row.sizePolicy()
        policy.setHeightForWidth(True)
        self._button_row.setSizePolicy(policy)
        words = QVBoxLayout()
        words.setSpacing(4)
        for widget in (self.title, self.text, self.links, self.details):
            words.addWidget(widget)
        words.addStretch(1)
        top = QHBoxLayout()
        top.setSpacing(10)
        top.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignTop)
        top.addLayout(words, 1)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(10, 10, 10, 10)
        rows.setSpacing(8)
        rows.addLayout(top)
        rows.addWidget(self._button_row)

    def _link_text(self, color: str) -> str:
        links = self._card.links if self._card else ()
        style = f'style="color: {color}"'
        return "<br>".join(f'<a href="{index}" {style}>{escape(text)}</a>' for index, text in enumerate(links))

    def _on_link(self, href: str) -> None:
        self.example.emit(self._card.links[int(href)])

    def _on_button(self, button: QPushButton) -> None:
        key = str(button.property("key"))
        if key == "copy_details":
            self.details.setVisible(bool(self._card.details))
        self.action.emit(key)


def _label() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setMinimumWidth(60)
    label.setIndent(0)
    return label


def _breakable(text: str) -> str:
    """Let long paths break after their separators."""
    return re.sub(r"(?<=\w)([/\\_])", "\\1\u200b", text)
