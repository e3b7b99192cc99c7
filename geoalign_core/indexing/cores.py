"""Who may use the processor's cores while many small matrix products run side by side."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SCAN_THREADS = min(4, os.cpu_count() or 1)
"""Shards scored at the same time; the memory bus is full before more would help."""


class _Limit:
    """A limit that several threads may hold at once: the first sets it, the last lifts it.

    Nested limits of the library restore what each of them found, so two overlapping ones would leave the process
    with one thread for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._limiter: Any = None

    def acquire(self) -> None:
        with self._lock:
            if self._holders == 0:
                self._limiter = _controller().limit(limits=1, user_api="blas")
            self._holders += 1

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._limiter.restore_original_limits()


_LIMIT = _Limit()


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep matrix products from starting threads of their own; 4,000 rows then take 2 ms instead of 20."""
    _LIMIT.acquire()
    try:
        yield
    finally:
        _LIMIT.release()


@functools.cache
def _controller() -> Any:  # noqa: ANN401 - threadpoolctl has no types
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()
