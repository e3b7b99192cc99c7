"""Which bands make the picture, and how their numbers become 0–255: one stretch for the whole raster, stored."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.errors import BandError, RasterReadError, StretchError, UnsupportedRasterError, UsageError
from tiling.sample import sample_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tiling.info import RasterInfo
    from tiling.raster import Raster

_RGB = ("red", "green", "blue")
_INKS = {"cyan", "magenta", "yellow", "black"}
_PERCENTILES = (2.0, 98.0)
_SHARED_SAMPLES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class BandChoice:
    """The bands that are read, and what they stand for."""

    indexes: tuple[int, ...]
    """One-based, one (grey, palette) or three (red, green, blue)."""
    names: tuple[str, ...]
    palette: bool
    """Whether the one band holds numbers of colours."""
    grey: bool
    """Whether the one band is shown three times."""
    note: str = ""
    """What a user should know about the choice; empty when it is plain."""


def choose_bands(info: RasterInfo, spec: str | None = None) -> BandChoice:
    """Choose the bands that make a picture.

    Args:
        info: The raster.
        spec: ``"4,1,2"`` or ``"1"``; None takes red, green and blue by their declared meaning, else the first
            three, else the first.

    Raises:
        BandError: The numbers do not exist, are not one or three, or the bands are inks.
        UnsupportedRasterError: The samples are complex numbers.
    """
    if info.is_complex:
        raise UnsupportedRasterError(
            "holds complex numbers",
            path=info.path,
            measured=info.dtype,
            remedy="write their amplitude, say with 'gdal_calc.py --calc=\"abs(A)\"'",
        )
    if spec is not None and spec.strip().lower() not in ("", "auto", "rgb"):
        return _from_spec(info, spec)
    interp = info.colorinterp
    if info.has_palette:
        return BandChoice((1,), ("palette",), palette=True, grey=False)
    if set(_RGB) <= set(interp):
        return BandChoice(tuple(interp.index(name) + 1 for name in _RGB), _RGB, palette=False, grey=False)
    if _INKS & set(interp):
        raise BandError(
            "is in printing inks (CMYK), not in red, green and blue",
            path=info.path,
            measured="/".join(interp),
            remedy="convert it to RGB, or name bands with --bands",
        )
    colours = [index for index in range(1, info.count + 1) if index != info.alpha_band]
    if not colours:
        raise BandError("has no band but transparency", path=info.path, measured=f"{info.count} band")
    if len(colours) >= 3:
        names = tuple(f"band {index}" for index in colours[:3])
        note = f"bands {', '.join(map(str, colours[:3]))} are taken as red, green, blue: the file does not say"
        return BandChoice(tuple(colours[:3]), names, palette=False, grey=False, note=note)
    note = "" if len(colours) == 1 else f"two bands make no picture: band {colours[0]} is shown in grey"
    return BandChoice((colours[0],), ("grey",), palette=False, grey=True, note=note)


def band_numbers(info: RasterInfo, spec: str) -> tuple[int, ...]:
    """Read ``"4,1,2"`` as numbers of bands.

    Raises:
        UsageError: They are not numbers from 1 on.
        BandError: The raster has no such band.
    """
    try:
        indexes = tuple(int(part) for part in spec.split(","))
    except ValueError:
        raise UsageError("bands are numbers", measured=spec, remedy="write --bands 4,1,2") from None
    if min(indexes) < 1:
        raise UsageError("bands are counted from 1", measured=spec, remedy="write --bands 4,1,2")
    if max(indexes) > info.count:
        raise BandError(
            "has no such band",
            path=info.path,
            measured=f"{spec} of {info.count} band{'s' * (info.count > 1)}",
            remedy=f"use numbers from 1 to {info.count}",
        )
    return indexes


def all_bands(info: RasterInfo, indexes: Sequence[int] | None = None, *, transparency: bool = True) -> BandChoice:
    """Choose bands for samples, not for a picture.

    Args:
        info: The raster.
        indexes: One-based; None takes all.
        transparency: Whether None takes the transparency band too.

    Raises:
        BandError: A number does not exist.
    """
    if indexes is not None:
        numbers = band_numbers(info, ",".join(map(str, indexes)))
    else:
        numbers = tuple(i for i in range(1, info.count + 1) if transparency or i != info.alpha_band)
    return BandChoice(numbers, tuple(f"band {index}" for index in numbers), palette=False, grey=False)


def _from_spec(info: RasterInfo, spec: str) -> BandChoice:
    indexes = band_numbers(info, spec)
    if len(indexes) not in (1, 3):
        raise BandError("one or three bands make a picture", path=info.path, measured=f"{len(indexes)} given")
    names = tuple(f"band {index}" for index in indexes)
    palette = info.has_palette and indexes == (1,)
    return BandChoice(indexes, names, palette=palette, grey=len(indexes) == 1 and not palette)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A linear map of each band onto 0–255, the same for every window of a raster."""

    kind: str
    """``none``, ``percentile``, ``min-max``, ``fixed`` or ``bits``."""
    low: tuple[float, ...] = ()
    """Per band, the value that becomes 0; empty for ``none``."""
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or (self.kind == "none") != (not self.low):
            raise StretchError(
                "a stretch needs one low and one high value per band", measured=f"{self.low}, {self.high}"
            )
        if not all(math.isfinite(value) for value in (*self.low, *self.high)):
            raise StretchError("a stretch needs finite values", measured=f"{self.low}, {self.high}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"kind": self.kind, "low": list(self.low), "high": list(self.high)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Stretch:
        """Build from :meth:`to_dict`'s values.

        Raises:
            StretchError: They are not such values.
        """
        try:
            low, high = (tuple(float(value) for value in data[key]) for key in ("low", "high"))
            return cls(str(data["kind"]), low, high)
        except (KeyError, TypeError, ValueError) as error:
            raise StretchError("is not a stored stretch", measured=str(data)[:80], remedy="compute it anew") from error

    def apply(self, array: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """Map samples onto a picture.

        Args:
            array: (1 or 3, H, W) samples of any real type.
            valid: (H, W); pixels that are not valid become 0. None means all are.

        Returns:
            (3, H, W) uint8; a single band is repeated. A band whose low equals its high becomes 127.
        """
        flat = self.map(array, valid)
        return np.repeat(flat, 3, axis=0) if len(flat) == 1 else flat

    def map(self, array: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """Map (C, H, W) samples onto 0–255, band by band; like :meth:`apply` for any number of bands."""
        if self.kind == "none":
            flat = array if array.dtype == np.uint8 else _to_uint8(np.nan_to_num(array.astype(np.float64)))
        else:
            flat = self._mapped(array)
        if valid is not None and not valid.all():
            flat = np.where(valid, flat, np.uint8(0))
        return flat

    def _mapped(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        out = np.empty(array.shape, np.uint8)
        count = len(array)
        low = self.low if len(self.low) == count else self.low[:1] * count
        high = self.high if len(self.high) == count else self.high[:1] * count
        kind = np.float32 if array.dtype.itemsize <= 2 else np.float64
        for band, (zero, full) in enumerate(zip(low, high, strict=True)):
            samples = np.nan_to_num(array[band].astype(kind), copy=False, nan=zero, posinf=full, neginf=zero)
            if full == zero:
                out[band] = np.where(samples < zero, 0, np.where(samples > zero, 255, 127))
                continue
            # Dividing before multiplying keeps the extremes of float64 from overflowing.
            np.subtract(samples / 2, kind(zero / 2), out=samples)
            out[band] = _to_uint8(samples / kind(full / 2 - zero / 2) * 255)
        return out


def _to_uint8(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def plan_stretch(raster: Raster, bands: BandChoice, spec: str = "auto") -> Stretch:
    """Decide how a raster's numbers become a picture.

    Args:
        raster: The open raster.
        bands: Its chosen bands.
        spec: ``auto`` (uint8 stays as it is, everything else goes by percentiles 2–98), ``none``, ``p2-98`` with
            any two percentiles, ``min-max``, ``LOW,HIGH``, ``LOW,HIGH;LOW,HIGH;LOW,HIGH`` for each band, or a JSON
            file that holds a stored stretch.

    Returns:
        The stretch; percentiles and extremes come from about a million pixels spread over the raster.

    Raises:
        StretchError: The spec cannot be understood.
        UnsupportedRasterError: There is no valid pixel, or the samples are complex.
    """
    text = spec.strip()
    fixed = _fixed(text)
    if fixed is not None:
        return _per_band(raster, bands, fixed)
    percentiles = _percentiles(text)
    if percentiles is None:
        return _load(text)
    info = raster.info
    if bands.palette or (text == "auto" and info.dtype == "uint8"):
        if bands.palette or info.nbits is None or info.nbits >= 8:
            return Stretch("none")
        return Stretch("bits", (0.0,), (2.0**info.nbits - 1,))
    return _by_samples(_samples(raster, bands), percentiles)


def plan_shared_stretch(rasters: Sequence[tuple[Raster, BandChoice]], spec: str = "auto") -> Stretch:
    """Decide on one stretch for a collection, so that a number means the same brightness in every raster.

    Args:
        rasters: Open rasters and their chosen bands, as many of each.
        spec: As for :func:`plan_stretch`. Percentiles are those of all rasters' samples together, as many of each.

    Raises:
        StretchError: The spec cannot be understood, or the rasters differ in their number of bands.
        UnsupportedRasterError, RasterReadError: None has a valid pixel that can be read; single ones are passed over.
    """
    percentiles = _percentiles(spec.strip())
    as_is = all(bands.palette or raster.info.dtype == "uint8" for raster, bands in rasters)
    if percentiles is None or (spec.strip() == "auto" and as_is):
        return plan_stretch(*rasters[0], spec)
    counts = {len(bands.indexes) for _, bands in rasters}
    if len(counts) > 1:
        raise StretchError(
            "rasters with different numbers of bands cannot share a stretch",
            measured=", ".join(map(str, sorted(counts))),
            remedy="name the same bands of all with --bands",
        )
    size = max(2, _SHARED_SAMPLES // len(rasters))
    parts, errors = [], []
    for raster, bands in rasters:
        try:
            parts.append(_even(_samples(raster, bands), size, percentiles))
        except (UnsupportedRasterError, RasterReadError) as error:
            errors.append(error)
        raster.rest()
    if not parts:
        raise errors[0]
    return _by_samples(np.concatenate(parts, axis=1), percentiles)


def _even(samples: NDArray[Any], size: int, percentiles: tuple[float, float]) -> NDArray[np.float64]:
    """Return ``size`` samples drawn evenly; of a stretch from minimum to maximum just these two."""
    if percentiles == (0.0, 100.0):
        return np.stack([samples.min(axis=1), samples.max(axis=1)], axis=1).astype(np.float64)
    return samples[:, np.linspace(0, samples.shape[1] - 1, size).astype(int)].astype(np.float64)


def _samples(raster: Raster, bands: BandChoice) -> NDArray[Any]:
    samples = sample_pixels(raster, bands)
    if samples.size == 0:
        raise UnsupportedRasterError(
            "has no valid pixel",
            path=raster.path,
            measured=f"nodata {raster.info.nodata}",
            remedy="check its nodata value and mask",
        )
    return samples


def _by_samples(samples: NDArray[Any], percentiles: tuple[float, float]) -> Stretch:
    low, high = (tuple(float(v) for v in np.percentile(samples, p, axis=1)) for p in percentiles)
    return Stretch("min-max" if percentiles == (0.0, 100.0) else "percentile", low, high)


def _fixed(text: str) -> Stretch | None:
    if text == "none":
        return Stretch("none")
    pairs = [part.split(",") for part in text.split(";")]
    if any(len(pair) != 2 for pair in pairs):
        return None
    try:
        low, high = (tuple(float(pair[end]) for pair in pairs) for end in (0, 1))
    except ValueError:
        return None
    if not all(zero < full for zero, full in zip(low, high, strict=True)):
        raise StretchError("the low value must be below the high one", measured=text)
    return Stretch("fixed", low, high)


def _per_band(raster: Raster, bands: BandChoice, fixed: Stretch) -> Stretch:
    """Check ranges that were given band by band; those that change nothing are no stretch."""
    if len(fixed.low) <= 1:
        return fixed
    if len(fixed.low) != len(bands.indexes):
        raise StretchError(
            "a stretch has one range for each band",
            path=raster.path,
            measured=f"{len(fixed.low)} ranges for {len(bands.indexes)} band{'s' * (len(bands.indexes) > 1)}",
            remedy="give one range, or as many as bands",
        )
    if raster.info.dtype == "uint8" and set(fixed.low) == {0.0} and set(fixed.high) == {255.0}:
        return Stretch("none")
    return fixed


def _percentiles(text: str) -> tuple[float, float] | None:
    if text == "auto":
        return _PERCENTILES
    if text == "min-max":
        return 0.0, 100.0
    if not text.startswith("p") or "-" not in text or text.endswith(".json"):
        return None
    try:
        low, high = (float(part) for part in text[1:].split("-"))
    except ValueError:
        return None
    if not 0 <= low < high <= 100:
        raise StretchError("percentiles rise from 0 to 100", measured=text, remedy="write p2-98")
    return low, high


def _load(text: str) -> Stretch:
    path = Path(text)
    if not path.is_file():
        raise StretchError(
            "is not a stretch", measured=text, remedy="use none, auto, p2-98, min-max, LOW,HIGH or a .json file"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StretchError("cannot be read as JSON", path=path, measured=str(error)) from error
    if isinstance(data, dict) and "sources" in data:
        # The header of an earlier job.
        stored = [source.get("stretch") for source in data["sources"]]
        if not stored or any(one != stored[0] for one in stored) or stored[0] is None:
            raise StretchError("does not hold one stretch for all its rasters", path=path, remedy="name another file")
        return Stretch.from_dict(stored[0])
    try:
        return Stretch.from_dict(data.get("stretch", data) if isinstance(data, dict) else {})
    except StretchError as error:
        raise StretchError(
            "holds no stretch", path=path, measured=error.measured, remedy="write kind, low and high per band"
        ) from error
