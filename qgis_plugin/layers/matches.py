"""Reading the regions of an answer from their file: one rung of the threshold, or how many each rung has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qgis.core import QgsFeatureRequest, QgsGeometry, QgsPointXY, QgsProject, QgsVectorLayer

_COUNT_BOXES = 'SELECT "min_match", COUNT(*) AS "n" FROM "boxes" GROUP BY "min_match"'
_COUNT_POLYGONS = 'SELECT "min_match", COUNT(*) AS "n" FROM "polygons" GROUP BY "min_match"'


@dataclass(frozen=True)
class Match:
    """One place that was found, in the coordinate system of the image."""

    id: int
    score: float
    rank: int
    area_m2: float
    geometry: QgsGeometry
    center: QgsPointXY


def rung_filter(pct: int) -> str:
    """Return the filter for the regions at a threshold in per cent."""
    return f'"min_match" = {int(pct)}'


def uri_of(path: str, shape: str, pct: int) -> str:
    """Return the data source of one rung.

    Args:
        path: The GeoPackage.
        shape: Its table, "boxes" or "polygons".
        pct: The threshold.
    """
    return f"{path}|layername={shape}|subset={rung_filter(pct)}"


def open_regions(path: str, shape: str, pct: int) -> QgsVectorLayer | None:
    """Open one rung as a layer outside the project, or return None when the file is gone."""
    return _open(path, uri_of(path, shape, pct))


def read_matches(layer: QgsVectorLayer | None, limit: int) -> list[Match]:
    """Return the best matches of an open rung, best first."""
    if layer is None:
        return []
    request = QgsFeatureRequest().setLimit(limit)
    request.addOrderBy("score", False)
    found = []
    for feature in layer.getFeatures(request):
        shape = QgsGeometry(feature.geometry())
        if shape.isEmpty():
            continue
        score, rank, area = feature["score"], feature["rank"], feature["area_m2"]
        center = shape.boundingBox().center()
        found.append(Match(feature.id(), float(score or 0), int(rank or 0), float(area or 0), shape, center))
    return found


def read_outline(path: str, pct: int, rank: int) -> QgsGeometry:
    """Return the outline of one region, or an empty geometry: of a large one, its box is mostly something else."""
    layer = open_regions(path, "polygons", pct)
    if layer is None:
        return QgsGeometry()
    layer.setSubsetString(f'{rung_filter(pct)} AND "rank" = {int(rank)}')
    return next((QgsGeometry(feature.geometry()) for feature in layer.getFeatures()), QgsGeometry())


def count_rungs(path: str, shape: str) -> dict[int, int]:
    """Return the number of regions by threshold in per cent; the database counts."""
    layer = _open(path, f"{path}|subset={_COUNT_POLYGONS if shape == 'polygons' else _COUNT_BOXES}")
    if layer is None:
        return {}
    return {int(feature["min_match"]): int(feature["n"]) for feature in layer.getFeatures() if feature["min_match"]}


def _open(path: str, uri: str) -> QgsVectorLayer | None:
    if not path or not Path(path).is_file():
        return None
    layer = QgsVectorLayer(uri, "matches", "ogr", QgsVectorLayer.LayerOptions(QgsProject.instance().transformContext()))
    return layer if layer.isValid() else None
