"""Checks of what a file tells: whoever wrote it, only values of the right kind come further."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from affine import Affine

if TYPE_CHECKING:
    from collections.abc import Mapping

Check = Callable[[Any], bool]


def is_inside(name: object) -> bool:
    """Return whether a name that somebody wrote down is that of a file inside a folder, on every system."""
    if not isinstance(name, str) or not name.isprintable():
        return False
    place, odd = PurePosixPath(name), PureWindowsPath(name)
    return bool(place.name) and not (place.is_absolute() or odd.drive or odd.root or ".." in odd.parts)


def check_all(data: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Raise unless every value passes its check.

    Raises:
        KeyError: A value is missing.
        ValueError: A value fails, named in one line.
    """
    for name, is_good in checks.items():
        if not is_good(data[name]):
            raise ValueError(f"{name} is {data[name]!r:.60}")


def is_text(value: object) -> bool:
    """Return whether a value is a text without NUL."""
    return isinstance(value, str) and "\0" not in value


def is_whole(value: object) -> bool:
    """Return whether a value is a whole number of 64 bits; a truth value is none."""
    return type(value) is int and abs(value) < 2**63


def is_count(value: Any) -> bool:  # noqa: ANN401
    """Return whether a value is a whole number from 0."""
    return is_whole(value) and value >= 0


def is_size(value: Any) -> bool:  # noqa: ANN401
    """Return whether a value is a whole number from 1 that GDAL can hold as a size."""
    return is_whole(value) and 0 < value < 2**31


def is_number(value: Any) -> bool:  # noqa: ANN401
    """Return whether a value is a finite number."""
    return math.isfinite(value) if type(value) is float else type(value) is int and abs(value) < 2**64


def is_counts(value: object) -> bool:
    """Return whether a value is a dictionary of counts."""
    return isinstance(value, dict) and all(map(is_count, value.values()))


def all_of(is_good: Check) -> Check:
    """Return the check of a list, each of whose values passes."""
    return lambda value: isinstance(value, list) and all(map(is_good, value))


def or_none(is_good: Check) -> Check:
    """Return the check of a value that may be None."""
    return lambda value: value is None or is_good(value)


def is_transform(value: Any) -> bool:  # noqa: ANN401
    """Return whether a value is the list of an affine transform that can be inverted."""
    return all_of(is_number)(value) and len(value) == 6 and not Affine(*value).is_degenerate


def is_crs(value: object) -> bool:
    """Return whether a value is the WKT of a CRS."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    from tiling.raster import gdal_env

    try:
        # Outside of it GDAL tells the reason once more, on stderr.
        with gdal_env():
            return isinstance(value, str) and bool(CRS.from_wkt(value))
    except CRSError:
        return False
