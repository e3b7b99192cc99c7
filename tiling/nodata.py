"""Samples as another type, and the value that says that there are none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ALIKE = 5e-7
"""GDAL's mask takes floating-point samples that differ from nodata by less than 4 × 2⁻²³ of it for nodata."""
_APART = 1e-6


def to_type(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return values as a type, kept within its range; integers are rounded, and a NaN becomes 0.

    Integers are compared as integers and floating point only with powers of two, so that no limit is rounded:
    2⁶⁴ − 1 is no float32 and no float64. The array itself is returned when it has that type.
    """
    if values.dtype == dtype:
        return values
    if dtype.kind == "f":
        if np.can_cast(values.dtype, dtype):
            return values.astype(dtype)
        with np.errstate(over="ignore"):
            return np.clip(values.astype(dtype), np.finfo(dtype).min, np.finfo(dtype).max)
    limits = np.iinfo(dtype)
    if values.dtype.kind != "f":
        own = np.iinfo(values.dtype)
        return np.clip(values, max(limits.min, own.min), min(limits.max, own.max)).astype(dtype)
    kind = np.promote_types(values.dtype, np.float32).type
    whole = np.rint(np.nan_to_num(values.astype(kind, copy=False)))
    beyond = kind(limits.max + 1)
    samples = np.clip(whole, kind(limits.min), np.nextafter(beyond, kind(0))).astype(dtype)
    if int(kind(limits.max)) != limits.max:
        samples[whole >= beyond] = limits.max
    return samples


def holds(dtype: np.dtype[Any], value: float) -> bool:
    """Say whether samples of a type can be equal to a value."""
    if dtype.kind == "f":
        return not math.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max


def beside(value: float, dtype: np.dtype[Any]) -> float:
    """Return the nearest value of a type that GDAL tells from another one."""
    if dtype.kind != "f":
        return value + 1 if value < np.iinfo(dtype).max else value - 1
    kind = dtype.type
    exact = kind(value)
    apart = kind(exact * kind(1 - _APART))
    return float(apart if apart != exact else np.nextafter(exact, kind(0 if exact else 1)))


def off_nodata(samples: NDArray[Any], valid: NDArray[np.bool_], nodata: float) -> NDArray[Any]:
    """Move valid pixels that hold nodata in all bands to the value beside it; the others stay as they are.

    Args:
        samples: (C, h, w).
        valid: (h, w).
        nodata: A value that the type can hold.

    Returns:
        ``samples`` themselves when no pixel had to be moved.
    """
    hit = valid & _alike(samples, nodata).all(axis=0)
    if not hit.any():
        return samples
    return np.where(hit, samples.dtype.type(beside(nodata, samples.dtype)), samples)


def _alike(samples: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    if samples.dtype.kind != "f":
        return np.asarray(samples == int(nodata))
    exact = samples.dtype.type(nodata)
    if not np.isfinite(exact):
        return np.asarray(samples == exact)
    with np.errstate(over="ignore"):
        return np.asarray(np.abs(samples - exact) <= abs(exact) * samples.dtype.type(_ALIKE))
