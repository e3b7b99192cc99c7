"""The area that is searched, as GeoJSON in the coordinate system of the image."""

from __future__ import annotations

import json
import math
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsRectangle,
    QgsVectorLayer,
    QgsWkbTypes,
)
from qgis.gui import QgsMapCanvas

from ..words import tr
from .source import LayerSource

_STEPS = 24
"""Extra vertices per side before a transformation, so that straight sides may bend."""
_HALF_WORLD_DEG = 180.0
_SYMMETRY = 0.01
"""How far a point may come back from where it started, as a part of the area's size."""


class AreaError(Exception):
    """The area cannot be searched; the text says why and what to do."""


def area_of(
    where: str,
    source: LayerSource,
    canvas: QgsMapCanvas | None,
    selection: QgsVectorLayer | None = None,
    rectangle: QgsGeometry | None = None,
) -> dict[str, Any] | None:
    """Return the area as GeoJSON in the source's coordinate system, or None for the whole layer.

    Args:
        where: "visible", "layer", "selection" or "rectangle".
        source: The image.
        canvas: The map; its rotation counts.
        selection: The polygon layer whose selected features are the area.
        rectangle: What was drawn, in the coordinate system of the map.

    Raises:
        AreaError: Nothing is selected or drawn, or the area misses the image.
    """
    if where == "layer":
        return None
    whole = QgsGeometry.fromRect(QgsRectangle(*source.extent))
    if where == "selection":
        area = _selected(selection, source.crs, whole)
        missed = tr("The selected polygons do not touch this layer: select others")
    else:
        if canvas is None:
            raise AreaError(tr("There is no map to take the area from"))
        settings = canvas.mapSettings()
        if where == "rectangle":
            shape = QgsGeometry(rectangle) if rectangle is not None else QgsGeometry()
            missed = tr("The rectangle does not touch this layer: draw another one")
            if shape.isEmpty():
                raise AreaError(tr("No rectangle is drawn: drag one on the map"))
        else:
            # Not fromQPolygonF: that makes a line of what is not closed.
            corners = [QgsPointXY(corner) for corner in settings.visiblePolygon()]
            shape = QgsGeometry.fromPolygonXY([[*corners, corners[0]]])
            missed = tr("The visible map does not show this layer: zoom to it")
        area = _clipped(shape, settings.destinationCrs(), source.crs, whole)
    if area is None or area.isEmpty() or area.area() <= 0:
        raise AreaError(missed)
    if area.contains(whole):
        return None
    return geojson(area)


def geojson(geometry: QgsGeometry) -> dict[str, Any]:
    """Return a polygon as GeoJSON."""
    return dict(json.loads(geometry.asJson(9)))


def geometry_of(area: dict[str, Any]) -> QgsGeometry:
    """Return the geometry of a GeoJSON polygon or multipolygon; empty for anything else."""
    kind = area.get("type")
    parts = [area["coordinates"]] if kind == "Polygon" else area["coordinates"] if kind == "MultiPolygon" else []
    rings = [[[QgsPointXY(*point[:2]) for point in ring] for ring in part] for part in parts]
    if not rings:
        return QgsGeometry()
    return QgsGeometry.fromPolygonXY(rings[0]) if len(rings) == 1 else QgsGeometry.fromMultiPolygonXY(rings)


def carried(
    geometry: QgsGeometry, origin: QgsCoordinateReferenceSystem, target: QgsCoordinateReferenceSystem
) -> QgsGeometry | None:
    """Return a geometry in another coordinate system, or None where that system cannot express it.

    Raises:
        AreaError: The geometry crosses the meridian at which the target's longitudes jump.
    """
    result = QgsGeometry(geometry)
    if not origin.isValid() or not target.isValid() or origin == target:
        return result
    result = result.densifyByCount(_STEPS)
    before = [QgsPointXY(vertex.x(), vertex.y()) for vertex in result.vertices()]
    transform = QgsCoordinateTransform(origin, target, QgsProject.instance())
    backward = QgsCoordinateTransform(target, origin, QgsProject.instance())
    try:
        result.transform(transform)
        after = [QgsPointXY(vertex.x(), vertex.y()) for vertex in result.vertices()]
        if not all(math.isfinite(point.x()) and math.isfinite(point.y()) for point in after):
            return None
        back = [backward.transform(point) for point in after]
    except QgsCsException:
        return None
    if not _same(before, back):
        return None
    if target.isGeographic() and _jumps(after):
        raise AreaError(tr("The area crosses the 180° meridian: search each side by itself"))
    return _mended(result)


def _same(before: list[QgsPointXY], back: list[QgsPointXY]) -> bool:
    """Outside its use a projection folds: points then do not come back to where they started."""
    xs, ys = [point.x() for point in before], [point.y() for point in before]
    size = max(max(xs) - min(xs), max(ys) - min(ys), 1e-9)
    return all(start.distance(end) <= _SYMMETRY * size for start, end in zip(before, back))


def _jumps(points: list[QgsPointXY]) -> bool:
    return any(abs(a.x() - b.x()) > _HALF_WORLD_DEG for a, b in zip(points, points[1:]))


def _mended(geometry: QgsGeometry) -> QgsGeometry:
    return geometry if geometry.isGeosValid() else geometry.makeValid()


def _clipped(
    shape: QgsGeometry, origin: QgsCoordinateReferenceSystem, target: QgsCoordinateReferenceSystem, whole: QgsGeometry
) -> QgsGeometry | None:
    """Return the part of `shape` inside `whole` in the target system.

    A world map cannot be carried into a national grid, and a world of tiles cannot be carried into UTM: so when the
    shape does not go to the layer, the layer goes to the shape and the common part comes back.
    """
    moved = carried(shape, origin, target)
    if moved is not None:
        return moved.intersection(whole)
    frame = carried(whole, target, origin)
    if frame is None:
        raise AreaError(tr("The map and this layer have no place in common: choose the whole layer"))
    if shape.contains(frame):
        return whole
    common = frame.intersection(shape)
    if common.isEmpty():
        return common
    back = carried(common, origin, target)
    return back.intersection(whole) if back is not None else None


def _selected(
    layer: QgsVectorLayer | None, target: QgsCoordinateReferenceSystem, whole: QgsGeometry
) -> QgsGeometry | None:
    """Return the union of the selected polygons inside the image."""
    if not isinstance(layer, QgsVectorLayer) or not layer.isValid():
        raise AreaError(tr("Choose a polygon layer and select the polygons to search in"))
    if layer.geometryType() != QgsWkbTypes.GeometryType.PolygonGeometry:
        raise AreaError(tr("The layer “{name}” has no polygons: choose another one").format(name=layer.name()))
    shapes = [QgsGeometry(feature.geometry()) for feature in layer.selectedFeatures()]
    shapes = [_mended(shape) for shape in shapes if not shape.isEmpty()]
    if not shapes:
        text = tr("No polygon is selected in “{name}”: select the polygons to search in")
        raise AreaError(text.format(name=layer.name()))
    return _clipped(QgsGeometry.unaryUnion(shapes), layer.crs(), target, whole)
