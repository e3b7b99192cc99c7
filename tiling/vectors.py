"""A check on vector files before GDAL sees them: does this one lead to other files, or to a server?

GDAL goes by what a file holds and not by its suffix, so a recipe named ``area.gpkg`` would be followed.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tiling.errors import GeoAlignError

_HEAD_BYTES = 4096
_INDIRECT = re.compile(rb"<ogr\w+datasource|<(vrtdataset|gdal_w\w+)\b|gdal_streamed_alg", re.IGNORECASE)
"""What GDAL takes for a recipe, whatever the file's suffix."""


def refuse_indirect(path: Path, error: type[GeoAlignError]) -> None:
    """Refuse a virtual layer, also one in a ZIP archive, which GDAL opens as a folder.

    Args:
        path: A file.
        error: What to raise.

    Raises:
        GeoAlignError: The file cannot be read, or leads elsewhere.
    """
    try:
        is_indirect = any(name.lower().endswith(".vrt") or _INDIRECT.search(head) for name, head in _heads(path))
    except (OSError, RuntimeError, zlib.error, zipfile.BadZipFile) as reason:
        raise unreadable(path, error, reason) from reason
    if is_indirect:
        raise indirect(path, error)


def indirect(path: Path, error: type[GeoAlignError]) -> GeoAlignError:
    """Return the error for a file that leads elsewhere."""
    return error("is a virtual layer, which may read other files", path=path, remedy="convert it with ogr2ogr")


def unreadable(path: Path, error: type[GeoAlignError], reason: Exception) -> GeoAlignError:
    """Return the error for a file that cannot be read."""
    return error(
        "is not a vector file that can be read", path=path, measured=str(reason)[:120], remedy="use GPKG or GeoJSON"
    )


def _heads(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the first bytes of a file, and of each file in an archive."""
    with path.open("rb") as stream:
        yield path.name, stream.read(_HEAD_BYTES)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as stream:
                    yield member.filename, stream.read(_HEAD_BYTES)
