"""One way in which every writer reports that it could not write."""

from __future__ import annotations

import contextlib
import errno
import shutil
import sqlite3
from typing import TYPE_CHECKING

from tiling.files import write_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tiling.errors import OutputWriteError

_FULL_BYTES = 1 << 17
"""A disk with less room than this is taken to be the reason of a failure that names none."""


@contextlib.contextmanager
def writing(target: Path, *, needed_bytes: int = 0) -> Iterator[None]:
    """Turn every failure that GDAL, SQLite, Arrow or the system reports inside the block into one line.

    Args:
        target: Named in the error.
        needed_bytes: What the block is about to write, roughly; a disk with less room left is taken to be full.

    Raises:
        OutputWriteError: With ``target``, the reason and a remedy.
    """
    import pyarrow as pa
    from pyogrio.errors import DataLayerError, DataSourceError
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        yield
    except (
        OSError, sqlite3.Error, pa.ArrowException, DataSourceError, DataLayerError, RasterioError, CPLE_BaseError
    ) as error:  # fmt: skip
        raise describe_failure(target, error, needed_bytes=needed_bytes) from error


def describe_failure(target: Path, error: BaseException, *, needed_bytes: int = 0) -> OutputWriteError:
    """Return a one-line error for ``error``.

    Drivers seldom hand on the system's reason, so the disk itself is asked whether it is full.
    """
    text = str(error).lower()
    full = "disk is full" in text or "no space left" in text
    with contextlib.suppress(OSError):
        full = full or shutil.disk_usage(target.parent).free < max(_FULL_BYTES, needed_bytes)
    return write_error(target, OSError(errno.ENOSPC, "") if full else error)
