"""What a request asks for, read from JSON with every type and range checked."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geoalign_core.engine.protocol import Failure

if TYPE_CHECKING:
    import shapely

RUNGS: tuple[int, ...] = tuple(range(10, 100, 5))
PRODUCTS = ("heatmap", "regions")
_TEXT_CHARS = 2000
_WKT_CHARS = 50_000
_LIST_ITEMS = 2000
_FARTHEST = 1e12
"""No coordinate of a map is larger; sums of much larger ones overflow."""
_DEVICE = re.compile(r"con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]", re.IGNORECASE)
_MODES = {"auto", "none", "min-max"}


class Fields:
    """Typed access to one JSON object; what it does not name is ignored.

    Args:
        data: The object.
        where: What it is called in messages.
    """

    def __init__(self, data: dict[str, Any], where: str) -> None:
        self._data, self._where = data, where

    def fail(self, key: str, expected: str) -> Failure:
        """Return the failure of a value that is not what it should be."""
        return Failure("bad_request", f"{self._where}.{key} is not {expected}", remedy="see the protocol's page")

    def text(self, key: str, *, limit: int = _TEXT_CHARS) -> str:
        """Return a text that must be there and not be empty."""
        value = self.optional_text(key, limit=limit)
        if not value:
            raise self.fail(key, "a text")
        return value

    def optional_text(self, key: str, default: str | None = None, *, limit: int = _TEXT_CHARS) -> str | None:
        """Return a text, or the default when it is missing or null."""
        value = self._data.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > limit or not _is_clean(value):
            raise self.fail(key, f"a text of at most {limit} plain characters")
        return value

    def number(self, key: str, default: float | None, *, low: float = 0.0, high: float = math.inf) -> float | None:
        """Return a finite number from ``low`` to ``high``, or the default."""
        value = self._data.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_between(value, low, high):
            raise self.fail(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def whole(self, key: str, default: int | None, *, low: int = 1, high: int = 10**6) -> int | None:
        """Return a whole number from ``low`` to ``high``, or the default."""
        value = self._data.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(key, f"a whole number from {low} to {high}")
        return value

    def flag(self, key: str) -> bool:
        """Return a truth value, false when it is missing."""
        value = self._data.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return bool(value)

    def items(self, key: str) -> list[Any]:
        """Return a list, empty when it is missing."""
        value = self._data.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > _LIST_ITEMS:
            raise self.fail(key, f"a list of at most {_LIST_ITEMS}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts, empty when it is missing."""
        values = self.items(key)
        if not all(isinstance(value, str) and len(value) <= _TEXT_CHARS and _is_clean(value) for value in values):
            raise self.fail(key, "a list of texts")
        return tuple(values)

    def inner(self, key: str) -> Fields:
        """Return an object, empty when it is missing."""
        value = self._data.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.fail(key, "an object")
        return Fields(value or {}, key)

    def raw(self, key: str) -> Any:  # noqa: ANN401 - a value whose type decides what it means
        """Return a value as it stands."""
        return self._data.get(key)

    def geometry(self, key: str) -> shapely.Geometry | None:
        """Return a GeoJSON geometry, or None when it is missing."""
        value = self._data.get(key)
        return None if value is None else read_geometry(value, f"{self._where}.{key}")

    def geometries(self, key: str) -> tuple[shapely.Geometry, ...]:
        """Return a list of GeoJSON geometries."""
        return tuple(read_geometry(value, f"{self._where}.{key}[{at}]") for at, value in enumerate(self.items(key)))


def read_geometry(value: object, where: str) -> shapely.Geometry:
    """Read a GeoJSON geometry.

    Raises:
        Failure: ``bad_request``: it is none, is empty or holds what is no coordinate.
    """
    import numpy as np
    import shapely as shp
    from shapely.errors import ShapelyError

    wrong = Failure("bad_request", f"{where} is not a GeoJSON geometry", remedy="give type and coordinates")
    if not isinstance(value, dict):
        raise wrong
    try:
        geometry = shp.force_2d(shp.from_geojson(json.dumps(value)))
        # Comparing this way round refuses NaN too.
        if not (np.abs(shp.get_coordinates(geometry)) <= _FARTHEST).all():
            raise Failure("bad_request", f"{where} lies on no map", remedy=f"give coordinates up to {_FARTHEST:g}")
        geometry = shp.make_valid(geometry)
    except (ShapelyError, ValueError, TypeError, RecursionError) as error:
        raise wrong from error
    if geometry is None or geometry.is_empty:
        raise wrong
    return geometry


@dataclass(frozen=True, slots=True)
class SourceArgs:
    """Which raster."""

    path: str
    crs: str | None = None
    allow_vrt: bool = False

    @classmethod
    def read(cls, fields: Fields) -> SourceArgs:
        """Read the object ``source``."""
        crs = fields.optional_text("crs", limit=_WKT_CHARS)
        return cls(fields.text("path"), crs or None, fields.flag("allow_vrt"))


