"""What is drawn over the map but belongs to no layer: the match in hand, and the places marked as right or wrong."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from qgis.core import QgsWkbTypes
from qgis.gui import QgsRubberBand
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QColor

from .style import CASING, OUTLINE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qgis.core import QgsCoordinateReferenceSystem, QgsGeometry
    from qgis.gui import QgsMapCanvas

_RIGHT = QColor(64, 220, 120)
_WRONG = QColor(255, 92, 80)


class Overlay:
    """Rubber bands on one canvas.

    Args:
        canvas: The map; it may go before the overlay does.
    """

    def __init__(self, canvas: QgsMapCanvas) -> None:
        self._canvas = canvas
        self._highlight: list[QgsRubberBand] = []
        self._marks: list[QgsRubberBand] = []

    def highlight(self, geometry: QgsGeometry | None, crs: QgsCoordinateReferenceSystem | None = None) -> None:
        """Make one place stand out, or none."""
        self._remove(self._highlight)
        if geometry is not None and crs is not None:
            band = self._band(geometry, crs, QColor(255, 255, 255))
            band.setFillColor(QColor(OUTLINE.red(), OUTLINE.green(), OUTLINE.blue(), 45))
            band.setWidth(3)
            self._highlight.append(band)

    def show_marks(
        self, right: Iterable[QgsGeometry], wrong: Iterable[QgsGeometry], crs: QgsCoordinateReferenceSystem
    ) -> None:
        """Outline the places marked as right, and those marked as wrong with a dashed line: not by colour alone."""
        self._remove(self._marks)
        for geometry in right:
            self._marks.append(self._band(geometry, crs, _RIGHT))
        for geometry in wrong:
            band = self._band(geometry, crs, _WRONG)
            band.setLineStyle(Qt.PenStyle.DashLine)
            self._marks.append(band)

    def clear(self) -> None:
        """Take everything off the map."""
        self._remove(self._highlight)
        self._remove(self._marks)

    def _band(self, geometry: QgsGeometry, crs: QgsCoordinateReferenceSystem, color: QColor) -> QgsRubberBand:
        band = QgsRubberBand(self._canvas, QgsWkbTypes.GeometryType.PolygonGeometry)
        band.setToGeometry(geometry, crs)
        band.setStrokeColor(color)
        band.setSecondaryStrokeColor(CASING)
        band.setFillColor(QColor(color.red(), color.green(), color.blue(), 30))
        band.setWidth(2)
        return band

    def _remove(self, bands: list[QgsRubberBand]) -> None:
        for band in bands:
            with contextlib.suppress(RuntimeError, AttributeError):  # the canvas is gone, and the band with it
                band.scene().removeItem(band)
        bands.clear()
