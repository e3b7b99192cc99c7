"""Outlines in longitude and latitude: densified, so that straight lines bend as they should, split at ±180°."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from pyproj import Transformer

_STEPS = 8


def to_lonlat(corners: ArrayLike, crs: Any) -> Any | None:  # noqa: ANN401 - shapely and rasterio have no types
    """Return an outline as a valid geometry in OGC:CRS84, within ±180° and counter-clockwise.

    Args:
        corners: (N, 2) coordinates around it.
        crs: Their CRS, of any library.

    Returns:
        A polygon or several, or None where a point cannot be placed on the Earth.
    """
    import antimeridian
    import numpy as np
    import shapely
    from shapely.geometry.polygon import orient

    way = _transformer(crs.to_wkt() if hasattr(crs, "to_wkt") else str(crs))
    if way is None:
        return None
    outline = orient(shapely.Polygon(corners))
    xmin, ymin, xmax, ymax = outline.bounds
    dense = shapely.segmentize(outline, max(xmax - xmin, ymax - ymin) / _STEPS)
    ground = shapely.transform(dense, lambda xy: np.column_stack(way.transform(xy[:, 0], xy[:, 1])))
    if not np.isfinite(shapely.get_coordinates(ground)).all():
        return None
    west, _, east, _ = ground.bounds
    # Rasters in degrees may count on beyond the date line.
    if west < -180 or east > 180 or east - west >= 180:
        ground = antimeridian.fix_polygon(ground, fix_winding=True)
    ground = shapely.make_valid(ground)
    polygons = [orient(part) for part in getattr(ground, "geoms", [ground]) if part.geom_type == "Polygon"]
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)


@lru_cache(maxsize=1024)
def _transformer(wkt: str) -> Transformer | None:
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    try:
        return Transformer.from_crs(CRS.from_user_input(wkt).to_2d(), "OGC:CRS84", always_xy=True)
    except ProjError:
        # Another planet's.
        return None
