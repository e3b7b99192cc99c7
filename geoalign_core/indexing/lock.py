"""One writer per index; readers never ask."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tiling.errors import GeoAlignError
from tiling.files import write_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_NAME = "write.lock"


class IndexBusyError(GeoAlignError):
    """Another process is building the same index."""


@contextlib.contextmanager
def writer_lock(root: Path, *, timeout_s: float) -> Iterator[None]:
    """Hold the index's write lock; the system frees it when the process dies, however it dies.

    Args:
        root: The index's folder, which exists.
        timeout_s: How long to wait for another writer; 0 does not wait.

    Raises:
        IndexBusyError: Another process still holds the lock after ``timeout_s``.
        OutputWriteError: The lock file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(root / LOCK_NAME, thread_local=False)
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout as error:
        raise IndexBusyError(
            "another process is building this index",
            path=root / LOCK_NAME,
            measured=f"waited {timeout_s:g} s",
            remedy="wait until it is finished, then run again",
        ) from error
    except OSError as error:
        raise write_error(root / LOCK_NAME, error) from error
    try:
        yield
    finally:
        lock.release()
