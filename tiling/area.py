"""An area of interest: four numbers, or a vector file in any CRS, as one geometry in the raster's coordinates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from tiling.errors import AreaError, UsageError
from tiling.vectors import indirect, refuse_indirect, unreadable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pyproj import CRS, Transformer
    from shapely.geometry.base import BaseGeometry

    from tiling.info import RasterInfo

_STEPS = 1024
"""Straight edges are cut into pieces of this share of the area before they are transformed."""
_MARGIN = 0.01
"""Share of the raster's extent by which areas in another CRS may reach further."""
_TURNS = (-360, 0, 360)


class AreaTextError(AreaError, UsageError):
    """An area's four numbers or their CRS cannot be understood."""

    exit_code = UsageError.exit_code


def parse_area(spec: str | Path, info: RasterInfo) -> BaseGeometry:
    """Read an area.

    Degrees are turned by 360 as needed, so that an area at -179.9 finds a raster that counts on beyond 180.

    Args:
        spec: ``xmin,ymin,xmax,ymax`` in the raster's CRS (columns and rows when it has none), the same followed by
            ``@EPSG:4326`` for another CRS, or a vector file, whose features are joined.
        info: The raster.

    Returns:
        A valid geometry in the raster's CRS, or in pixels when it has none. One given in another CRS is cut to the
        raster and its surroundings, because further away the raster's CRS may mean nothing.

    Raises:
        AreaTextError: Four numbers or their CRS make no sense.
        AreaError: It cannot be read, leads to other files, has no surface, or misses the raster.
    """
    import shapely

    geometry, crs = _from_numbers(str(spec)) or _from_file(Path(spec))
    geometry = _surface(geometry)
    if geometry.is_empty:
        raise AreaError("has no surface", path=str(spec), remedy="give a polygon or xmin,ymin,xmax,ymax")
    outline = raster_outline(info)
    if crs is not None:
        geometry = _into_raster(geometry, crs, info, str(spec))
    if info.crs is not None and info.crs.is_geographic:
        copies = [_turned(geometry, turn) for turn in _TURNS]
        geometry = shapely.union_all([copy for copy in copies if copy.relate_pattern(outline, "T********")] or geometry)
    if not geometry.intersects(outline):
        raise _miss(geometry, outline, info, info.crs.to_string() if info.crs else "pixels")
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


def _miss(geometry: BaseGeometry, outline: BaseGeometry, info: RasterInfo, crs: str) -> AreaError:
    return AreaError(
        f"the area {_extent(geometry)} misses the raster {_extent(outline)}",
        path=info.path,
        measured=crs,
        remedy="check the area's coordinates and CRS",
    )


