"""Labels cut to tiles: any vector file in any CRS, laid over a raster's canvas and clipped window by window."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.chips.labelsource import LabelError, measure, only, read_features
from tiling.errors import NotGeoreferencedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from affine import Affine
    from numpy.typing import NDArray
    from pyproj import Transformer
    from shapely import STRtree
    from shapely.geometry.base import BaseGeometry

    from tiling.canvas import Canvas
    from tiling.chips.labelsource import Features
    from tiling.chips.spec import LabelSpec
    from tiling.grid import Window
    from tiling.info import RasterInfo

_EDGE_PX = 32
"""Longest straight edge before labels are transformed. On the ground an edge of 32 px of 1 km bends by 0.02 px."""
_MARGIN = 0.01
"""Share of the raster's extent by which the search for labels reaches further."""
_ROOM = 1.0
"""Share of the raster's extent by which labels may reach further and still be transformed whole."""
_SLIVER = 1e-3
"""Pieces below so many px² (px of lines), or below this share of a label that is itself smaller, are rounding."""

_FARTHEST = 1e100
"""Largest coordinate that a label may have: no CRS reaches there, and areas beyond are no finite numbers."""


@dataclass(frozen=True, slots=True)
class TileLabel:
    """The part of a label that lies in one tile."""

    geometry: BaseGeometry
    """In the tile's pixels, x to the right and y down from its first corner; clipped to the tile."""
    class_id: int
    """Position of the class in :attr:`Labels.classes`, from 0."""
    class_name: str
    feature: int
    """Row of the label in its file, from 0."""
    truncated: bool
    """Whether a part of the label lies outside the tile."""
    visible: float
    """Share of the label that lies in the tile, above 0 to 1: by area, by length for lines, by number for points."""
    size: float
    """The whole label: px² for polygons, px for lines, the number of points."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The labels of one job. Safe to use from several threads."""

    classes: tuple[str, ...]
    """Sorted, as numbers when all are whole numbers. A label's class id is its place here."""
    notes: tuple[str, ...]
    """What a user should know: the field chosen, what was repaired, what was left out and why."""
    spec: LabelSpec
    features: Features
    class_ids: NDArray[np.intp]
    tree: STRtree
    """Over the geometries in the file's CRS."""

    @classmethod
    def load(cls, spec: LabelSpec) -> Labels:
        """Read a file of labels. Memory is that of its geometries and one column.

        Raises:
            LabelError: The file cannot be read, lacks the field or the layer, or holds no label that can be used.
        """
        from shapely import STRtree

        # What lies so far out that its area is infinite is left out below.
        with np.errstate(over="ignore", invalid="ignore"):
            features = _within_reach(read_features(spec), spec)
        classes = _sorted(set(features.names))
        position = {name: index for index, name in enumerate(classes)}
        class_ids = np.array([position[name] for name in features.names], dtype=np.intp)
        return cls(classes, features.notes, spec, features, class_ids, STRtree(features.geometries))

    def __len__(self) -> int:
        return len(self.class_ids)

    def onto(self, info: RasterInfo, canvas: Canvas) -> LabelIndex:
        """Lay the labels over a canvas.

        Labels without a CRS are in the canvas's CRS. When that has none either, they are in the raster's pixels,
        x to the right and y down. Edges are densified before they are transformed, so that they bend as they should.

        Returns:
            The labels that touch the raster; empty when none does.

        Raises:
            LabelError: The labels have a CRS and the raster has none, or no transformation between theirs is known.
            NotGeoreferencedError: GeoJSON is to be written and the raster has no CRS.
        """
        import shapely
        from affine import Affine

        if canvas.crs is None and self.spec.format == "geojson":
            raise NotGeoreferencedError(
                "GeoJSON holds longitude and latitude, and this raster has no CRS",
                path=info.path,
                remedy="use --labels-format geoparquet, which keeps pixels",
            )
        transformer = self._transformer(info, canvas)
        to_px = Affine.scale(1 / canvas.scale_x, 1 / canvas.scale_y) if canvas.crs is None else ~canvas.transform
        reach = _Reach.of(canvas, ~to_px, transformer)
        near = np.arange(len(self)) if reach is None else np.sort(self.tree.query(reach.area, predicate="intersects"))
        geometries = self.features.geometries[near]
        whole = np.ones(len(near))
        if transformer is not None:
            geometries, whole = _transformed(geometries, transformer, reach)
        placed = np.isfinite(shapely.bounds(geometries)).all(axis=1)
        geometries, near, whole = geometries[placed], near[placed], whole[placed]
        if canvas.crs is not None and canvas.crs.is_geographic:
            geometries = _turned(geometries, canvas)
        geometries = shapely.transform(geometries, _affine(to_px))
        broken = ~shapely.is_valid(geometries)
        geometries[broken] = shapely.make_valid(geometries[broken], method="structure", keep_collapsed=False)
        return LabelIndex(
            geometries,
            measure(geometries) / whole,
            self.class_ids[near],
            self.features.rows[near],
            self.classes,
            canvas.raster_width_px,
            canvas.raster_height_px,
            self.spec.min_visible,
        )

    def _transformer(self, info: RasterInfo, canvas: Canvas) -> Transformer | None:
        """Return the way from the labels' CRS to the canvas's, None when they are the same."""
        from pyproj import CRS, Transformer
        from pyproj.exceptions import ProjError

        origin = self.features.crs
        if origin is None:
            return None
        if canvas.crs is None:
            raise LabelError(
                "the labels have a CRS and the raster has none",
                path=info.path,
                measured=f"{self.spec.path.name}: {origin.to_string()[:60]}",
                remedy="assign a CRS to the raster, or give labels in pixels from a file without a CRS",
            )
        try:
            target = CRS.from_user_input(canvas.crs.to_wkt())
            if origin.equals(target, ignore_axis_order=True):
                return None
            return Transformer.from_crs(origin, target, always_xy=True)
        except ProjError as error:
            raise LabelError(
                "the labels cannot be transformed into the raster's CRS",
                path=self.spec.path,
                measured=str(error)[:120],
                remedy="transform them with ogr2ogr -t_srs",
            ) from error


