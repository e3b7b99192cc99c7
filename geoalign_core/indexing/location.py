"""Where an index lies: beside the raster, or in the cache folder when that is not writable."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from pathlib import Path

from tiling.files import write_error

SUFFIX = ".geoalign"
_REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.ENAMETOOLONG}


def home_beside(raster_path: str | Path) -> Path:
    """Return ``<raster>.geoalign``, the folder of all indexes of one raster."""
    path = Path(raster_path)
    return path.with_name(path.name + SUFFIX)


def home_in_cache(raster_path: str | Path) -> Path:
    """Return the raster's folder in the cache (``GEOALIGN_CACHE`` overrides the user's cache folder)."""
    import platformdirs

    override = os.environ.get("GEOALIGN_CACHE")
    base = Path(override) if override else Path(platformdirs.user_cache_dir("geoalign"))
    path = Path(raster_path).resolve()
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", path.stem)[:64]
    return base / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}-{stem}"


def index_homes(raster_path: str | Path) -> tuple[Path, Path]:
    """Return the folders where an index may lie, the preferred one first."""
    return home_beside(raster_path), home_in_cache(raster_path)


def writable_home(raster_path: str | Path) -> Path:
    """Return the first of :func:`index_homes` that can be written, making it when it is missing.

    Raises:
        OutputWriteError: Neither can, or the disk is full.
    """
    beside, cache = index_homes(raster_path)
    try:
        return _probe(beside)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise write_error(beside, error) from error
    try:
        return _probe(cache)
    except OSError as error:
        raise write_error(cache, error) from error


def _probe(folder: Path) -> Path:
    """Make the folder and a file in it: the only test of permission that holds on every system."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-"):
        return folder
