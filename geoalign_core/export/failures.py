"""How the writers of vector files and pictures report that they could not write."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from tiling import failures
from tiling.failures import describe_failure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["describe_failure", "writing"]


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

    libraries = sqlite3.Error, pa.ArrowException, DataSourceError, DataLayerError
    with failures.writing(target, *libraries, needed_bytes=needed_bytes):
        yield
