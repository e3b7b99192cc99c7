"""The questions of the open project: kept in it, found again when it is opened."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from qgis.core import QgsProject
from qgis.PyQt.QtCore import QObject, pyqtSignal

from ..layers.project import load_questions, save_questions
from ..layers.results import question_of
from ..words import tr

if TYPE_CHECKING:
    from qgis.core import QgsMapLayer

    from ..layers.project import Question


class SavedQuestions(QObject):
    """All questions of the project, the one used last at the end."""

    restored = pyqtSignal(object)
    """The question that was current when the project was saved, or None."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.questions: list[Question] = []
        self.current: Question | None = None
        QgsProject.instance().readProject.connect(self._read)
        QgsProject.instance().cleared.connect(self._forget)
        self._load()

    def close(self) -> None:
        """Let go of the project."""
        project = QgsProject.instance()
        for signal, slot in ((project.readProject, self._read), (project.cleared, self._forget)):
            with contextlib.suppress(TypeError):
                signal.disconnect(slot)

    def keep(self, question: Question) -> None:
        """Add or replace a question and make it the current one."""
        self._put(question)
        self._write()

    def title(self, question: Question) -> str:
        """Name a question: its words, or that it was shown an example."""
        if question.text:
            return question.text
        shown = [old.id for old in self.questions if not old.text]
        number = shown.index(question.id) if question.id in shown else len(shown)
        return tr("like the example") if number == 0 else tr("like example {n}").format(n=number + 1)

    def of_layer(self, layer: QgsMapLayer | None) -> Question | None:
        """Return the question that a layer of the tree answers."""
        wanted = question_of(layer) if layer is not None else None
        return next((question for question in self.questions if wanted and question.id == wanted), None)

    def latest_of(self, layer: QgsMapLayer) -> Question | None:
        """Return the question asked last about an image."""
        return next((question for question in reversed(self.questions) if question.layer_id == layer.id()), None)

    def _put(self, question: Question) -> None:
        """Add or replace a question; it is the latest now."""
        self.questions = [old for old in self.questions if old.id != question.id] + [question]
        self.current = question

    def _load(self) -> None:
        self.questions, current_id = load_questions(QgsProject.instance())
        self.current = next((question for question in self.questions if question.id == current_id), None)

    def _read(self, *_: object) -> None:
        self._load()
        self.restored.emit(self.current)

    def _forget(self) -> None:
        self.questions, self.current = [], None
        self.restored.emit(None)

    def _write(self) -> None:
        save_questions(QgsProject.instance(), self.questions, self.current.id if self.current else "")
