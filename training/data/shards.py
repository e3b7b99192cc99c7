"""Tar archives as data sets: members by name and by place, samples in webdataset's layout, and writing them.

A sample is the run of members whose names agree up to the first dot of the file name: ``0007.jpg``, ``0007.json``.
Uncompressed archives are read in place. Where the members of large ones lie is remembered in the user's cache folder
(``GEOALIGN_CACHE`` names another).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from tiling.errors import GeoAlignError
from tiling.files import atomic_file
from training.data.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORTH_KEEPING = 2000
"""Members from which on an index is written to the disk; smaller archives are read again in no time."""
_BLOCK = 512
_DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What reading a cut or altered NumPy archive raises."""


class StrictInfo(tarfile.TarInfo):
    """A header that must be sound: by itself, tarfile takes a broken one, and a missing end, for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Read the next header.

        Raises:
            tarfile.ReadError: It is damaged, or the archive ends without its end mark.
        """
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed does not know it
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}" if str(error) != "empty header" else "no end mark") from error


def forget(archive: tarfile.TarFile) -> None:
    """Drop the headers that tarfile has collected: of millions of members they would fill the memory."""
    vars(archive)["members"].clear()


@dataclass(frozen=True, slots=True)
class Member:
    """Where a file lies inside an uncompressed archive."""

    archive: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the file's bytes.

        Raises:
            DataError: The archive has become shorter.
            OSError: The archive cannot be read.
        """
        with self.archive.open("rb") as handle:
            handle.seek(self.offset)
            data = handle.read(self.size)
        if len(data) < self.size:
            raise DataError("is cut short", path=self.archive, measured=f"at byte {self.offset + len(data)}")
        return data


class TarIndex:
    """Names and places of an archive's files, in the order of the archive; about 16 bytes each and the names.

    Args:
        path: The archive.
        names: Names of the files.
        offsets: (N,) int64 first bytes.
        sizes: (N,) int64 bytes.
    """

    def __init__(self, path: Path, names: list[str], offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        self.path, self.offsets, self.sizes = path, offsets, sizes
        self._names = "\0".join(names).encode("utf-8", "surrogateescape")
        ends = np.cumsum([len(name.encode("utf-8", "surrogateescape")) + 1 for name in names], dtype=np.int64)
        self._starts = np.concatenate([np.zeros(1, np.int64), ends])
        keys = [sample_key(name)[0] for name in names]
        self._samples = np.array(
            [i for i in range(len(keys)) if i == 0 or keys[i] != keys[i - 1]] + [len(keys)], dtype=np.int64
        )
        self._places: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def name(self, index: int) -> str:
        """Return the name of a file."""
        start, end = int(self._starts[index]), int(self._starts[index + 1]) - 1
        return self._names[start:end].decode("utf-8", "surrogateescape")

    def member(self, index: int) -> Member:
        """Return the place of a file."""
        return Member(self.path, int(self.offsets[index]), int(self.sizes[index]))

    def find(self, name: str) -> Member:
        """Return the place of a file by its name.

        Raises:
            DataError: There is none of this name.
        """
        if self._places is None:
            self._places = {self.name(index): index for index in range(len(self))}
        if name not in self._places:
            raise DataError("has no such file", path=self.path, measured=name, remedy="check the record's image")
        return self.member(self._places[name])

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return max(len(self._samples) - 1, 0)

    def sample(self, index: int) -> dict[str, int]:
        """Return the files of a sample: what follows the first dot of the name, in lower case, and its position."""
        first, last = int(self._samples[index]), int(self._samples[index + 1])
        return {sample_key(self.name(position))[1]: position for position in range(first, last)}

    def digest(self) -> bytes:
        """Return the SHA-256 of names, places and sizes: contents are not read."""
        parts = (self._names, self.offsets.tobytes(), self.sizes.tobytes())
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()

    def save(self, target: Path, stamp: NDArray[np.int64]) -> None:
        """Write the index.

        Raises:
            OutputWriteError: The folder refuses.
        """
        with atomic_file(target, overwrite=True) as temporary, temporary.open("wb") as handle:
            names = np.frombuffer(self._names, np.uint8)
            np.savez(handle, stamp=stamp, names=names, offsets=self.offsets, sizes=self.sizes)


def sample_key(name: str) -> tuple[str, str]:
    """Return the key of a member's sample and the rest: ``a/7.seg.PNG`` gives ``a/7`` and ``seg.png``."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return folder + slash + stem, suffix.lower()