@dataclass(frozen=True, slots=True, eq=False)
class LabelIndex:
    """Labels in the pixels of one canvas. Safe to use from several threads."""

    geometries: NDArray[Any]
    """In canvas pixels, x to the right and y down."""
    sizes: NDArray[np.float64]
    """Each whole label: px² for polygons, px for lines, the number of points."""
    class_ids: NDArray[np.intp]
    features: NDArray[np.intp]
    """Row of each label in its file, ascending."""
    classes: tuple[str, ...]
    width_px: float
    """The raster's own width in canvas pixels: there is nothing to see beyond."""
    height_px: float
    min_visible: float = 0.0
    tree: STRtree = field(init=False)

    def __post_init__(self) -> None:
        from shapely import STRtree

        object.__setattr__(self, "tree", STRtree(self.geometries))

    def __len__(self) -> int:
        return len(self.features)

    def cut(self, window: Window) -> list[TileLabel]:
        """Return what of the labels lies in a window, in the order of the file.

        A polygon that only touches the window is not in it. Windows are half open, as pixels are: a point on the
        border of two tiles, or a line along it, belongs to the right or lower one alone. Labels of which a smaller
        share than ``min_visible`` can be seen are left out.
        """
        import shapely

        left, top = window.col_off_px, window.row_off_px
        right, bottom = min(window.col_end_px, self.width_px), min(window.row_end_px, self.height_px)
        if right <= left or bottom <= top:
            return []
        hits = np.sort(self.tree.query(shapely.box(left, top, right, bottom), predicate="intersects"))
        pieces = self._pieces(hits, (left, top, right, bottom))
        sizes = self.sizes[hits]
        seen = measure(pieces)
        truncated = sizes - seen > _SLIVER * np.minimum(sizes, 1)
        visible = np.where(truncated, seen / sizes, 1.0)
        pieces = shapely.transform(pieces, lambda xy: xy - (left, top))
        keep = ~shapely.is_empty(pieces) & (visible >= self.min_visible)
        return [
            TileLabel(
                pieces[index],
                int(self.class_ids[hit]),
                self.classes[self.class_ids[hit]],
                int(self.features[hit]),
                bool(truncated[index]),
                float(visible[index]),
                float(sizes[index]),
            )
            for index, hit in enumerate(hits)
            if keep[index]
        ]

    def _pieces(self, hits: NDArray[np.intp], edges: tuple[float, float, float, float]) -> NDArray[Any]:
        """Return the labels clipped to a half-open rectangle."""
        import shapely

        left, top, right, bottom = edges
        pieces = self.geometries[hits]
        bounds = shapely.bounds(pieces)
        inside = (bounds[:, :2] >= (left, top)).all(axis=1) & (bounds[:, 2:] < (right, bottom)).all(axis=1)
        crossing = np.flatnonzero(~inside)
        dimensions = shapely.get_dimensions(pieces)
        pieces[crossing] = shapely.intersection(pieces[crossing], shapely.box(left, top, right, bottom))
        thin = crossing[dimensions[crossing] < 2]
        pieces[thin] = shapely.difference(
            pieces[thin], shapely.LineString([(right, top), (right, bottom), (left, bottom)])
        )
        least = _SLIVER * np.minimum(self.sizes[hits], 1)
        for index in crossing:
            pieces[index] = only(pieces[index], int(dimensions[index]), float(least[index]))
        return pieces


