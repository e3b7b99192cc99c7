"""Has the raster's file changed? A fingerprint that costs a millisecond whatever the file's size."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiling.errors import RasterOpenError

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD_BYTES = 64 * 1024
_BLOCK_BYTES = 4096
_BLOCKS = 64
_SIDECARS = (".ovr", ".msk", ".msk.ovr")


@dataclass(frozen=True, slots=True)
class SourceFingerprint:
    """What identifies one state of a raster's files.

    Equal fingerprints mean an unchanged raster. Unequal ones only mean that the pixels have to be looked at:
    copying or touching a file changes them too.
    """

    size_bytes: int
    mtime_ns: int
    sha256: str
    """Over the first 64 KiB and 64 blocks of 4 KiB spread evenly over the file."""
    sidecars: tuple[str, ...]
    """``suffix:size:mtime_ns`` of the overview and mask files beside it."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "size_bytes": self.size_bytes,
            "mtime_ns": self.mtime_ns,
            "sha256": self.sha256,
            "sidecars": list(self.sidecars),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SourceFingerprint:
        """Read the JSON form.

        Raises:
            KeyError, TypeError, ValueError: It is not one.
        """
        sidecars = tuple(str(item) for item in data["sidecars"])
        return cls(int(data["size_bytes"]), int(data["mtime_ns"]), str(data["sha256"]), sidecars)


def fingerprint(path: str | Path) -> SourceFingerprint:
    """Take the fingerprint of a raster on a local disk.

    Raises:
        RasterOpenError: The file cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as handle:
            stat = os.fstat(handle.fileno())
            digest = hashlib.sha256(handle.read(_HEAD_BYTES))
            last = max(stat.st_size - _BLOCK_BYTES, 0)
            for index in range(_BLOCKS):
                handle.seek(last * index // (_BLOCKS - 1))
                digest.update(handle.read(_BLOCK_BYTES))
    except OSError as error:
        raise RasterOpenError(
            "cannot be read", path=path, measured=error.strerror, remedy="check the file's name and permissions"
        ) from error
    return SourceFingerprint(stat.st_size, stat.st_mtime_ns, digest.hexdigest(), _sidecars(path))


def fingerprint_all(paths: Sequence[Path]) -> SourceFingerprint:
    """Take one fingerprint of all the files that a raster's pixels come from.

    Raises:
        RasterOpenError: A file cannot be read.
    """
    each = [fingerprint(path) for path in paths]
    if len(each) == 1:
        return each[0]
    digest = hashlib.sha256("".join(one.sha256 for one in each).encode())
    sidecars = tuple(text for one in each for text in one.sidecars)
    newest = max(one.mtime_ns for one in each)
    return SourceFingerprint(sum(one.size_bytes for one in each), newest, digest.hexdigest(), sidecars)


def _sidecars(path: Path) -> tuple[str, ...]:
    found = []
    for suffix in _SIDECARS:
        beside = path.with_name(path.name + suffix)
        # A name that is too long for the system is no file either.
        if os.path.isfile(beside):  # noqa: PTH113
            stat = beside.stat()
            found.append(f"{suffix}:{stat.st_size}:{stat.st_mtime_ns}")
    return tuple(found)
