"""Geometries on their way to the engine: in the raster's CRS, finite, and small enough for one message."""

from __future__ import annotations

import json
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCoordinateTransformContext,
    QgsCsException,
    QgsFeatureSource,
    QgsGeometry,
    QgsProcessingException,
)

from ..words import tr

MOST_BYTES = 400_000
"""Of an area or of all examples; a message may have 1 MiB."""
COARSEST = 16
"""How often the tolerance is doubled before a geometry counts as too detailed."""


def transformed(
    source: QgsFeatureSource, crs: QgsCoordinateReferenceSystem, context: QgsCoordinateTransformContext
) -> list[QgsGeometry]:
    """The geometries of a vector layer in another CRS.

    Raises:
        QgsProcessingException: They lie where that CRS does not reach.
    """
    transform = QgsCoordinateTransform(source.sourceCrs(), crs, context)
    found = [feature.geometry() for feature in source.getFeatures() if feature.hasGeometry()]
    found = [geometry for geometry in found if not geometry.isEmpty()]
    try:
        for geometry in found:
            geometry.transform(transform)
            if not geometry.boundingBox().isFinite():  # what PROJ says of places it cannot reach
                raise QgsCsException("not finite")
    except QgsCsException as error:
        raise QgsProcessingException(
            tr("“{layer}” lies where the coordinate system of the image does not reach.").format(
                layer=source.sourceName()
            )
        ) from error
    return found


def fitting(geometries: list[QgsGeometry], crs: QgsCoordinateReferenceSystem) -> list[dict[str, Any]]:
    """Geometries as GeoJSON, with fewer vertices where there are too many for one message.

    Raises:
        QgsProcessingException: They are too many.
    """
    digits = 9 if crs.isGeographic() else 3
    tolerance = 2 * 10.0**-digits
    texts = [geometry.asJson(digits) for geometry in geometries]
    for _ in range(COARSEST):
        if sum(map(len, texts)) <= MOST_BYTES:
            return [json.loads(text) for text in texts]
        tolerance *= 2
        texts = [geometry.simplify(tolerance).asJson(digits) for geometry in geometries]
    raise QgsProcessingException(tr("There are too many shapes for one search. Take fewer or simpler ones."))
