"""Labels as a vector file holds them: one layer, one field of classes, every geometry valid."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.errors import GeoAlignError
from tiling.vectors import indirect, refuse_indirect, unreadable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pyproj import CRS

    from tiling.chips.spec import LabelSpec

CLASS_FIELDS = ("class", "label", "category", "name")
"""Fields that are taken for the class when just one of them is there and none was named."""


class LabelError(GeoAlignError):
    """A file of labels cannot be read, or cannot be laid over a raster."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The labels of a file that can be used."""

    geometries: NDArray[Any]
    """Valid, in two dimensions, each of points, lines or polygons alone."""
    names: list[str]
    """Class of each."""
    rows: NDArray[np.intp]
    """Place of each in the file, from 0."""
    crs: CRS | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    geometries: NDArray[Any]
    values: NDArray[Any] | None
    crs: Any


def read_features(spec: LabelSpec) -> Features:
    """Read a file of labels.

    Left out, and counted in the notes: features without a class, without a geometry, with coordinates that are not
    finite, and polygons or lines that have no extent. Invalid geometries are repaired (GEOS's structure method, which
    fills what a ring encloses twice). A collection of mixed parts keeps those of the highest dimension. Memory is
    that of the file's geometries and one column.

    Raises:
        LabelError: The file is missing, leads to other files, cannot be read, has several layers and none was named,
            lacks the field, or holds no label that can be used.
    """
    path = spec.path
    if not path.is_file():
        raise LabelError("is not a file", path=path, remedy="give a vector file, such as GPKG or GeoJSON")
    refuse_indirect(path, LabelError)
    table, told = _read_parquet(spec) if path.suffix.lower() in {".parquet", ".geoparquet"} else _read_ogr(spec)
    geometries, kept, left_out, repaired = _usable(table.geometries)
    names = [_one(path)] * len(geometries) if table.values is None else list(map(_one_line, table.values))
    classed = np.array([name != "" for name in names], dtype=bool)
    left_out["no class"] = int((kept & ~classed).sum())
    kept &= classed
    if not kept.any():
        raise LabelError(
            "holds no label that can be used", path=path, measured=_counted(left_out) or "0 features",
            remedy="check the file",
        )  # fmt: skip
    notes = list(told)
    if any(left_out.values()):
        notes.append(f"of {len(kept)} features left out: {_counted(left_out)}")
    if repaired:
        notes.append(f"invalid geometries repaired: {repaired}")
    crs, doubt = _crs(path, table.crs, geometries[kept])
    rows = np.flatnonzero(kept)
    return Features(geometries[rows], [names[row] for row in rows], rows, crs, (*notes, *doubt))


def _read_ogr(spec: LabelSpec) -> tuple[_Table, tuple[str, ...]]:
    import pyogrio
    import shapely
    from pyogrio.errors import CRSError, DataLayerError, DataSourceError

    path = spec.path
    try:
        layer = _layer(path, [name for name, kind in pyogrio.list_layers(path) if kind], spec.layer)
        info = pyogrio.read_info(path, layer=layer)
        if info["driver"] == "OGR_VRT":
            raise indirect(path, LabelError)
        field, note = _field(spec, list(map(str, info["fields"])))
        with warnings.catch_warnings(record=True) as told:
            meta, _, wkb, columns = pyogrio.raw.read(path, layer=layer, columns=[] if field is None else [field])
        geometries = shapely.from_wkb(wkb, on_invalid="fix")
    except (CRSError, DataLayerError, DataSourceError, ValueError, OSError) as error:
        raise unreadable(path, LabelError, error) from error
    notes = (note, *sorted({_one_line(warning.message) for warning in told}))
    return _Table(geometries, columns[0] if columns else None, meta["crs"]), notes


def _read_parquet(spec: LabelSpec) -> tuple[_Table, tuple[str, ...]]:
    import geopandas
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = spec.path
    try:
        schema = pq.read_schema(path)
        primary = json.loads((schema.metadata or {})[b"geo"])["primary_column"]
        field, note = _field(spec, [name for name in schema.names if name not in {primary, "bbox"}])
        frame = geopandas.read_parquet(path, columns=[*([] if field is None else [field]), primary])
    except (KeyError, TypeError, ValueError, OSError, pa.ArrowException) as error:
        raise unreadable(path, LabelError, error) from error
    values = None if field is None else frame[field].to_numpy(dtype=object, na_value=None)
    return _Table(frame[primary].to_numpy(), values, frame.crs), (note,)


