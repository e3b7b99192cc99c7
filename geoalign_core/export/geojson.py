"""What RFC 7946 asks of geometries: longitude and latitude on WGS 84, cut at 180°, right-handed rings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tiling.errors import NotGeoreferencedError, OutputWriteError

if TYPE_CHECKING:
    from pathlib import Path

    from geopandas import GeoDataFrame, GeoSeries
    from shapely.geometry.base import BaseGeometry

_REMEDY = "write .gpkg, which keeps the coordinates as they are"
_LONGEST_EDGE_DEG = 90.0


def to_lonlat(frame: GeoDataFrame, *, path: Path) -> GeoDataFrame:
    """Return the frame in longitude and latitude on WGS 84, cut where it crosses 180° or holds a pole.

    Args:
        frame: Polygons in any coordinate system of the Earth.
        path: Named in errors.

    Raises:
        NotGeoreferencedError: The frame has no coordinate system, or one of another planet.
        OutputWriteError: A coordinate has no longitude and latitude.
    """
    from pyproj.exceptions import ProjError

    if frame.crs is None:
        raise NotGeoreferencedError(
            "GeoJSON holds longitude and latitude, and this raster has no coordinate system", path=path, remedy=_REMEDY
        )
    if frame.empty:
        return frame.set_crs("EPSG:4326", allow_override=True)
    geometry = frame.geometry
    if frame.crs.is_geographic:
        # Two corners 200° apart are one long edge here, and would be taken for a crossing of 180°.
        geometry = geometry.segmentize(_LONGEST_EDGE_DEG)
    try:
        lonlat = geometry.to_crs("EPSG:4326")
    except ProjError as error:
        reason = str(error).splitlines()[0]
        raise NotGeoreferencedError(
            "this coordinate system has no longitude and latitude on Earth", path=path, measured=reason, remedy=_REMEDY
        ) from error
    if not np.isfinite(lonlat.bounds.to_numpy()[~lonlat.is_empty]).all():
        raise OutputWriteError("a geometry lies outside the coordinate system's domain", path=path, remedy=_REMEDY)
    shapes = lonlat.to_numpy().copy()
    north, south = _holds_pole(geometry, 90.0), _holds_pole(geometry, -90.0)
    for index in np.flatnonzero(_leaves_the_map(lonlat) | north | south):
        shapes[index] = _cut(shapes[index], north=bool(north[index]), south=bool(south[index]))
    return frame.set_geometry(type(lonlat)(shapes, crs="EPSG:4326", index=frame.index))


def _leaves_the_map(lonlat: GeoSeries) -> np.ndarray:
    """Return for each shape whether it lies on both sides of 180°: one edge then seems to run round the world."""
    import shapely

    west, _, east, _ = shapely.bounds(lonlat.to_numpy()).T
    return np.asarray((east - west > 180.0) | (west < -180.0) | (east > 180.0))


def _cut(shape: BaseGeometry, *, north: bool, south: bool) -> BaseGeometry:
    import antimeridian

    if shape.geom_type not in {"Polygon", "MultiPolygon"}:
        return shape
    fix = antimeridian.fix_polygon if shape.geom_type == "Polygon" else antimeridian.fix_multi_polygon
    return fix(shape, force_north_pole=north, force_south_pole=south, fix_winding=True)


def _holds_pole(geometry: GeoSeries, latitude: float) -> np.ndarray:
    """Return for each shape in its own coordinate system whether the pole lies inside it."""
    import shapely
    from pyproj import Transformer

    if geometry.crs.is_geographic:
        return np.zeros(len(geometry), dtype=bool)
    x, y = Transformer.from_crs("EPSG:4326", geometry.crs, always_xy=True).transform(0.0, latitude)
    if not np.isfinite([x, y]).all():
        return np.zeros(len(geometry), dtype=bool)
    return np.asarray(shapely.contains_xy(geometry.to_numpy(), x, y))
