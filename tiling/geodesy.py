"""True metres on the ground: pixel sizes and areas on the CRS's own ellipsoid, whatever the projection.

A web-Mercator pixel at 52° north covers 0.38 of its nominal area and a pixel in degrees has no size in metres at
all, so lengths and areas are always geodesic. The ellipsoid is that of the CRS: maps of Mars come out right too.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affine import Affine
    from numpy.typing import NDArray
    from pyproj import Geod, Transformer


@lru_cache(maxsize=32)
def _geodetic(wkt: str) -> tuple[Transformer, Geod] | None:
    """Return the transformer from a CRS to longitude and latitude on its ellipsoid, and the ellipsoid."""
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    try:
        crs = CRS.from_user_input(wkt)
        geod, geodetic = crs.get_geod(), crs.geodetic_crs
        if geod is None or geodetic is None:
            return None
        return Transformer.from_crs(crs.to_2d(), geodetic.to_2d(), always_xy=True), geod
    except ProjError:
        return None


def ground_size_m(
    crs: Any,  # noqa: ANN401 - a CRS of rasterio or pyproj, or a text that names one
    transform: Affine,
    width_px: int,
    height_px: int,
) -> tuple[float, float] | None:
    """Return the ground size in metres of one pixel at the raster's centre.

    Args:
        crs: The raster's CRS, or None.
        transform: From pixel to CRS coordinates; rotated and south-up ones are welcome.
        width_px: Columns.
        height_px: Rows.

    Returns:
        Metres along one column step and along one row step; None when there is no CRS, or when the centre lies
        where the CRS is not defined (the dark edge of a geostationary disc, say).
    """
    found = None if crs is None else _geodetic(_wkt(crs))
    if found is None:
        return None
    to_lonlat, geod = found
    col, row = width_px / 2, height_px / 2
    ends = [(col - 0.5, row), (col + 0.5, row), (col, row - 0.5), (col, row + 0.5)]
    x, y = np.array([transform * end for end in ends]).T
    lon, lat = to_lonlat.transform(x, y)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()) or np.abs(lat).max() > 90:
        return None
    _, _, metres = geod.inv(lon[0::2], lat[0::2], lon[1::2], lat[1::2])
    if not (np.isfinite(metres).all() and min(metres) > 0):
        return None
    return float(metres[0]), float(metres[1])


def area_m2(geometries: Sequence[Any] | NDArray[Any], crs: Any) -> NDArray[np.float64] | None:  # noqa: ANN401
    """Return the geodesic area of each geometry.

    Edges are taken as geodesics between their vertices, which for map features (metres to kilometres) differs
    from straight lines of the projection by less than one part in a million.

    Args:
        geometries: Shapely geometries in ``crs``; holes count, lines and points have no area.
        crs: Their CRS, or None.

    Returns:
        (N,) square metres, NaN where a vertex cannot be placed on the ground; None when there is no CRS.
    """
    import shapely

    found = None if crs is None else _geodetic(_wkt(crs))
    if found is None:
        return None
    to_lonlat, geod = found

    def place(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(to_lonlat.transform(xy[:, 0], xy[:, 1]))

    array = np.asarray(geometries, dtype=object)
    lonlat = shapely.orient_polygons(shapely.transform(shapely.force_2d(array), place))
    areas = np.zeros(len(array))
    for position, geometry in enumerate(lonlat):
        if geometry is None or geometry.is_empty:
            continue
        area = abs(geod.geometry_area_perimeter(geometry)[0])
        areas[position] = area if math.isfinite(area) else math.nan
    return areas


def _wkt(crs: Any) -> str:  # noqa: ANN401
    """Return a text that pyproj understands, for a CRS of any library."""
    if isinstance(crs, str):
        return crs
    return str(crs.to_wkt())
