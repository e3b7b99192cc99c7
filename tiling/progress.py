"""Progress and cancellation, the same two objects for every long job."""

from __future__ import annotations

import threading
from typing import Protocol

from tiling.errors import CancelledError


class Progress(Protocol):
    """Called as ``progress(done, total, stage)``; ``stage`` is a short verb phrase such as ``"embedding"``."""

    def __call__(self, done: int, total: int, stage: str, /) -> None:
        """Report that ``done`` of ``total`` units of ``stage`` are finished."""


def silent(done: int, total: int, stage: str, /) -> None:
    """Report nothing: the default of every job."""


class CancelToken:
    """A flag that one thread sets and the working threads look at between windows."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the work to stop at its next safe point."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise if the work was cancelled.

        Raises:
            CancelledError: After :meth:`cancel`.
        """
        if self.cancelled:
            raise CancelledError("stopped", remedy="run the same command again to go on where it stopped")
