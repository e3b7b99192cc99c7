"""The question's row: one line to type in, recent questions below it, Ask or Stop beside it."""

from __future__ import annotations

from qgis.gui import QgsFilterLineEdit
from qgis.PyQt.QtCore import QEvent, QStringListModel, Qt, pyqtSignal
from qgis.PyQt.QtWidgets import QCompleter, QHBoxLayout, QPushButton, QWidget

from ..words import tr
from . import look


class QuestionEdit(QgsFilterLineEdit):
    """A line that opens the recent questions on Alt+Down."""

    def __init__(self) -> None:
        super().__init__()
        self.setShowSearchIcon(True)
        self.setShowClearButton(True)
        self.setPlaceholderText(tr("What are you looking for?"))
        self.setAccessibleName(tr("Question"))
        self.setToolTip(tr("Describe what to find, then press Return. Alt+Down shows recent questions."))
        self._recent = QStringListModel()
        completer = QCompleter(self._recent, self)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        completer.popup().setAccessibleName(tr("Recent questions"))
        self.setCompleter(completer)

    def set_recent(self, questions: list[str]) -> None:
        """Offer these questions."""
        self._recent.setStringList(list(questions))

    def show_recent(self) -> None:
        """Open the whole list, whatever is typed."""
        self.completer().setCompletionPrefix("")
        self.completer().complete()

    def set_text(self, text: str) -> None:
        """Show a text from its beginning."""
        self.setText(text)
        self.setCursorPosition(0)

    def repaint_icon(self) -> None:
        """Make the placeholder readable where a theme paints grey on grey."""
        look.clear_placeholder(self)

    def showEvent(self, event) -> None:  # noqa: ANN001
        """The colours are known once the line has its place."""
        super().showEvent(event)
        self.repaint_icon()

    def keyPressEvent(self, event) -> None:  # noqa: ANN001
        """Alt+Down opens the list, everything else is typing."""
        alt = bool(event.modifiers() & Qt.KeyboardModifier.AltModifier)
        if alt and event.key() == Qt.Key.Key_Down:
            self.show_recent()
        else:
            super().keyPressEvent(event)


class QuestionRow(QWidget):
    """The line and its button."""

    askRequested = pyqtSignal()
    stopRequested = pyqtSignal()

    def __init__(self) -> None:
        super().__init__()
        self.edit = QuestionEdit()
        self.edit.returnPressed.connect(self._on_return)
        self.button = QPushButton(tr("Ask"))
        self.button.setAutoDefault(False)
        self.button.clicked.connect(self._on_click)
        self._mode = "ask"
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(self.edit, 1)
        row.addWidget(self.button)
        self._fix_width()

    def stops(self) -> list[QWidget]:
        """Return the widgets the Tab key visits."""
        return [self.edit, self.button]

    def text(self) -> str:
        """Return the question without spaces around it."""
        return self.edit.text().strip()

    def set_text(self, text: str) -> None:
        """Show a question."""
        self.edit.set_text(text)

    def set_recent(self, questions: list[str]) -> None:
        """Offer recent questions."""
        self.edit.set_recent(questions)

    def focus(self) -> None:
        """Put the cursor here."""
        self.edit.setFocus(Qt.FocusReason.OtherFocusReason)

    def show_ask(self, mode: str, enabled: bool) -> None:
        """Show Ask, Stop, or a greyed Ask."""
        self._mode = mode
        self.edit.setEnabled(enabled)
        self.button.setText(tr("Stop") if mode == "stop" else tr("Ask"))
        self.button.setToolTip(tr("Stop (Esc)") if mode == "stop" else tr("Search the image (Return)"))
        self.button.setEnabled(mode != "off")

    def changeEvent(self, event: QEvent) -> None:
        """Keep both words in the button when the font changes."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._fix_width()

    def _fix_width(self) -> None:
        """Ask and Stop have the same width, so that nothing moves."""
        metrics = self.button.fontMetrics()
        self.button.setFixedWidth(max(60, *(metrics.horizontalAdvance(word) + 28 for word in (tr("Ask"), tr("Stop")))))

    def _on_return(self) -> None:
        if self._mode == "ask":
            self._ask()

    def _on_click(self) -> None:
        if self._mode == "stop":
            self.stopRequested.emit()
        else:
            self._ask()

    def _ask(self) -> None:
        if self.text():
            self.askRequested.emit()
        else:
            self.focus()
