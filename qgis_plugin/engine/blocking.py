"""The engine for Processing: calls that wait for their answer, in any thread, and end when the user cancels."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from qgis.core import QgsProcessingFeedback
from qgis.PyQt.QtCore import QEventLoop, QTimer

from ..settings import Settings
from ..stages import stage_text
from ..words import tr
from .protocol import EngineError, EngineFailure, Progress
from .shared import Errand, shared

POLL_MS = 30

__all__ = ["BlockingEngine", "EngineFailure"]


class BlockingEngine:
    """The engine that all of Processing shares; started by the first call, and warm within the `with` block.

    Args:
        settings: Say which engine; read at every call.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()

    def __enter__(self) -> BlockingEngine:
        shared.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shared.leave(self)

    def call(self, op: str, args: dict[str, Any], feedback: QgsProcessingFeedback | None = None) -> dict[str, Any]:
        """Send a request and wait for its result.

        Args:
            op: The operation.
            args: Its arguments.
            feedback: Is shown stages, notes and the percentage; is asked whether to cancel.

        Raises:
            EngineFailure: The request failed, or was cancelled (code "cancelled").
        """
        if feedback is not None and feedback.isCanceled():
            raise EngineFailure(_stopped())
        loop = QEventLoop()
        call = _Call(shared.submit(self._settings, op, args), loop, feedback)
        poll = QTimer()
        poll.timeout.connect(call.poll)
        poll.start(POLL_MS)
        # a click while this waits in the main thread must not start anything else
        loop.exec(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
        poll.stop()
        if call.error is not None:
            raise EngineFailure(call.error)
        return call.result


class _Call:
    """Passes on what the engine's thread hears, in the thread that waits."""

    def __init__(self, errand: Errand, loop: QEventLoop, feedback: QgsProcessingFeedback | None) -> None:
        self.result: dict[str, Any] = {}
        self.error: EngineError | None = None
        self._errand, self._loop, self._feedback = errand, loop, feedback
        self._stage, self._percent, self._cancelled = "", 0.0, False
        self._advance(0)  # feedbacks in steps hear no percentage twice: the one before ended with 100

    def poll(self) -> None:
        """Look what has come, and pass on that the user has cancelled."""
        if self._feedback is not None and self._feedback.isCanceled() and not self._cancelled:
            self._cancelled = True
            shared.cancel(self._errand)
        if not shared.serves(self._errand):
            self._on_failed(_stopped())
        while not self._errand.heard.empty():
            kind, value = self._errand.heard.get()
            getattr(self, f"_on_{kind}")(value)

    def _on_progress(self, progress: Progress) -> None:
        stage = stage_text(progress.stage)
        if stage and stage != self._stage:
            self._stage = stage
            self._on_note(stage)
        if progress.fraction is not None:
            self._advance(100 * progress.fraction)

    def _advance(self, percent: float) -> None:
        """Each stage counts from 0; the bar only ever grows."""
        self._percent = max(self._percent, percent)
        if self._feedback is not None:
            self._feedback.setProgress(self._percent)

    def _on_note(self, text: str) -> None:
        if self._feedback is not None:
            self._feedback.pushInfo(text)

    def _on_finished(self, result: dict[str, Any]) -> None:
        self._advance(100)
        self.result = result
        self._loop.quit()

    def _on_failed(self, error: EngineError) -> None:
        self.error = error
        self._loop.quit()


def _stopped() -> EngineError:
    return EngineError("cancelled", tr("Stopped."))
