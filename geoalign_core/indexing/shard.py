"""One shard on disk: the rows of a super-block of 4 × 4 windows, in a folder that appears whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from geoalign_core.errors import IndexCorruptError
from geoalign_core.indexing.sealed import seal, unseal
from tiling.files import atomic_folder, fsync_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SCHEMA = 1
"""Version of the layout on disk; another number means another folder."""
SHARD_WINDOWS = 4
"""Side of a super-block in windows."""
SHARD_FILE = "shard.json"
TABLE_FILE = "rows.parquet"
TEMPORARY_PREFIX = ".shard-"
_HEAD_BYTES = 512
_ATTEMPTS = 10
_PATIENCE_S = 0.005
_T = TypeVar("_T")
_NAME = re.compile(r"L(\d+)-r(\d+)-c(\d+)")
_REMEDY = "build the index again: only damaged shards are made anew"


@dataclass(frozen=True, slots=True, order=True)
class ShardId:
    """Which super-block of which level."""

    level: int
    row: int
    col: int

    @property
    def name(self) -> str:
        """Folder name, ``L0-r0003-c0004``."""
        return f"L{self.level}-r{self.row:04d}-c{self.col:04d}"

    @classmethod
    def parse(cls, name: str) -> ShardId | None:
        """Read a folder name; None when it is not a shard's."""
        match = _NAME.fullmatch(name)
        return None if match is None else cls(*(int(part) for part in match.groups()))


@dataclass(frozen=True, slots=True)
class ShardShape:
    """The sizes that every shard of one level shares."""

    rows_per_window: int
    channels: int
    window_channels: int

    def arrays(self, windows: int) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Return dtype and shape of every ``.npy`` file of a shard with so many embedded windows."""
        rows = windows * self.rows_per_window
        return {
            "rows.npy": (np.dtype(np.int8), (rows, self.channels)),
            "scale.npy": (np.dtype(np.float32), (rows,)),
            "inv_norm.npy": (np.dtype(np.float32), (rows,)),
            "valid.npy": (np.dtype(np.uint8), (rows,)),
            "windows.npy": (np.dtype(np.float32), (windows, self.window_channels)),
        }


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a shard."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """What ``shard.json`` says."""

    id: ShardId
    positions: tuple[int, ...]
    """The embedded windows as positions in the super-block (row · 4 + col), ascending. Others have no valid pixel."""
    shape: ShardShape
    files: tuple[FileEntry, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.positions) * self.shape.rows_per_window

    def windows(self) -> list[tuple[int, int]]:
        """Return (row, col) in the level's grid of every embedded window, in the order of the rows."""
        top, left = self.id.row * SHARD_WINDOWS, self.id.col * SHARD_WINDOWS
        return [(top + at // SHARD_WINDOWS, left + at % SHARD_WINDOWS) for at in self.positions]

    def to_dict(self, spec_key: str) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "schema": SCHEMA,
            "spec": spec_key,
            "shard": self.id.name,
            "positions": list(self.positions),
            "rows_per_window": self.shape.rows_per_window,
            "channels": self.shape.channels,
            "window_channels": self.shape.window_channels,
            "files": {file.name: {"bytes": file.size_bytes, "sha256": file.sha256} for file in self.files},
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], spec_key: str) -> ShardEntry:
        """Read the JSON form.

        Raises:
            KeyError, TypeError, ValueError: It is not one, or belongs to another index.
        """
        shard_id = ShardId.parse(data["shard"])
        if data["schema"] != SCHEMA or data["spec"] != spec_key or shard_id is None:
            raise ValueError("belongs to another index")
        shape = ShardShape(data["rows_per_window"], data["channels"], data["window_channels"])
        files = tuple(FileEntry(name, item["bytes"], item["sha256"]) for name, item in data["files"].items())
        return cls(shard_id, tuple(data["positions"]), shape, files)


@dataclass(frozen=True, slots=True)
class ShardArrays:
    """A shard's arrays, memory-mapped and read-only. R rows of W windows."""

    entry: ShardEntry
    values: NDArray[np.int8]
    """(R, C)"""
    scales: NDArray[np.float32]
    """(R,)"""
    inv_norms: NDArray[np.float32]
    """(R,)"""
    valid: NDArray[np.uint8]
    """(R,) share of valid pixels, 0..255."""
    windows: NDArray[np.float32]
    """(W, C_w)"""


@dataclass(frozen=True, slots=True)
class ShardContent:
    """What :func:`write_shard` puts into a shard."""

    arrays: dict[str, NDArray[Any]]
    """By file name, as :meth:`ShardShape.arrays` wants them."""
    table: bytes
    """The Parquet file with one line per embedded window."""


def write_shard(folder: Path, shard_id: ShardId, positions: tuple[int, ...], shape: ShardShape,
                content: ShardContent, spec_key: str) -> ShardEntry:  # fmt: skip
    """Write a shard under a temporary name, flush it, and swap it in by one rename.

    Args:
        folder: The index's ``shards`` folder.
        shard_id: Which super-block.
        positions: The embedded windows (see :class:`ShardEntry`).
        shape: Sizes of the level's shards.
        content: The arrays and the table.
        spec_key: Key of the index.

    Raises:
        OutputWriteError: The disk is full or refuses; nothing is left behind.
    """
    with atomic_folder(folder, prefix=TEMPORARY_PREFIX) as temporary:
        fresh = temporary / shard_id.name
        fresh.mkdir()
        files = [_write_array(fresh / name, content.arrays[name]) for name in shape.arrays(len(positions))]
        files.append(_write_bytes(fresh / TABLE_FILE, content.table))
        entry = ShardEntry(shard_id, positions, shape, tuple(files))
        _write_bytes(fresh / SHARD_FILE, seal(entry.to_dict(spec_key)))
        fsync_path(fresh)
        target = folder / shard_id.name
        if target.exists():
            # Readers that mapped the old files keep them; a reader that comes between the two renames tries again.
            target.rename(temporary / "replaced")
        fresh.rename(target)
        fsync_path(folder)
    return entry


