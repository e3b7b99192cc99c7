"""The engine for Processing: calls that wait for their answer, in any thread, and end when the user cancels."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from qgis.core import QgsProcessingFeedback
from qgis.PyQt.QtCore import QEventLoop, QTimer

from ..settings import Settings
from ..words import tr
from .client import EngineClient, Request
from .protocol import EngineError, EngineFailure, Progress

POLL_MS = 100

__all__ = ["BlockingEngine", "EngineFailure"]


class BlockingEngine:
    """An engine of its own for the length of a `with` block; started by the first call.

    It must be made, used and left in one thread.

    Attributes:
        client: The client behind it.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._client: EngineClient | None = None

    def __enter__(self) -> BlockingEngine:
        self._client = EngineClient(self._settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.stop()
            client.deleteLater()

    @property
    def client(self) -> EngineClient:
        """The client, inside the `with` block."""
        if self._client is None:
            raise RuntimeError("a BlockingEngine works inside its `with` block only")
        return self._client

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
            raise EngineFailure(EngineError("cancelled", tr("Stopped.")))
        loop = QEventLoop()
        request = self.client.request(op, args)
        call = _Call(request, loop, feedback)
        poll = QTimer()
        poll.timeout.connect(call.poll)
        poll.start(POLL_MS)
        if not call.over:
            # a click while this waits in the main thread must not start anything else
            loop.exec(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
        poll.stop()
        if call.error is not None:
            raise EngineFailure(call.error)
        return call.result or {}


class _Call:
    """Connects one request with a feedback and a waiting loop."""

    def __init__(self, request: Request, loop: QEventLoop, feedback: QgsProcessingFeedback | None) -> None:
        self.result: dict[str, Any] | None = None
        self.error: EngineError | None = None
        self.over = False
        self._request, self._loop, self._feedback = request, loop, feedback
        self._stage, self._cancelled = "", False
        request.progress.connect(self._on_progress)
        request.note.connect(self._on_note)
        request.finished.connect(self._on_finished)
        request.failed.connect(self._on_failed)

    def poll(self) -> None:
        """Pass on that the user has cancelled."""
        if self._feedback is not None and self._feedback.isCanceled() and not self._cancelled and not self.over:
            self._cancelled = True
            self._request.cancel()

    def _on_progress(self, progress: Progress) -> None:
        if self._feedback is None:
            return
        if progress.stage and progress.stage != self._stage:
            self._stage = progress.stage
            self._feedback.pushInfo(progress.stage)
        if progress.fraction is not None:
            self._feedback.setProgress(100 * progress.fraction)

    def _on_note(self, text: str) -> None:
        if self._feedback is not None:
            self._feedback.pushInfo(text)

    def _on_finished(self, result: dict[str, Any]) -> None:
        self.result = result
        self._end()

    def _on_failed(self, error: EngineError) -> None:
        self.error = error
        self._end()

    def _end(self) -> None:
        self.over = True
        self._loop.quit()
