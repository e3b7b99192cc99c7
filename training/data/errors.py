"""What can be wrong with training data."""

from __future__ import annotations

from tiling.errors import GeoAlignError


class DataError(GeoAlignError):
    """Training data is missing, damaged, or not laid out as expected."""


class LayoutError(DataError):
    """A path has none of the layouts that the readers know."""
