"""A limit on the engine's memory that ends the job, not the process, and never the map program beside it."""

from __future__ import annotations

import os
import re
import sys
import threading
from typing import TYPE_CHECKING

from tiling.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_SHARE = 0.8
"""Of the machine's memory."""
_LOOK_S = 0.2
_HARD_BYTES = 2**31
"""The system refuses memory so far above the limit, for what grows faster than the watch looks."""
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_LEAST_BYTES = 2**28


def parse_size(text: str) -> int:
    """Read ``4GB``, ``800 MB`` or a number of bytes.

    Raises:
        UsageError: It is no size, or less than any engine needs.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < _LEAST_BYTES:
        raise UsageError("is not a limit of memory", measured=text, remedy="write it like 4GB, at least 256MB")
    return size


class Watch:
    """Looks at the process's memory a few times a second.

    Args:
        limit_bytes: Resident memory at which the running job is stopped.
    """

    def __init__(self, limit_bytes: int) -> None:
        import psutil

        self.limit_bytes = limit_bytes
        self._process = psutil.Process()

    @classmethod
    def of(cls, text: str | None) -> Watch:
        """Make a watch for a limit as the user writes it; None is four fifths of the machine's memory."""
        import psutil

        if text is None:
            return cls(int(psutil.virtual_memory().total * DEFAULT_SHARE))
        watch = cls(parse_size(text))
        watch.harden()
        return watch

    def harden(self) -> None:
        """Let the system refuse what is far above the limit, where that works.

        Only on Linux, and not with a graphics card: its driver reserves address space by the terabyte.
        """
        if sys.platform != "linux" or os.path.exists("/dev/nvidiactl"):  # noqa: PTH110
            return
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        hard = self.limit_bytes + _HARD_BYTES
        if most == resource.RLIM_INFINITY or hard < most:
            resource.setrlimit(resource.RLIMIT_DATA, (hard, most))

    def exceeded(self) -> bool:
        """Whether the process is above its limit now."""
        return bool(self._process.memory_info().rss > self.limit_bytes)

    def start(self, too_much: Callable[[], None]) -> None:
        """Call ``too_much`` from a thread of its own as long as the process is above its limit."""
        threading.Thread(target=self._look, args=(too_much,), name="geoalign-memory", daemon=True).start()

    def _look(self, too_much: Callable[[], None]) -> None:
        pause = threading.Event()
        while not pause.wait(_LOOK_S):
            if self.exceeded():
                too_much()