def _within_reach(features: Features, spec: LabelSpec) -> Features:
    """Return the features with coordinates that can be calculated with.

    Raises:
        LabelError: There is none.
    """
    import shapely

    near = (np.abs(shapely.bounds(features.geometries)) <= _FARTHEST).all(axis=1)
    if near.all():
        return features
    told = f"{int((~near).sum())} with coordinates beyond ±{_FARTHEST:g}"
    if not near.any():
        raise LabelError("holds no label that can be used", path=spec.path, measured=told, remedy="check the file")
    names = list(compress(features.names, near))
    notes = (*features.notes, f"of {len(near)} features left out: {told}")
    return replace(features, geometries=features.geometries[near], names=names, rows=features.rows[near], notes=notes)


def _sorted(names: set[str]) -> tuple[str, ...]:
    if all(re.fullmatch(r"-?\d{1,18}", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


@dataclass(frozen=True, slots=True)
class _Reach:
    """Where a raster lies in the labels' CRS."""

    area: BaseGeometry
    """Its bounds and a margin; in degrees also a whole turn to the west and to the east."""
    room: BaseGeometry
    """The same with more room around."""
    pixel: float
    """Side of a canvas pixel in the units of the CRS, about."""

    @classmethod
    def of(cls, canvas: Canvas, to_crs: Affine, transformer: Transformer | None) -> _Reach | None:
        """Return the reach of a canvas, None when the labels' CRS does not hold it as a whole."""
        import shapely
        from pyproj.exceptions import ProjError

        width, height = canvas.raster_width_px, canvas.raster_height_px
        corners = np.array([to_crs * corner for corner in ((0, 0), (width, 0), (width, height), (0, height))])
        (west, south), (east, north) = corners.min(axis=0), corners.max(axis=0)
        degrees = canvas.crs is not None and canvas.crs.is_geographic
        if transformer is not None:
            degrees = bool(transformer.source_crs and transformer.source_crs.is_geographic)
            try:
                west, south, east, north = transformer.transform_bounds(west, south, east, north, direction="INVERSE")
            except ProjError:
                return None
        if not np.isfinite([west, south, east, north]).all():
            return None
        if degrees and east < west:
            east += 360
        width_crs, height_crs = east - west, north - south
        turns = np.array((-360, 0, 360) if degrees else (0,))

        def around(share: float) -> BaseGeometry:
            dx, dy = width_crs * share, height_crs * share
            return shapely.union_all(shapely.box(west - dx + turns, south - dy, east + dx + turns, north + dy))

        return cls(around(_MARGIN), around(_ROOM), math.sqrt(width_crs * height_crs / (width * height)))


def _transformed(
    geometries: NDArray[Any], transformer: Transformer, reach: _Reach | None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return labels in the canvas's CRS, and the share of each that this is.

    The share is below 1 for labels that reach far beyond the raster, such as a country on a UTM raster: where their
    ends lie, the CRS may mean nothing. They are first cut to the raster's surroundings; areas in the labels' CRS
    tell the share.
    """
    import shapely

    share = np.ones(len(geometries))
    if reach is not None:
        far = np.flatnonzero(~shapely.covers(reach.room, geometries))
        near = [
            only(piece, dimension)
            for piece, dimension in zip(
                shapely.intersection(geometries[far], reach.area), shapely.get_dimensions(geometries[far]), strict=True
            )
        ]
        share[far] = measure(np.array(near, dtype=object)) / measure(geometries[far])
        geometries[far] = near
        geometries = shapely.segmentize(geometries, _EDGE_PX * reach.pixel)
    moved = shapely.transform(geometries, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1])))
    return np.asarray(moved), share


def _turned(geometries: NDArray[Any], canvas: Canvas) -> NDArray[Any]:
    """Return labels in degrees moved by whole turns to the side of the raster, which may run from 0° to 360°."""
    import shapely

    middle, _ = canvas.transform * (canvas.raster_width_px / 2, canvas.raster_height_px / 2)
    west, _, east, _ = shapely.bounds(geometries).T
    turns = 360 * np.round((middle - (west + east) / 2) / 360)
    if not turns.any():
        return geometries
    coordinates, owner = shapely.get_coordinates(geometries, return_index=True)
    coordinates[:, 0] += turns[owner]
    return np.asarray(shapely.set_coordinates(geometries.copy(), coordinates))


def _affine(matrix: Affine) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    linear = np.array([[matrix.a, matrix.b], [matrix.d, matrix.e]])
    return lambda xy: xy @ linear.T + (matrix.c, matrix.f)
