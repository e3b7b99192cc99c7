"""Reading ahead: pictures are decoded by a few threads while the model is busy."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from tiling.errors import CancelledError, GeoAlignError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    import numpy as np
    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]
    Load = Callable[[], Picture]

THREADS = max(2, min(8, os.cpu_count() or 2))
WAITING_BYTES = 256 << 20
"""Decoded pictures that wait for the model; each thread may have one more on its way."""
_MOST = 1024


def read_ahead(
    loads: Iterable[Load], *, threads: int = THREADS, waiting_bytes: int = WAITING_BYTES
) -> Generator[Picture | str, None, None]:
    """Call functions in threads and yield what they give, in order.

    Args:
        loads: Each gives a picture.
        threads: At once.
        waiting_bytes: No more is begun while finished pictures take so much.

    Yields:
        The picture, or the reason why it cannot be read. Errors of the program itself are raised.
    """
    shelf = _Shelf(loads, waiting_bytes)
    workers = [threading.Thread(target=shelf.work, name=f"read-{number}", daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    try:
        while (found := shelf.take()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        shelf.close()
        for worker in workers:
            worker.join()


def attempt(load: Load) -> Picture | str:
    """Return the picture, or why it cannot be read."""
    try:
        return load()
    except CancelledError:
        raise
    except (GeoAlignError, OSError, ValueError, MemoryError) as error:
        return str(error) or type(error).__name__


class _Shelf:
    """Finished pictures by number. Work is begun in order, so the one that is wanted next is never held up."""

    def __init__(self, loads: Iterable[Load], waiting_bytes: int) -> None:
        self._source = iter(loads)
        self._limit = waiting_bytes
        self._change = threading.Condition()
        self._found: dict[int, Picture | str | BaseException] = {}
        self._begun = self._taken = self._bytes = 0
        self._ended = False

    def work(self) -> None:
        """Load pictures until there are no more, or nobody wants them."""
        while True:
            with self._change:
                self._change.wait_for(self._may_begin)
                load = None if self._ended else next(self._source, None)
                if load is None:
                    self._ended = True
                    self._change.notify_all()
                    return
                number = self._begun
                self._begun += 1
            found: Picture | str | BaseException
            try:
                found = attempt(load)
            except BaseException as error:  # noqa: BLE001 - raised where the pictures are wanted
                found = error
            with self._change:
                self._found[number] = found
                self._bytes += getattr(found, "nbytes", 0)
                self._change.notify_all()

    def take(self) -> Picture | str | BaseException | None:
        """Return the next in order; None after the last."""
        with self._change:
            self._change.wait_for(lambda: self._taken in self._found or (self._ended and self._taken == self._begun))
            found = self._found.pop(self._taken, None)
            self._taken += found is not None
            self._bytes -= getattr(found, "nbytes", 0)
            self._change.notify_all()
            return found

    def close(self) -> None:
        """Begin nothing more."""
        with self._change:
            self._ended = True
            self._change.notify_all()

    def _may_begin(self) -> bool:
        return self._ended or (self._bytes < self._limit and len(self._found) < _MOST)
