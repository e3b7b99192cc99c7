"""Errors of the question side; the raster side's are in :mod:`tiling.errors`."""

from __future__ import annotations

from tiling.errors import GeoAlignError, UsageError


class QueryError(UsageError):
    """A question that says nothing: empty, only spaces, only signs."""


class ModelError(GeoAlignError):
    """A model that is unknown, missing, damaged or of the wrong kind."""


class DeviceError(GeoAlignError):
    """The device asked for is not there."""


class IndexCorruptError(GeoAlignError):
    """An index file is damaged; building again repairs it."""


class IndexStaleError(GeoAlignError):
    """The index belongs to another state of the raster or another model."""


class ExamplesError(UsageError):
    """Examples that miss the raster or contradict each other."""


class TooManyWindowsError(GeoAlignError):
    """The raster would take longer than anyone means to wait."""
