"""Map tools: draw a box, mark what is right and what is wrong."""

from __future__ import annotations

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsRectangle,
    QgsWkbTypes,
)
from qgis.gui import QgsMapCanvas, QgsMapMouseEvent, QgsMapTool, QgsRubberBand
from qgis.PyQt.QtCore import QPoint, Qt, pyqtSignal
from qgis.PyQt.QtGui import QColor, QKeyEvent

from ..words import tr
from .area import AreaError
from .ground import metres_per_unit
from .source import LayerSource
from .style import CASING, OUTLINE

_LEAST_PX = 4
"""A drag shorter than this was a click."""
_MARK_PATCHES = 3
_PATCH_PX = 14
"""Side of what the encoder sees as one; a mark covers three of them, so that a click need not be exact."""


class _Tool(QgsMapTool):
    """A tool that Esc leaves."""

    left = pyqtSignal()
    """The user pressed Esc."""

    def __init__(self, canvas: QgsMapCanvas) -> None:
        super().__init__(canvas)
        self.setCursor(Qt.CursorShape.CrossCursor)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Leave on Esc."""
        if event.key() != Qt.Key.Key_Escape:
            return
        event.accept()
        self.clear()
        self.left.emit()
        if self.isActive():
            self.canvas().unsetMapTool(self)

    def clear(self) -> None:
        """Take away what the tool has drawn."""


class BoxTool(_Tool):
    """Draws a box that is upright on the screen, whatever the rotation of the map."""

    drawn = pyqtSignal(object)
    """The box as a QgsGeometry in the coordinate system of the map."""

    def __init__(self, canvas: QgsMapCanvas) -> None:
        super().__init__(canvas)
        self._band: QgsRubberBand | None = None
        self._start: QPoint | None = None

    def canvasPressEvent(self, event: QgsMapMouseEvent) -> None:
        """Start a box."""
        if event.button() != Qt.MouseButton.LeftButton:
            return
        self.clear()
        self._start = event.pos()
        self._band = QgsRubberBand(self.canvas(), QgsWkbTypes.GeometryType.PolygonGeometry)
        self._band.setStrokeColor(OUTLINE)
        self._band.setSecondaryStrokeColor(CASING)
        self._band.setFillColor(QColor(OUTLINE.red(), OUTLINE.green(), OUTLINE.blue(), 40))
        self._band.setWidth(2)

    def canvasMoveEvent(self, event: QgsMapMouseEvent) -> None:
        """Stretch the box."""
        if self._start is not None and self._band is not None:
            self._band.setToGeometry(self._box(event.pos()), QgsCoordinateReferenceSystem())

    def canvasReleaseEvent(self, event: QgsMapMouseEvent) -> None:
        """Finish the box; a mere click does nothing."""
        start = self._start
        if event.button() != Qt.MouseButton.LeftButton or start is None:
            return
        size = event.pos() - start
        box = self._box(event.pos())
        self.clear()
        if min(abs(size.x()), abs(size.y())) >= _LEAST_PX:
            self.drawn.emit(box)

    def deactivate(self) -> None:
        """Leave nothing on the map."""
        self.clear()
        super().deactivate()

    def clear(self) -> None:
        """Take the box off the map."""
        self._start = None
        if self._band is not None:
            scene = self._band.scene()
            if scene is not None:
                scene.removeItem(self._band)
            self._band = None

    def _box(self, end: QPoint) -> QgsGeometry:
        start = self._start or end
        corners = (start, QPoint(end.x(), start.y()), end, QPoint(start.x(), end.y()))
        ring: list[QgsPointXY] = [self.toMapCoordinates(corner) for corner in corners]
        return QgsGeometry.fromPolygonXY([[*ring, ring[0]]])


class MarkTool(_Tool):
    """Marks places: a left click is right, a right click or one with Shift is wrong."""

    marked = pyqtSignal(object, str)
    """The place as a QgsPointXY in the coordinate system of the map, and "yes" or "no"."""

    def canvasReleaseEvent(self, event: QgsMapMouseEvent) -> None:
        """Tell the place and the verdict."""
        if event.button() not in (Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton):
            return
        is_shifted = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        is_wrong = event.button() == Qt.MouseButton.RightButton or is_shifted
        self.marked.emit(self.toMapCoordinates(event.pos()), "no" if is_wrong else "yes")


def mark_geometry(
    point: QgsPointXY, canvas_crs: QgsCoordinateReferenceSystem, source: LayerSource, gsd_m: float | None = None
) -> QgsGeometry:
    """Return a small square of three patches around a clicked point, in the source's coordinate system.

    Args:
        point: In the coordinate system of the map.
        canvas_crs: That system.
        source: The image.
        gsd_m: The ground resolution at which the engine looks; by default the image's own.

    Raises:
        AreaError: The click missed the image.
    """
    missed = AreaError(tr("This click missed the image: click on it"))
    try:
        place = QgsCoordinateTransform(canvas_crs, source.crs, QgsProject.instance()).transform(point)
    except QgsCsException as error:
        raise missed from error
    scale = metres_per_unit(source.crs, place)
    whole = QgsRectangle(*source.extent)
    if scale is None or not whole.contains(place):
        raise missed
    half_m = _MARK_PATCHES * _PATCH_PX * (gsd_m or source.gsd_m or 0.3) / 2
    half_x, half_y = half_m / scale[0], half_m / scale[1]
    square = QgsRectangle(place.x() - half_x, place.y() - half_y, place.x() + half_x, place.y() + half_y)
    return QgsGeometry.fromRect(square.intersect(whole))
