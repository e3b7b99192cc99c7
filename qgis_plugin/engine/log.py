"""What the engine and its installer say, kept on disk in a bounded size; the last lines also in memory."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from qgis.PyQt.QtCore import QStandardPaths

LOG_BYTES = 1_000_000
TAIL_BYTES = 16_384
TAIL_LINES = 20
KEPT_LOGS = 6
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def cache_folder() -> Path:
    """The plugin's folder in the user's cache: job folders and logs."""
    base = os.environ.get("GEOALIGN_CACHE")
    if not base:
        location = QStandardPaths.StandardLocation.GenericCacheLocation
        base = str(Path(QStandardPaths.writableLocation(location)) / "geoalign")
    return Path(base) / "qgis"


def job_folder() -> Path:
    """The working directory of engines, made when missing."""
    folder = cache_folder() / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def engine_log() -> LogFile:
    """The log of this QGIS's engines; each QGIS has its own, so that two do not cut each other's."""
    folder = cache_folder() / "logs"
    # The folder may be locked; another QGIS may tidy up at the same moment, or have a log open: next time.
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        old = sorted(folder.glob("engine-*.log*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in old[KEPT_LOGS:]:
            path.unlink()
    return LogFile(folder / f"engine-{os.getpid()}.log")


class LogFile:
    """Appends to a file, which is renamed to `.1` when it is full; a full or locked disk disturbs nobody."""

    def __init__(self, path: Path, limit: int = LOG_BYTES) -> None:
        self.path = path
        self._limit = limit
        self._tail = b""

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        try:
            if self.path.exists() and self.path.stat().st_size + len(data) > self._limit:
                os.replace(self.path, f"{self.path}.1")
            with self.path.open("ab") as file:
                file.write(data[-self._limit :])
        except OSError:
            return

    def forget(self) -> None:
        """Start a new tail; the file stays."""
        self._tail = b""

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines written since `forget`."""
        text = ESCAPES.sub("", self._tail.decode("utf-8", "replace"))
        return "\n".join(line.rstrip()[:2000] for line in text.splitlines()[-lines:])