def check_shard(folder: Path, spec_key: str, *, deep: bool) -> ShardEntry:
    """Read a shard's ``shard.json`` and check its files.

    Args:
        folder: The shard's folder.
        spec_key: Key of the index that it must belong to.
        deep: Also compare the SHA-256 of every file, not only sizes and headers.

    Raises:
        IndexCorruptError: A file is missing, of the wrong size, unreadable or altered.
    """
    entry = read_entry(folder, spec_key)
    expected = entry.shape.arrays(len(entry.positions))
    if {file.name for file in entry.files} != {*expected, TABLE_FILE}:
        raise IndexCorruptError("does not list its files", path=folder / SHARD_FILE, remedy=_REMEDY)
    for file in entry.files:
        path = folder / file.name
        try:
            size, head = _look(path)
            if size != file.size_bytes:
                raise ValueError(f"{size} bytes where {file.size_bytes} were written")
            if file.name in expected and _parse_header(head) != (expected[file.name][1], False, expected[file.name][0]):
                raise ValueError("the array has another shape or type")
            if deep and _sha256_of(path) != file.sha256:
                raise ValueError("SHA-256 differs")
        except (OSError, ValueError) as error:
            raise _corrupt(path, error) from error
    return entry


def read_entry(folder: Path, spec_key: str) -> ShardEntry:
    """Read ``shard.json``.

    Raises:
        IndexCorruptError: It is missing, damaged, or belongs to another index or folder.
    """
    path = folder / SHARD_FILE
    try:
        entry = ShardEntry.from_dict(unseal(path.read_bytes()), spec_key)
        if entry.id.name != folder.name:
            raise ValueError(f"belongs to {entry.id.name}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _corrupt(path, error) from error
    return entry


def open_shard(folder: Path, spec_key: str) -> ShardArrays:
    """Map a shard's arrays.

    Raises:
        IndexCorruptError: A file is missing or unreadable.
    """
    entry = read_entry(folder, spec_key)
    expected = entry.shape.arrays(len(entry.positions))
    try:
        arrays = [_map_array(folder / name, dtype, shape) for name, (dtype, shape) in expected.items()]
    except (OSError, ValueError) as error:
        raise _corrupt(folder, error) from error
    return ShardArrays(entry, *arrays)


def read_steadily(folder: Path, read: Callable[[], _T]) -> _T:
    """Read a shard as it was at one moment, trying again when a writer swaps its folder meanwhile.

    A swap is two renames: for a moment there is no folder, and afterwards there is another one. Whatever was read
    across it does not count, be it a value or an error.

    Args:
        folder: The shard's folder.
        read: What reads it.

    Raises:
        IndexCorruptError: The shard is damaged, or gone for good.
    """
    for _ in range(_ATTEMPTS - 1):
        before = _identity(folder)
        try:
            value = read()
        except IndexCorruptError:
            if before is not None and before == _identity(folder):
                raise
        else:
            if before == _identity(folder):
                return value
        time.sleep(_PATIENCE_S)
    return read()


def _identity(folder: Path) -> int | None:
    try:
        return folder.stat().st_ino
    except OSError:
        return None


def _map_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if 0 in shape:
        return np.zeros(shape, dtype)
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{path.name} holds {array.dtype}{array.shape} instead of {dtype}{shape}")
    return array.view(np.ndarray)


def _look(path: Path) -> tuple[int, bytes]:
    """Return a file's size and its ``.npy`` header, if it has one, at the price of one opening."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        head = os.read(handle, _HEAD_BYTES)
        return os.fstat(handle).st_size, head[: 10 + int.from_bytes(head[8:10], "little")]
    finally:
        os.close(handle)


@functools.lru_cache(maxsize=256)
def _parse_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Parse a ``.npy`` header; shards of one level share a few headers, and parsing one takes 50 µs."""
    stream = io.BytesIO(header)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("not an array file")
    parsed: tuple[tuple[int, ...], bool, np.dtype[Any]] = np.lib.format.read_array_header_1_0(stream)
    return parsed


def _write_array(path: Path, array: NDArray[Any]) -> FileEntry:
    array = np.ascontiguousarray(array)
    with path.open("wb") as handle:
        # numpy's own save hides the reason of a short write (a full disk), so the data goes through the file object.
        np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(array))
        handle.write(array.reshape(-1).view(np.uint8).data)
    return _seal(path)


def _write_bytes(path: Path, data: bytes) -> FileEntry:
    path.write_bytes(data)
    return _seal(path)


def _seal(path: Path) -> FileEntry:
    fsync_path(path)
    return FileEntry(path.name, path.stat().st_size, _sha256_of(path))


def _sha256_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _corrupt(path: Path, error: BaseException) -> IndexCorruptError:
    return IndexCorruptError("is damaged", path=path, measured=str(error) or type(error).__name__, remedy=_REMEDY)