def _surface(geometry: BaseGeometry) -> BaseGeometry:
    """Return the polygons of a geometry as a valid one, empty if there are none."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(shapely.force_2d(geometry))))
    return shapely.union_all(parts[shapely.area(parts) > 0])


def _turned(geometry: BaseGeometry, turn: float) -> BaseGeometry:
    import numpy as np
    import shapely

    return shapely.transform(geometry, lambda xy: np.add(xy, (turn, 0)))


def _from_numbers(spec: str) -> tuple[BaseGeometry, CRS | None] | None:
    import shapely
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    text, _, other = spec.partition("@")
    parts = text.split(",")
    if len(parts) != 4:
        return None
    try:
        xmin, ymin, xmax, ymax = (float(part) for part in parts)
    except ValueError:
        return None
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))) or not (xmin < xmax and ymin < ymax):
        raise AreaTextError("an area is xmin,ymin,xmax,ymax with min below max", measured=spec)
    try:
        return shapely.box(xmin, ymin, xmax, ymax), CRS.from_user_input(other) if other else None
    except CRSError as error:
        raise AreaTextError(
            "the CRS is not known", measured=spec, remedy="write it as xmin,ymin,xmax,ymax@EPSG:4326"
        ) from error


def _from_file(path: Path) -> tuple[BaseGeometry, CRS | None]:
    if not path.is_file():
        raise AreaError(
            "is neither xmin,ymin,xmax,ymax nor a vector file", path=path, remedy="give four numbers or a file's name"
        )
    import pyogrio
    import shapely
    from pyogrio.errors import CRSError, DataLayerError, DataSourceError
    from pyproj import CRS
    from pyproj.exceptions import ProjError

    refuse_indirect(path, AreaError)
    try:
        if pyogrio.read_info(path)["driver"] == "OGR_VRT":
            raise indirect(path, AreaError)
        meta, _, wkb, _ = pyogrio.raw.read(path, columns=[])
        parts = shapely.from_wkb([] if wkb is None else wkb, on_invalid="fix")
        crs = CRS.from_user_input(meta["crs"]) if meta["crs"] else None
    except (CRSError, DataLayerError, DataSourceError, ProjError, ValueError, OSError) as error:
        raise unreadable(path, AreaError, error) from error
    parts = parts[~shapely.is_missing(parts)]
    if not len(parts):
        raise AreaError("holds no geometry", path=path)
    return shapely.union_all(shapely.make_valid(parts)), crs


def _into_raster(geometry: BaseGeometry, origin: CRS, info: RasterInfo, shown: str) -> BaseGeometry:
    """Cut an area to where the raster is and transform it, with edges that bend as they should."""
    import numpy as np
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
        target = CRS.from_user_input(info.crs.to_wkt())
        if origin.equals(target, ignore_axis_order=True):
            return geometry
        transformer = Transformer.from_crs(origin, target, always_xy=True)
    except ProjError as error:
        raise AreaError(
            "cannot be transformed into the raster's CRS",
            path=shown,
            measured=str(error)[:120],
            remedy="give the area in the raster's CRS",
        ) from error
    reach = _reach(info, transformer)
    if reach is not None:
        turns = _TURNS if origin.is_geographic else (0,)
        near = _surface(shapely.union_all([_turned(geometry, turn).intersection(reach) for turn in turns]))
        if near.is_empty:
            raise _miss(geometry, reach, info, origin.to_string())
        if near.covers(reach):
            return raster_outline(info)
        geometry = near
    middle = info.transform * (info.width_px / 2, info.height_px / 2)

    def move(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = transformer.transform(xy[:, 0], xy[:, 1])
        return np.column_stack((x - 360 * np.round((x - middle[0]) / 360) if target.is_geographic else x, y))

    west, south, east, north = geometry.bounds
    moved = shapely.transform(shapely.segmentize(geometry, max(east - west, north - south) / _STEPS), move)
    if not np.isfinite(moved.bounds).all():
        raise AreaError("the area lies outside the raster's CRS", path=shown, measured=_extent(geometry))
    if target.is_geographic and _jumps(moved):
        raise AreaError(
            "the area crosses a pole or the rim of the raster's degrees",
            path=shown,
            measured=_extent(geometry),
            remedy="give it in degrees",
        )
    moved = _surface(moved)
    if moved.is_empty:
        raise AreaError("the area has no surface in the raster's CRS", path=shown, measured=_extent(geometry))
    return moved


def _jumps(geometry: BaseGeometry) -> bool:
    """Say whether a ring in degrees leaps to the other side of the Earth."""
    import numpy as np
    import shapely

    rings = shapely.get_rings(shapely.get_parts(geometry))
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    return bool(((np.abs(np.diff(xy[:, 0])) > 180) & (np.diff(ring) == 0)).any())


def _reach(info: RasterInfo, transformer: Transformer) -> BaseGeometry | None:
    """Return the raster's bounds and a margin in an area's CRS, None when that does not hold the raster."""
    import shapely
    from pyproj.exceptions import ProjError

    left, bottom, right, top = raster_outline(info).bounds
    try:
        west, south, east, north = transformer.transform_bounds(left, bottom, right, top, direction="INVERSE")
    except ProjError:
        return None
    if not all(map(math.isfinite, (west, south, east, north))):
        return None
    dx, dy = (east - west) * _MARGIN, (north - south) * _MARGIN
    if transformer.source_crs is not None and transformer.source_crs.is_geographic:
        east += 360 if east < west else 0
        # More than a whole turn would show the same ground twice.
        dx = max(0.0, min((east - west) * _MARGIN, (360 - east + west) / 2))
    return shapely.box(west - dx, south - dy, east + dx, north + dy)