def member_of(archive: Path, name: str) -> Member:
    """Return the place of a member; the indexes of the last 64 archives stay in memory.

    Raises:
        DataError: The archive is missing or damaged, or has no such member.
    """
    return index_tar(archive).find(name)


def index_tar(path: Path) -> TarIndex:
    """Return the index of an uncompressed archive, from memory or the disk where it is known and still true.

    Raises:
        DataError: The archive is missing, compressed, or damaged; the byte is named.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise DataError("is missing", path=path, remedy="check the data set's folder") from error
    return _indexed(path.absolute(), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _indexed(path: Path, size: int, mtime_ns: int) -> TarIndex:
    stamp = np.array([1, size, mtime_ns], np.int64)
    place = _index_place(path)
    if (index := _load(place, path, stamp)) is not None:
        return index
    index = _scan(path, size)
    if len(index) >= _WORTH_KEEPING:
        with contextlib.suppress(GeoAlignError, OSError):  # a cache that cannot be written costs time only
            index.save(place, stamp)
    return index


def _index_place(path: Path) -> Path:
    """Return where an archive's index is kept. Nothing is written beside the archive, which may be anybody's."""
    import platformdirs

    base = Path(os.environ.get("GEOALIGN_CACHE") or platformdirs.user_cache_dir("geoalign"))
    return base / "shards" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.npz"


def _load(place: Path, path: Path, stamp: NDArray[np.int64]) -> TarIndex | None:
    """Return a kept index, or None when there is none, it is damaged, or of another state of the archive."""
    try:
        with np.load(place, allow_pickle=False) as stored:
            offsets, sizes = stored["offsets"], stored["sizes"]
            if not np.array_equal(stored["stamp"], stamp) or offsets.dtype != np.int64 or sizes.dtype != np.int64:
                return None
            names = stored["names"].tobytes().decode("utf-8", "surrogateescape").split("\0")
        is_sound = len(names) == len(offsets) == len(sizes) and bool(
            np.all((offsets >= 0) & (sizes >= 0) & (offsets + sizes <= stamp[1]))
        )
    except _DAMAGED:  # the archive itself is read then
        return None
    return TarIndex(path, names, offsets, sizes) if is_sound else None


def _scan(path: Path, size: int) -> TarIndex:
    names, offsets, sizes, end = [], [], [], 0
    try:
        with tarfile.open(path, "r:", tarinfo=StrictInfo) as archive:
            while (item := archive.next()) is not None:
                end = item.offset_data + item.size
                if end > size:
                    raise DataError("is cut short", path=path, measured=f"at byte {size} in {item.name}")
                if item.isreg():
                    names.append(item.name.removeprefix("./"))
                    offsets.append(item.offset_data)
                    sizes.append(item.size)
                forget(archive)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if not offsets and is_compressed(path):
            raise compressed(path) from error
        at = min(-(-end // _BLOCK) * _BLOCK, size)
        raise DataError(
            "is not a sound tar archive", path=path, measured=f"{str(error)[:80]} at byte {at}", remedy="fetch it again"
        ) from error
    return TarIndex(path, names, np.array(offsets, np.int64), np.array(sizes, np.int64))


def compressed(path: Path) -> DataError:
    """Return the error of a file that must be unpacked first."""
    return DataError(
        "is compressed, so nothing can be read in place", path=path,
        remedy="unpack it (gunzip or the like) and give the .tar or .jsonl",
    )  # fmt: skip


def is_compressed(path: Path) -> bool:
    """Say whether a file begins as gzip, bzip2, xz or zstandard does."""
    try:
        with path.open("rb") as handle:
            head = handle.read(6)
    except OSError:
        return False
    return head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"))