def _layer(path: Path, layers: list[str], wanted: str | None) -> str:
    if wanted is None and len(layers) == 1:
        return layers[0]
    if wanted in layers and wanted is not None:
        return wanted
    if not layers:
        raise LabelError("holds no geometry", path=path, remedy="give a vector file, such as GPKG or GeoJSON")
    what = "holds several layers" if wanted is None else f"has no layer {wanted!r}"
    raise LabelError(what, path=path, remedy=f"choose one of: {', '.join(map(_one_line, layers))}")


def _field(spec: LabelSpec, fields: list[str]) -> tuple[str | None, str]:
    """Return the field of the class, or None when all labels are of one class; and a note that tells it."""
    if spec.field is not None:
        if spec.field not in fields:
            listed = ", ".join(map(_one_line, fields)) or "no fields"
            raise LabelError(f"has no field {spec.field!r}", path=spec.path, remedy=f"there are: {listed}")
        return spec.field, f"classes are those of the field {spec.field!r}"
    likely = [field for field in fields if field.lower() in CLASS_FIELDS]
    if len(likely) == 1:
        return likely[0], f"classes are those of the field {likely[0]!r}"
    why = f", for the class could be in {', '.join(likely)}" if likely else ""
    return None, f"all labels are of one class, {_one(spec.path)!r}{why}"


def _one(path: Path) -> str:
    return _one_line(path.stem) or "label"


def _one_line(value: Any) -> str:  # noqa: ANN401 - of any column
    """Return a value as text on one line, "" when it is missing. Whole numbers lose their ".0"."""
    if value is None or (isinstance(value, float | np.floating | np.datetime64) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())


def _usable(geometries: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_], dict[str, int], int]:
    """Return repaired geometries, which of them can be used, why the others cannot, and how many were repaired."""
    import shapely

    there = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    coordinates, owner = shapely.get_coordinates(geometries, return_index=True)
    finite = there.copy()
    finite[owner[~np.isfinite(coordinates).all(axis=1)]] = False
    fixed = geometries.copy()
    fixed[finite] = shapely.force_2d(geometries[finite])
    dimensions = shapely.get_dimensions(fixed)
    broken = finite & ~shapely.is_valid(fixed)
    fixed[broken] = shapely.make_valid(fixed[broken], method="structure", keep_collapsed=False)
    for index in np.flatnonzero(finite & (shapely.get_type_id(fixed) == shapely.GeometryType.GEOMETRYCOLLECTION)):
        fixed[index] = only(fixed[index], int(dimensions[index]))
    extended = finite & ~shapely.is_empty(fixed) & (measure(fixed) > 0)
    left_out = {
        "no geometry": int((~there).sum()),
        "endless coordinates": int((there & ~finite).sum()),
        "no extent": int((finite & ~extended).sum()),
    }
    return fixed, extended, left_out, int((broken & extended).sum())


def only(geometry: Any, dimension: int, least: float = 0.0) -> Any:  # noqa: ANN401 - shapely has no types
    """Return the parts of a dimension that measure more than ``least``, as one geometry, empty if there is none."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts(geometry))
    parts = parts[(shapely.get_dimensions(parts) == dimension) & (measure(parts) > least)]
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def measure(geometries: NDArray[Any]) -> NDArray[np.float64]:
    """Return the area of polygons, the length of lines and the number of points."""
    import shapely

    dimensions = shapely.get_dimensions(geometries)
    sizes = np.where(dimensions == 2, shapely.area(geometries), shapely.length(geometries))
    return np.where(dimensions == 0, shapely.get_num_geometries(geometries), sizes)


def _counted(left_out: dict[str, int]) -> str:
    return ", ".join(f"{count} with {reason}" for reason, count in left_out.items() if count)


def _crs(path: Path, found: Any, geometries: NDArray[Any]) -> tuple[CRS | None, tuple[str, ...]]:  # noqa: ANN401
    """Return the CRS that a file states, None where it states none or one that its coordinates cannot be in."""
    import shapely
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    none = "the labels have no CRS, each raster's own is taken"
    if not found:
        return None, (none,)
    try:
        crs = CRS.from_user_input(found)
    except CRSError as error:
        raise LabelError("has an unknown CRS", path=path, measured=str(found)[:80], remedy="assign one") from error
    if crs.type_name.startswith(("Engineering", "Local")):
        return None, (none,)
    west, south, east, north = shapely.total_bounds(geometries)
    if crs.is_geographic and (max(-west, east) > 720 or max(-south, north) > 100):
        # GeoJSON is always in degrees by its standard, and is often written in metres or pixels all the same.
        return None, (f"the labels cannot be in degrees ({west:.6g} … {east:.6g}), each raster's own CRS is taken",)
    return crs, ()
