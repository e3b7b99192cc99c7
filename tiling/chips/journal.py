"""What a job has done so far, line by line, so that it can be stopped anywhere and go on where it was."""

from __future__ import annotations

import contextlib
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from tiling.chips.sound import is_inside
from tiling.errors import GeoAlignError, OutputWriteError
from tiling.files import write_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import TextIOWrapper
    from pathlib import Path

JOURNAL, LOCK = "tiles.journal", ".tiles.lock"

Key = tuple[int, int, int]
"""Position of the raster, row and column of the window."""


class FolderBusyError(GeoAlignError):
    """Another process is cutting into the same folder."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The outcome of one window."""

    valid_fraction: float
    path: str = ""
    """Relative to the folder; empty when the tile was left out."""
    size_bytes: int = 0
    crc32: int = 0

    def is_there(self, folder: Path) -> bool:
        """Whether the file is as it was written."""
        if not self.path:
            return True
        try:
            data = (folder / self.path).read_bytes()
        except OSError:
            return False
        return len(data) == self.size_bytes and zlib.crc32(data) == self.crc32


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which the system frees when the process dies, however it dies.

    Raises:
        FolderBusyError: Another process holds it.
        OutputWriteError: The folder or the lock cannot be made.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, thread_local=False)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FolderBusyError(
            "another process is cutting into this folder",
            path=folder,
            remedy="wait until it is finished, or choose another folder",
        ) from error
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        yield
    finally:
        lock.release()


class Journal:
    """The open journal of a job: its first line tells the job, each further line one window."""

    def __init__(self, path: Path, stream: TextIOWrapper) -> None:
        self.path = path
        self._stream = stream

    @classmethod
    def begin(cls, folder: Path, facts: dict[str, Any], done: dict[Key, Entry]) -> Self:
        """Start a journal anew with what is known to be done.

        Raises:
            OutputWriteError: The disk refuses.
        """
        path = folder / JOURNAL
        fresh = folder / f".{JOURNAL}.tmp"
        try:
            # A link of that name would lead the writing elsewhere.
            fresh.unlink(missing_ok=True)
            with fresh.open("w", encoding="utf-8") as stream:
                stream.write(json.dumps(facts) + "\n")
                stream.writelines(_line(key, entry) for key, entry in done.items())
            fresh.replace(path)
            return cls(path, path.open("a", encoding="utf-8"))
        except OSError as error:
            raise write_error(path, error) from error

    def add(self, key: Key, entry: Entry) -> None:
        """Note one window; on the disk as soon as the system likes, for a lost line only costs a tile cut again."""
        try:
            self._stream.write(_line(key, entry))
            self._stream.flush()
        except OSError as error:
            raise write_error(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        # On a full disk the last line may not fit; it is then cut again.
        with contextlib.suppress(OSError):
            self._stream.close()

    def remove(self) -> None:
        """Close and delete: the job is finished."""
        self.close()
        self.path.unlink(missing_ok=True)


def _line(key: Key, entry: Entry) -> str:
    return json.dumps([*key, entry.valid_fraction, entry.path, entry.size_bytes, entry.crc32]) + "\n"


def read_journal(folder: Path) -> tuple[dict[str, Any], dict[Key, Entry]] | None:
    """Return the job and what it had done, or None when no job was stopped here.

    A line that was cut off by a kill, or is damaged, ends the reading: what it and the rest told is cut again.

    Raises:
        OutputWriteError: The file is not a journal, or cannot be read.
    """
    path = folder / JOURNAL
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            facts = _facts(stream.readline())
            if facts is None:
                raise OutputWriteError(
                    "is not a journal of tiles", path=path, remedy="move it away, or add --overwrite to begin anew"
                )
            return facts, dict(_entries(stream))
    except OSError as error:
        raise write_error(path, error) from error


def _facts(line: str) -> dict[str, Any] | None:
    """Return the job that a first line tells, or None when it tells none."""
    with contextlib.suppress(ValueError, RecursionError):
        facts = json.loads(line)
        if isinstance(facts, dict) and isinstance(facts.get("spec"), dict):
            return facts
    return None


def _entries(lines: Iterable[str]) -> Iterator[tuple[Key, Entry]]:
    # A damaged line fails to decode, to unpack, or to be what was written.
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        for line in lines:
            source, row, col, valid, name, size, crc = json.loads(line)
            counts = source, row, col, size, crc
            is_sound = all(type(number) is int and number >= 0 for number in counts) and 0 <= valid <= 1
            if not is_sound or type(valid) is bool or not (name == "" or is_inside(name)):
                return
            yield (source, row, col), Entry(valid, name, size, crc)
