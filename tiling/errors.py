"""Errors that carry data: what is wrong, in which file, the measured value and what to do.

Every error a user can cause is a subclass of :class:`GeoAlignError`; command lines print it as one line and
exit with :attr:`GeoAlignError.exit_code`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path


class GeoAlignError(Exception):
    """Base of every error that is the input's fault, not the program's.

    Args:
        what: What is wrong, as a short sentence without a full stop.
        path: The file or folder that it is about.
        measured: The value found, in words ("3 bands", "400000 × 400000 px").
        remedy: What the user can do next, as an imperative.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, what: str, *, path: str | Path | None = None, measured: str | None = None, remedy: str | None = None
    ) -> None:
        self.what = what
        self.path = None if path is None else str(path)
        self.measured = measured
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        """Return one line: ``path: what (measured); remedy``."""
        line = self.what if self.path is None else f"{self.path}: {self.what}"
        if self.measured:
            line += f" ({self.measured})"
        if self.remedy:
            line += f"; {self.remedy}"
        return " ".join(line.split())


class UsageError(GeoAlignError):
    """An argument that cannot be understood or contradicts another."""

    exit_code = 2


class RasterOpenError(GeoAlignError):
    """The file is not a raster that may be opened, or it is damaged."""


class RasterReadError(GeoAlignError):
    """A part of the raster cannot be decoded."""


class UnsupportedRasterError(GeoAlignError):
    """A raster that opens but holds nothing that can be used (complex numbers, no valid pixel)."""


class NotGeoreferencedError(GeoAlignError):
    """Metres or map coordinates were asked of a raster that has no CRS or no geotransform."""


class BandError(GeoAlignError):
    """The chosen bands do not exist or do not make an image."""


class StretchError(GeoAlignError):
    """The radiometric stretch cannot be computed or understood."""


class AreaError(GeoAlignError):
    """The area of interest cannot be read or misses the raster."""


class OutputExistsError(GeoAlignError):
    """An output is already there and ``overwrite`` was not given."""


class OutputWriteError(GeoAlignError):
    """An output cannot be written: full disk, read-only folder, unknown suffix."""


class CancelledError(GeoAlignError):
    """The user stopped the work; whatever was finished is kept."""

    exit_code = 130
