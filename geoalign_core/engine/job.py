"""A job seen by the code that does it: progress, notes, partial results, and the wish to stop."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from tiling.progress import CancelToken

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from geoalign_core.engine.protocol import Failure, Request

    Send: TypeAlias = Callable[[int, str, dict[str, Any]], None]

_LEAST_S = 0.1
"""Progress is told at most this often."""
_MEMORY_S = 8.0
"""Speed is averaged over about so many seconds."""


class Eta:
    """Seconds left, from a speed that is averaged so that it does not jump."""

    def __init__(self) -> None:
        self._stage, self._at, self._done, self._rate = "", 0.0, 0, 0.0

    def left(self, done: int, total: int, stage: str) -> float | None:
        """Take in where the work is and return how long it will still take, None while that is not known."""
        now = time.monotonic()
        if stage != self._stage or done < self._done:
            self._stage, self._at, self._done, self._rate = stage, now, done, 0.0
            return None
        passed = now - self._at
        if done > self._done and passed > 0:
            rate = (done - self._done) / passed
            share = 1.0 if not self._rate else min(1.0, passed / _MEMORY_S)
            self._rate += (rate - self._rate) * share
            self._at, self._done = now, done
        if not self._rate:
            return None
        return round(max(0.0, (total - done) / self._rate - (time.monotonic() - self._at)), 1)


class Job:
    """One queued or running request.

    It ends once: the first of ``result``, ``error`` and a cancellation is sent, whatever comes later is dropped. So a
    client that stops a job has its answer at once, even while the work still unwinds.

    Args:
        request: What was asked.
        send: Takes (id, type, fields) to the client.
        channel: Whose id it is.
    """

    def __init__(self, request: Request, send: Send, channel: str) -> None:
        self.request, self.channel = request, channel
        self.token = CancelToken()
        self.begun = time.monotonic()
        self.send = send
        self._lock = threading.Lock()
        self._ended = False
        self._eta, self._told, self._stage = Eta(), 0.0, ""

    @property
    def ended(self) -> bool:
        """Whether its last message is out."""
        return self._ended

    def progress(self, done: int, total: int, stage: str, /) -> None:
        """Tell where the work is; a :class:`tiling.progress.Progress`."""
        left = self._eta.left(done, total, stage)
        now = time.monotonic()
        if stage == self._stage and done < total and now - self._told < _LEAST_S:
            return
        self._stage, self._told = stage, now
        self._emit("progress", {"stage": stage, "done": int(done), "total": int(total), "eta_s": left})

    def stage(self, name: str) -> None:
        """Tell that a step begins whose length is not known, unless the job was stopped.

        Raises:
            CancelledError: It was.
        """
        self.token.check()
        self.progress(0, 0, name)

    def note(self, text: str) -> None:
        """Tell the user something."""
        self._emit("note", {"text": text})

    def partial(self, result: dict[str, Any]) -> None:
        """Send what is known so far."""
        self._emit("partial", {"result": result})

    def heartbeat(self) -> None:
        """Tell that the job is alive."""
        self._emit("heartbeat", {"seconds": round(time.monotonic() - self.begun, 1)})

    def finish(self, result: dict[str, Any]) -> None:
        """Send the result."""
        self._emit("result", {"result": result}, last=True)

    def fail(self, failure: Failure) -> bool:
        """Send the error and ask the work to stop; return whether the job was not over yet."""
        self.token.cancel()
        return self._emit("error", failure.fields(), last=True)

    def _emit(self, kind: str, fields: dict[str, Any], *, last: bool = False) -> bool:
        with self._lock:
            if self._ended:
                return False
            self.send(self.request.id, kind, fields)
            self._ended = last  # not before: a result that fits in no line leaves room for the error
            return True
