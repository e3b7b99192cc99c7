"""Which error of the protocol an exception is."""

from __future__ import annotations

import errno
import os
import re
import traceback

from geoalign_core.engine.protocol import Failure
from tiling.errors import (
    AreaError,
    BandError,
    CancelledError,
    GeoAlignError,
    NotGeoreferencedError,
    OutputExistsError,
    OutputWriteError,
    RasterOpenError,
    RasterReadError,
    StretchError,
    UnsupportedRasterError,
    UsageError,
)

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_WORDS = (
    "no space left",
    "does not fit on the disk",
    "disk is full",
    "disk full",
    "quota",
    *(os.strerror(code).lower() for code in _FULL),
)
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
_REMEDIES = {
    "too_many_windows": "choose a smaller area or a coarser ground resolution",
    "device": "choose the CPU or another device",
    "model": "choose another model, or install this one",
    "examples": "show an example on the map",
    "output": "choose another folder or name",
    "raster": "convert the image to GeoTIFF, or choose other bands",
    "usage": "choose other settings",
}
"""For what the command line solves by options only."""


def failure_of(error: BaseException) -> Failure:
    """Return what a client is told of an exception; what nobody foresaw is ``internal`` with its traceback."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, GeoAlignError):
        return _known(error)
    if _is_memory(error):
        return out_of_memory("".join(traceback.format_exception(error)))
    text = " ".join(str(error).split())[:300]
    return Failure(
        "internal", f"the engine stumbled: {type(error).__name__}: {text}",
        remedy="try again; if it happens again, report it with the details",
        details="".join(traceback.format_exception(error)),
    )  # fmt: skip


def out_of_memory(details: str = "") -> Failure:
    """Return the failure of a job that needs more memory than it may have."""
    return Failure(
        "out_of_memory", "the engine ran out of memory", details=details,
        remedy="choose a smaller area or a coarser ground resolution, or allow the engine more memory",
    )  # fmt: skip


def cancelled() -> Failure:
    """Return the end of a job that somebody stopped."""
    return Failure("cancelled", "stopped", remedy="ask again to go on where it stopped", retryable=True)


def _known(error: GeoAlignError) -> Failure:
    if isinstance(error, CancelledError):
        return cancelled()
    where = "" if error.path is None else f"{error.path}: "
    measured = f" ({error.measured})" if error.measured else ""
    message = " ".join(f"{where}{error.what}{measured}".split())
    code = _code(error)
    return Failure(code, message, remedy=_remedy(code, error.remedy or ""), retryable=code in ("disk_full", "index"))


def _remedy(code: str, text: str) -> str:
    """Return a remedy without what only a command line can do: of its alternatives those that name no option."""
    if "--" not in text:
        return text
    kept = [part for part in re.split(r",? or |, ", text) if "--" not in part]
    return " or ".join(kept) or _REMEDIES.get(code, "")


def _code(error: GeoAlignError) -> str:
    from geoalign_core import errors as own
    from geoalign_core.indexing.lock import IndexBusyError

    if isinstance(error, OutputWriteError) and _is_full(error):
        return "disk_full"
    table: tuple[tuple[type[GeoAlignError] | tuple[type[GeoAlignError], ...], str], ...] = (
        ((own.IndexCorruptError, own.IndexStaleError, IndexBusyError), "index"),
        (own.TooManyWindowsError, "too_many_windows"),
        (own.QueryError, "query"),
        (own.ExamplesError, "examples"),
        (own.ModelError, "model"),
        (own.DeviceError, "device"),
        (AreaError, "area"),
        ((OutputExistsError, OutputWriteError), "output"),
        (UsageError, "usage"),
        ((RasterOpenError, RasterReadError, UnsupportedRasterError, NotGeoreferencedError), "raster"),
        ((BandError, StretchError), "raster"),
    )
    return next((code for kinds, code in table if isinstance(error, kinds)), "usage")


def _is_full(error: GeoAlignError) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in _FULL or any(word in str(cause).lower() for word in _FULL_WORDS):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    # torch tells of it in a RuntimeError of its own, GDAL in words.
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _MEMORY_WORDS)
