"""One search at a time: what runs, what comes next, how far it is, what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgis.PyQt.QtCore import QObject, pyqtSignal

from ..words import tr

if TYPE_CHECKING:
    from ..engine.protocol import EngineError, Progress
    from .search import Estimate, Search


class Runner(QObject):
    """Runs searches one after another; a new one stops the one before it."""

    changed = pyqtSignal()
    """Something that the panel shows is different now."""
    noted = pyqtSignal(str)
    """A remark of the engine."""
    told = pyqtSignal(str)
    """An answer to what the user did."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.search: Search | None = None
        self.progress: Progress | None = None
        self.estimate: Estimate | None = None
        """What the running search, or the chosen image, would cost: waits for the user's Start."""
        self.error: EngineError | None = None
        self._next: Search | None = None

    @property
    def busy(self) -> bool:
        """Whether something runs that the user waits for."""
        return self.search is not None and self.search.op != "describe" and self.estimate is None

    @property
    def waits(self) -> bool:
        """Whether a search waits for the user's Start."""
        return self.search is not None and self.estimate is not None

    def run(self, search: Search) -> None:
        """Start a search as soon as the one that runs has stopped."""
        search.progress.connect(lambda progress: self._advance(search, progress))
        search.confirm.connect(lambda estimate: self._hesitate(search, estimate))
        search.note.connect(self.noted)
        search.done.connect(lambda _: self._end(search))
        search.failed.connect(lambda error: self._fail(search, error))
        if search.op != "describe":
            self.error = None
        if self.search is None:
            self._start(search)
        else:
            if self._next is not None:
                self._next.cancel()
            self._next = search
            self.search.cancel()
        self.changed.emit()

    def go_on(self) -> None:
        """Let the waiting search begin: the user has agreed to its cost."""
        if self.search is not None and self.estimate is not None:
            self.estimate = None
            self.search.confirmed = True
            self.search.start()
            self.changed.emit()

    def offer(self, estimate: Estimate | None) -> None:
        """Show what reading the chosen image would cost, without anything running."""
        self.estimate = estimate
        self.changed.emit()

    def stop(self) -> None:
        """Stop what runs and what comes next."""
        following, self._next = self._next, None
        if following is not None:
            following.cancel()
        if self.search is not None:
            if self.progress is not None and self.progress.stage == "embedding":
                self.told.emit(tr("Stopped. What has been read is kept, and is not read again."))
            self.search.cancel()

    def stop_looking(self) -> None:
        """Stop what has only looked at a cost so far: another choice has another one."""
        if self.search is not None and not self.search.committed:
            self.stop()
        self.estimate = None

    def stop_layer(self, layer_id: str) -> None:
        """Stop what concerns a layer."""
        if self.search is not None and self.search.plan.layer_id == layer_id:
            self.stop()

    def fail(self, error: EngineError | None) -> None:
        """Show an error, or none."""
        self.error = error
        self.changed.emit()

    def _start(self, search: Search) -> None:
        self.search, self.progress, self.estimate = search, None, None
        search.start()

    def _advance(self, search: Search, progress: Progress) -> None:
        if search is self.search and search.op != "describe":
            self.progress = progress
            self.changed.emit()

    def _hesitate(self, search: Search, estimate: Estimate) -> None:
        if search is self.search:
            self.estimate = estimate
            self.changed.emit()

    def _fail(self, search: Search, error: EngineError) -> None:
        if error.code != "cancelled" and search.op != "describe":
            self.error = error
        self._end(search)

    def _end(self, search: Search) -> None:
        search.deleteLater()
        if search is self.search:
            self.search, self.progress = None, None
            if search.op != "describe":
                self.estimate = None
            following, self._next = self._next, None
            if following is not None:
                self._start(following)
        self.changed.emit()
