"""Planes on which tiles of several rasters can be compared: whoever shares ground shares a plane.

A plane is the pixel plane of one raster's canvas. Rasters that overlap it, in whatever CRS, are moved onto it;
rasters that overlap nobody, and rasters without a CRS, have a plane of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.lonlat import to_lonlat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pyproj import Transformer

    from tiling.chips.manifest import Source
    from tiling.grid import Window

    Floats = NDArray[np.float64]

SLIVER_PX = 1e-3
"""Rasters and tiles that share less than this width do not overlap: it is rounding."""
_STEPS = 64
_CORNERS = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float64)
_RING = np.array([(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1), (0.5, 1), (0, 1), (0, 0.5)])
"""Corners and middles of the sides of a tile, in tiles."""
_EDGES = attrgetter("col_off_px", "row_off_px", "col_end_px", "row_end_px")


@dataclass(frozen=True, slots=True)
class Plane:
    """Tiles on the pixel plane of one of their rasters."""

    home: Source
    """The raster whose pixels the plane has: the one with the most tiles."""
    first: Floats
    """(2,) lowest column and row where a tile of that raster begins."""
    last: Floats
    """(2,) highest such column and row."""
    members: tuple[int, ...]
    """Positions of the rasters that lie on it."""
    boxes: tuple[Floats, ...]
    """For each member (N, 4): first column, first row, end column and end row of the box around every tile; NaN
    where a tile has no place on the plane."""
    widest_px: float
    """Longest side of all boxes."""


def lay_planes(sources: Sequence[Source], windows: Sequence[Sequence[Window]]) -> list[Plane]:
    """Put the tiles of several rasters on as many planes as there are groups of overlapping rasters.

    A raster that reaches beyond its CRS (the dark corners of a geostationary disc) may overlap any other, so it
    shares their plane.
    """
    edges = [_edges(own) for own in windows]
    planes = []
    for members in _groups(sources, edges):
        home = max(members, key=lambda member: (len(edges[member]), -member))
        boxes = tuple(_boxes(edges[member], sources[member], sources[home]) for member in members)
        sides = np.concatenate([box[:, 2:] - box[:, :2] for box in boxes])
        widest = float(np.nanmax(sides))
        starts = edges[home][:, :2]
        planes.append(Plane(sources[home], starts.min(axis=0), starts.max(axis=0), tuple(members), boxes, widest))
    return planes


def _edges(windows: Sequence[Window]) -> Floats:
    numbers = chain.from_iterable(map(_EDGES, windows))
    return np.fromiter(numbers, np.float64, 4 * len(windows)).reshape(-1, 4)


def _groups(sources: Sequence[Source], edges: Sequence[Floats]) -> list[list[int]]:
    """Return the positions of rasters that overlap one another, directly or by way of others."""
    import shapely
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    placed = [index for index, source in enumerate(sources) if source.crs_wkt is not None and len(edges[index])]
    rings = {index: _outline(edges[index]) for index in placed}
    ground = [_on_ground(sources[index], rings[index]) for index in placed]
    known = [index for index, shape in zip(placed, ground, strict=True) if shape is not None]
    shapes = np.array([shape for shape in ground if shape is not None], object)
    near = [(known[a], known[b]) for a, b in shapely.STRtree(shapes).query(shapes, predicate="intersects").T.tolist()]
    lost = sorted(set(placed) - set(known))
    near += [(min(one, other), max(one, other)) for one in lost for other in placed]
    pairs = [
        (one, other)
        for one, other in sorted(set(near))
        if one < other and _overlap(sources, rings[one], one, rings, other)
    ]
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(sources), len(sources)))
    labels = connected_components(links, directed=False)[1]
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(index)
    return [members for members in groups.values() if any(len(edges[member]) for member in members)]


def _outline(edges: Floats) -> Floats:
    """Return (N, 2) points around all tiles of a raster, in its pixels."""
    low, high = edges[:, :2].min(axis=0), edges[:, 2:].max(axis=0)
    steps = np.arange(_STEPS)[:, None] / _STEPS
    turns = zip(_CORNERS, np.roll(_CORNERS, -1, axis=0), strict=True)
    return np.asarray(low + np.concatenate([a + (b - a) * steps for a, b in turns]) * (high - low))


def _on_ground(source: Source, ring: Floats) -> Any | None:  # noqa: ANN401
    """Return a raster's outline in longitude and latitude, a little too large; None where it leaves its CRS."""
    x, y = source.transform * ring.T
    ground = to_lonlat(np.column_stack([x, y]), source.crs)
    if ground is None:
        return None
    west, south, east, north = ground.bounds
    return ground.buffer(0.01 * min(east - west, north - south), quad_segs=1)


