"""One way in which every writer reports that it could not write."""

from __future__ import annotations

import contextlib
import errno
import shutil
from typing import TYPE_CHECKING

from tiling.files import write_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tiling.errors import OutputWriteError

_FULL_BYTES = 1 << 17
"""A disk with less room than this is taken to be the reason of a failure that names none."""


@contextlib.contextmanager
def writing(target: Path, *also: type[Exception], needed_bytes: int = 0) -> Iterator[None]:
    """Turn every failure that GDAL or the system reports inside the block into one line.

    Args:
        target: Named in the error.
        also: Exceptions of other libraries that mean a failure.
        needed_bytes: What the block is about to write, roughly; a disk with less room left is taken to be full.

    Raises:
        OutputWriteError: With ``target``, the reason and a remedy.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        yield
    except (OSError, RasterioError, CPLE_BaseError, *also) as error:
        raise describe_failure(target, error, needed_bytes=needed_bytes) from error


def describe_failure(target: Path, error: BaseException, *, needed_bytes: int = 0) -> OutputWriteError:
    """Return a one-line error for ``error``.

    Drivers seldom hand on the system's reason, so the disk itself is asked whether it is full.
    """
    text = str(error).lower()
    full = any(words in text for words in ("disk is full", "no space left", "free disk space"))
    with contextlib.suppress(OSError):
        full = full or shutil.disk_usage(target.parent).free < max(_FULL_BYTES, needed_bytes)
    if full:
        return write_error(target, OSError(errno.ENOSPC, ""))
    # GDAL's errors have an ``errno`` too, which counts kinds of its own.
    return write_error(target, error if isinstance(error, OSError) else RuntimeError(str(error)))
