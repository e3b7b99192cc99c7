"""An area of interest: four numbers, or a vector file in any CRS, as one geometry in the raster's coordinates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiling.errors import AreaError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from tiling.info import RasterInfo

_DENSIFY = 32


def parse_area(spec: str | Path, info: RasterInfo) -> BaseGeometry:
    """Read an area.

    Args:
        spec: ``xmin,ymin,xmax,ymax`` in the raster's CRS (columns and rows when it has none), the same followed by
            ``@EPSG:4326`` for another CRS, or a vector file, whose features are joined.
        info: The raster.

    Returns:
        A valid geometry in the raster's CRS, or in pixels when it has none. It is not cut to the raster.

    Raises:
        AreaError: It cannot be understood or read, has no surface, or misses the raster.
    """
    import shapely

    geometry = _from_numbers(str(spec), info) or _from_file(Path(spec), info)
    geometry = shapely.make_valid(geometry)
    if geometry.is_empty or geometry.area == 0:
        raise AreaError("has no surface", path=str(spec), remedy="give a polygon or xmin,ymin,xmax,ymax")
    outline = raster_outline(info)
    if not geometry.intersects(outline):
        raise AreaError(
            f"the area {_extent(geometry)} misses the raster {_extent(outline)}",
            path=info.path,
            measured=str(info.crs.to_string() if info.crs else "pixels"),
            remedy="check the area's coordinates and CRS",
        )
    return geometry


def raster_outline(info: RasterInfo) -> BaseGeometry:
    """Return the raster's outline in its CRS, or in pixels when it has none."""
    import shapely

    corners = [(0, 0), (info.width_px, 0), (info.width_px, info.height_px), (0, info.height_px)]
    return shapely.Polygon(corners if info.crs is None else [info.transform * corner for corner in corners])


def to_canvas(geometry: BaseGeometry, info: RasterInfo, scale_x: float, scale_y: float) -> BaseGeometry:
    """Return an area from :func:`parse_area` in canvas pixels."""
    from affine import Affine
    from shapely import affinity

    to_px = Affine.scale(1 / scale_x, 1 / scale_y)
    if info.crs is not None:
        to_px = to_px * ~info.transform
    return affinity.affine_transform(geometry, to_px.to_shapely())


def _extent(geometry: BaseGeometry) -> str:
    return ",".join(f"{value:.8g}" for value in geometry.bounds)


def _from_numbers(spec: str, info: RasterInfo) -> BaseGeometry | None:
    import shapely

    text, _, other = spec.partition("@")
    parts = text.split(",")
    if len(parts) != 4:
        return None
    try:
        xmin, ymin, xmax, ymax = (float(part) for part in parts)
    except ValueError:
        return None
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))) or not (xmin < xmax and ymin < ymax):
        raise AreaError("an area is xmin,ymin,xmax,ymax with min below max", measured=spec)
    box = shapely.box(xmin, ymin, xmax, ymax)
    return _into_raster(box, other, info, spec) if other else box


def _from_file(path: Path, info: RasterInfo) -> BaseGeometry:
    if not path.is_file():
        raise AreaError(
            "is neither xmin,ymin,xmax,ymax nor a vector file", path=path, remedy="give four numbers or a file's name"
        )
    import pyogrio
    import shapely
    from pyogrio.errors import DataLayerError, DataSourceError

    if path.suffix.lower() == ".vrt":
        raise AreaError("is a virtual layer, which may read other files", path=path, remedy="convert it with ogr2ogr")
    try:
        meta, _, wkb, _ = pyogrio.raw.read(path, columns=[])
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        raise AreaError(
            "is not a vector file that can be read", path=path, measured=str(error)[:120], remedy="use GPKG or GeoJSON"
        ) from error
    parts = [] if wkb is None else [part for part in shapely.from_wkb(wkb) if part is not None]
    if not parts:
        raise AreaError("holds no geometry", path=path)
    union = shapely.union_all(shapely.make_valid(parts))
    return _into_raster(union, meta["crs"], info, str(path)) if meta["crs"] else union


def _into_raster(geometry: BaseGeometry, crs: str, info: RasterInfo, shown: str) -> BaseGeometry:
    """Transform a geometry; edges are first densified so that straight lines bend as they should."""
    import shapely
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    if info.crs is None:
        raise AreaError(
            "the area has a CRS and the raster has none",
            path=info.path,
            measured=shown,
            remedy="give the area in pixels: xmin,ymin,xmax,ymax",
        )
    try:
        origin, target = CRS.from_user_input(crs), CRS.from_user_input(info.crs.to_wkt())
        if origin.equals(target, ignore_axis_order=True):
            return geometry
        transformer = Transformer.from_crs(origin, target, always_xy=True)
    except ProjError as error:
        raise AreaError("the CRS is not known", path=shown, measured=crs, remedy="write it as EPSG:4326") from error
    xmin, ymin, xmax, ymax = geometry.bounds
    step = max(xmax - xmin, ymax - ymin) / _DENSIFY
    dense = shapely.segmentize(geometry, step) if step > 0 else geometry

    def move(xy: Any) -> Any:  # noqa: ANN401
        import numpy as np

        return np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))

    moved = shapely.transform(shapely.force_2d(dense), move)
    if not all(map(math.isfinite, moved.bounds)):
        raise AreaError("the area lies outside the raster's CRS", path=shown, measured=_extent(geometry))
    return moved