def _overlap(sources: Sequence[Source], ring: Floats, one: int, rings: dict[int, Floats], other: int) -> bool:
    """Tell whether two rasters share ground, or may do so, on the plane of the first."""
    import shapely

    wkts = str(sources[other].crs_wkt), str(sources[one].crs_wkt)
    if wkts[0] != wkts[1] and _transformer(*wkts) is None:
        return False
    moved = _move(rings[other], sources[other], sources[one])
    if not np.isfinite(moved).all():
        return True
    bend = 0.0
    if wkts[0] != wkts[1]:
        # What the points of a curved side leave out, by the change of its direction.
        sides = moved.reshape(4, _STEPS, 2)
        bend = float(np.abs(np.diff(sides, 2, axis=1)).max())
    outline = shapely.make_valid(shapely.Polygon(moved)).buffer(bend, quad_segs=1)
    shared = shapely.intersection(outline, shapely.Polygon(ring))
    return not shared.buffer(-SLIVER_PX / 2).is_empty


def _boxes(edges: Floats, source: Source, home: Source) -> Floats:
    """Return the boxes around a raster's tiles on the plane of another (N, 4)."""
    if source is home:
        return edges
    warped = source.crs_wkt != home.crs_wkt
    ring = _RING if warped else _CORNERS
    low, size = edges[:, None, :2], edges[:, None, 2:] - edges[:, None, :2]
    points = _move((low + ring * size).reshape(-1, 2), source, home).reshape(-1, len(ring), 2)
    first, end = points.min(axis=1), points.max(axis=1)
    if warped:
        # A side is nearly a parabola: between its three points it goes no further than its middle lies off the chord.
        off = np.abs(points[:, 1::2] - (points[:, 0::2] + np.roll(points[:, 0::2], -1, axis=1)) / 2).max(axis=1)
        first, end = first - off, end + off
    boxes = np.concatenate([first, end], axis=1)
    boxes[~np.isfinite(boxes).all(axis=1)] = np.nan
    turn = _turn(str(home.crs_wkt))
    if turn is not None:
        # A tile on the far side of the globe is torn in two: a part of it lies at either end of the plane.
        boxes[(end - first).max(axis=1) > turn / 2 / _step(home)] = np.nan
    return boxes


def _step(source: Source) -> float:
    """Return the length of a pixel's longer side in units of the CRS."""
    a, b, _, d, e, _ = tuple(source.transform)[:6]
    return max(np.hypot(a, d), np.hypot(b, e))


def _move(points: Floats, source: Source, home: Source) -> Floats:
    """Move (N, 2) pixels of one raster onto the pixel plane of another; infinite where they have no place there."""
    x, y = source.transform * points.T
    if source.crs_wkt != home.crs_wkt:
        way = _transformer(str(source.crs_wkt), str(home.crs_wkt))
        x, y = (np.full_like(x, np.nan),) * 2 if way is None else way.transform(x, y)
    turn = _turn(str(home.crs_wkt))
    if turn is not None:
        with np.errstate(invalid="ignore"):
            x = x - turn * np.rint((x - (home.transform * (home.width_px / 2, home.height_px / 2))[0]) / turn)
    with np.errstate(invalid="ignore"):
        return np.column_stack(~home.transform * (x, y))


@lru_cache(maxsize=1024)
def _transformer(origin: str, target: str) -> Transformer | None:
    """Return the way from one CRS to another; None where there is none, as from Mars to the Earth."""
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    try:
        return Transformer.from_crs(CRS.from_wkt(origin).to_2d(), CRS.from_wkt(target).to_2d(), always_xy=True)
    except ProjError:
        return None


@lru_cache(maxsize=64)
def _turn(wkt: str) -> float | None:
    """Return how far x goes once around the globe where it goes around evenly (degrees, Mercator), else None."""
    from pyproj import CRS, Transformer

    crs = CRS.from_wkt(wkt).to_2d()
    if crs.geodetic_crs is None:
        return None
    geodetic = CRS.from_wkt(crs.geodetic_crs.to_wkt()).to_2d()
    unit = geodetic.axis_info[0].unit_conversion_factor
    degree = np.pi / 180 / unit
    lon = np.array([-1.0, 1.0, -1.0, 1.0]) * degree
    lat = np.array([0.0, 0.0, 50.0, 50.0]) * degree
    x, _ = Transformer.from_crs(geodetic, crs, always_xy=True).transform(lon, lat)
    even = np.isfinite(x).all() and np.allclose(x[:2], x[2:], rtol=1e-9, atol=0) and x[1] > x[0]
    return float(x[1] - x[0]) * 180 if even else None