@dataclass(frozen=True, slots=True)
class LookArgs:
    """How to look at it."""

    model: str | None = None
    device: str = "auto"
    gsd_m: float | None = None
    bands: str | None = None
    stretch: str = "auto"

    @classmethod
    def read(cls, fields: Fields) -> LookArgs:
        """Read the object ``look``."""
        gsd_m = fields.number("gsd_m", None, low=1e-4, high=1e5)
        model, device = fields.optional_text("model") or None, fields.optional_text("device") or "auto"
        return cls(model, device, gsd_m, read_bands(fields), _stretch(fields))


def read_bands(fields: Fields) -> str | None:
    """Read ``bands``, a list of band numbers, as ``"4,1,2"``."""
    bands = fields.items("bands")
    if not all(isinstance(band, int) and not isinstance(band, bool) and 1 <= band <= 10_000 for band in bands):
        raise fields.fail("bands", "a list of band numbers from 1")
    return ",".join(map(str, bands)) or None


def _stretch(fields: Fields) -> str:
    value = fields.raw("stretch")
    if value is None:
        return "auto"
    if isinstance(value, str):
        # A file's name would let a client of the network read this machine's files.
        if value in _MODES or (value.startswith("p") and value[1:].replace("-", "", 1).replace(".", "").isdigit()):
            return value
        raise fields.fail("stretch", 'auto, none, min-max, p2-98 or {"ranges":[[low,high],…]}')
    ranges = value.get("ranges") if isinstance(value, dict) else None
    if not isinstance(ranges, list) or not 1 <= len(ranges) <= 3 or not all(map(_is_range, ranges)):
        raise fields.fail("stretch", "one to three ranges [low, high] of finite numbers with low below high")
    return ";".join(f"{float(low)!r},{float(high)!r}" for low, high in ranges)


def _is_range(pair: object) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in pair):
        return False
    return all(_is_between(end, -1e300, 1e300) for end in pair) and pair[0] < pair[1]


def _is_between(value: float, low: float, high: float) -> bool:
    return low <= value <= high and abs(value) < 1e308


def _is_clean(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


@dataclass(frozen=True, slots=True)
class Target:
    """Which part of which raster, looked at how: what every question of the index shares."""

    source: SourceArgs
    look: LookArgs
    area: shapely.Geometry | None

    @classmethod
    def read(cls, args: Fields) -> Target:
        """Read ``source``, ``look`` and ``area``."""
        area = args.geometry("area")
        if area is not None and not area.area > 0:
            raise args.fail("area", "a polygon with a surface")
        return cls(SourceArgs.read(args.inner("source")), LookArgs.read(args.inner("look")), area)


@dataclass(frozen=True, slots=True)
class AskArgs:
    """A question."""

    target: Target
    query: str | None
    avoid: tuple[str, ...]
    include: tuple[shapely.Geometry, ...]
    exclude: tuple[shapely.Geometry, ...]
    min_area_m2: float
    top: int
    out: str | None
    stem: str
    rungs: tuple[int, ...] = RUNGS
    products: tuple[str, ...] = field(default=PRODUCTS)

    @classmethod
    def read(cls, args: Fields) -> AskArgs:
        """Read the arguments of ``ask``."""
        rungs = args.items("rungs")
        if not all(isinstance(rung, int) and not isinstance(rung, bool) and 0 <= rung <= 100 for rung in rungs):
            raise args.fail("rungs", "a list of whole percentages")
        products = args.texts("products")
        if not set(products) <= set(PRODUCTS):
            raise args.fail("products", "a list of heatmap and regions")
        query = args.optional_text("query")
        include, exclude = args.geometries("include"), args.geometries("exclude")
        if not (query and query.strip()) and not include:
            raise Failure("query", "there is no question", remedy="say what to look for, or show an example")
        return cls(
            Target.read(args), query if query and query.strip() else None, args.texts("avoid"), include, exclude,
            args.number("min_area_m2", 0.0, high=1e15) or 0.0, args.whole("top", 500) or 500,
            args.optional_text("out"), read_stem(args), tuple(sorted(set(rungs))) or RUNGS, products or PRODUCTS,
        )  # fmt: skip


def read_stem(args: Fields) -> str:
    """Read ``stem``, a file name without folder and suffix."""
    stem = args.text("stem", limit=150)
    odd = any(character in '/\\:*?"<>|' or ord(character) < 32 for character in stem)
    # What begins with a hyphen is an option to many programs; the devices are no files on Windows, whatever follows.
    if odd or not stem.strip() or stem.startswith((".", "-")) or _DEVICE.fullmatch(stem.partition(".")[0].strip()):
        raise args.fail("stem", "a plain file name without a suffix")
    return stem
