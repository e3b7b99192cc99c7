"""Metres on the ground per unit of a coordinate system, measured where the work is."""

from __future__ import annotations

import math

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransformContext,
    QgsCsException,
    QgsDistanceArea,
    QgsPointXY,
    QgsProject,
)


def metres_per_unit(
    crs: QgsCoordinateReferenceSystem,
    at: QgsPointXY,
    context: QgsCoordinateTransformContext | None = None,
) -> tuple[float, float] | None:
    """Return ground metres per unit along x and y of `crs` at a point, or None where it cannot be told."""
    if not crs.isValid():
        return None
    measure = QgsDistanceArea()
    measure.setSourceCrs(crs, context or QgsProject.instance().transformContext())
    measure.setEllipsoid(crs.ellipsoidAcronym() or "EPSG:7030")
    step = 1e-4 if crs.isGeographic() else 10.0
    try:
        x = measure.measureLine(at, QgsPointXY(at.x() + step, at.y())) / step
        y = measure.measureLine(at, QgsPointXY(at.x(), at.y() + step)) / step
    except QgsCsException:
        return None
    return (x, y) if math.isfinite(x) and math.isfinite(y) and x > 0 and y > 0 else None


def ground_resolution(crs: QgsCoordinateReferenceSystem, at: QgsPointXY, unit_x: float, unit_y: float) -> float | None:
    """Return the side in metres of a square as large as a cell of `unit_x` × `unit_y` units of `crs`."""
    scale = metres_per_unit(crs, at)
    if scale is None or unit_x <= 0 or unit_y <= 0:
        return None
    return math.sqrt(scale[0] * unit_x * scale[1] * unit_y)
