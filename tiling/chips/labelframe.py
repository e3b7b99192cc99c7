"""Labels of tiles as one layer for a GIS: GeoJSON or GeoParquet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.errors import NotGeoreferencedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from tiling.chips.labelfiles import LabelledTile, Target

LONLAT = "OGC:CRS84"
_EDGE_PX = 32
"""Longest straight edge before labels are transformed, so that they bend as they should."""
_TYPES = {
    "class": "str", "class_id": "int64", "tile": "str", "feature": "int64", "truncated": "bool",
    "visible": "float64", "split": "object",
}  # fmt: skip


def write_frame(to: Target, tiles: Iterable[LabelledTile], *, as_geojson: bool) -> Path:
    """Write ``labels.geojson`` or ``labels.parquet``: a row for each label in each tile. Returns the path.

    Memory is that of all rows.

    Raises:
        NotGeoreferencedError: GeoJSON is asked for and a tile has no CRS.
        OutputExistsError, OutputWriteError: See :meth:`tiling.chips.labelfiles.Target.file`.
    """
    import pyogrio

    target = to.folder / ("labels.geojson" if as_geojson else "labels.parquet")
    frame = _frame(tiles, in_lonlat=as_geojson, path=target)
    with to.file(target) as temporary:
        if as_geojson:
            pyogrio.write_dataframe(
                frame, temporary, driver="GeoJSON", layer="labels", geometry_type="Unknown",
                RFC7946="YES", COORDINATE_PRECISION="8",
            )  # fmt: skip
        else:
            frame.to_parquet(
                temporary, index=False, compression="zstd", write_covering_bbox=True, schema_version="1.1.0"
            )
    return target


def _frame(tiles: Iterable[LabelledTile], *, in_lonlat: bool, path: Path) -> GeoDataFrame:
    import geopandas
    from shapely import affinity

    rows: dict[str, list[Any]] = {name: [] for name in _TYPES}
    shapes: list[Any] = []
    edges: list[float] = []
    systems: dict[str | None, list[int]] = {}
    for tile in tiles:
        if tile.crs is None and in_lonlat:
            raise NotGeoreferencedError(
                "GeoJSON holds longitude and latitude, and a tile has no CRS",
                path=path,
                measured=tile.path,
                remedy="use --labels-format geoparquet, which keeps pixels",
            )
        members = systems.setdefault(None if tile.crs is None else tile.crs.to_wkt(), [])
        members.extend(range(len(shapes), len(shapes) + len(tile.labels)))
        matrix = tile.transform
        for label in tile.labels:
            values = (label.class_name, label.class_id, tile.path, label.feature, label.truncated)
            for name, value in zip(_TYPES, (*values, round(label.visible, 6), tile.split), strict=True):
                rows[name].append(value)
            shapes.append(affinity.affine_transform(label.geometry, matrix.to_shapely()))
        edges.extend([_EDGE_PX * math.sqrt(abs(matrix.determinant))] * len(tile.labels))
    geometry = np.array(shapes, dtype=object)
    crs = next(iter(systems), None)
    if in_lonlat or len(systems) > 1:
        crs = LONLAT
        for system, members in systems.items():
            geometry[members] = _lonlat(geometry[members], np.array(edges)[members], system, path)
    columns = {name: np.array(rows[name], dtype=kind) for name, kind in _TYPES.items()}
    return geopandas.GeoDataFrame(columns, geometry=geometry, crs=crs)


def _lonlat(shapes: NDArray[Any], edges: NDArray[np.float64], crs: str | None, path: Path) -> NDArray[Any]:
    """Return shapes on OGC:CRS84, cut at 180°; None for those that have no place there."""
    import antimeridian
    import shapely
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    placed = np.full(len(shapes), None, dtype=object)
    if crs is None:
        return placed
    try:
        transformer = Transformer.from_crs(crs, LONLAT, always_xy=True)
    except ProjError as error:
        raise NotGeoreferencedError(
            "this CRS has no longitude and latitude", path=path, measured=str(error)[:120], remedy="use another format"
        ) from error
    dense = shapely.segmentize(shapes, edges)
    moved = shapely.transform(dense, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1])))
    west, _, east, _ = bounds = shapely.bounds(moved).T
    finite = np.isfinite(bounds).all(axis=0)
    placed[finite] = moved[finite]
    for index in np.flatnonzero(finite & ((east - west > 180) | (west < -180) | (east > 180))):
        if shapely.get_dimensions(moved[index]) > 0:
            placed[index] = shapely.geometry.shape(antimeridian.fix_shape(moved[index], fix_winding=True))
    return placed
