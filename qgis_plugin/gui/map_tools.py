"""The three things the panel lets one do on the map: draw the area, draw an example, click what is right or wrong."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsGeometry,
    QgsMapLayer,
    QgsProject,
    QgsWkbTypes,
)
from qgis.gui import QgsMapCanvas, QgsMapTool, QgsRubberBand
from qgis.PyQt.QtCore import QObject, pyqtSignal
from qgis.PyQt.QtGui import QColor

from ..layers.tools import BoxTool, MarkTool

if TYPE_CHECKING:
    from qgis.core import QgsVectorLayer
    from qgis.gui import QgisInterface


class MapTools(QObject):
    """Lends the canvas's tool to the panel and gives it back."""

    areaDrawn = pyqtSignal()
    exampleDrawn = pyqtSignal(object)
    placeMarked = pyqtSignal(object, str)
    ended = pyqtSignal(str)
    """``area``, ``similar`` or ``mark`` is no longer the canvas's tool."""

    def __init__(self, iface: QgisInterface, parent: QObject) -> None:
        super().__init__(parent)
        self._iface = iface
        self._tools: dict[str, QgsMapTool] = {}
        self._before: QgsMapTool | None = None
        self._outline: QgsRubberBand | None = None
        self._rectangle: tuple[QgsGeometry, QgsCoordinateReferenceSystem] | None = None

    @property
    def canvas(self) -> QgsMapCanvas:
        """The map."""
        return self._iface.mapCanvas()

    def begin(self, kind: str) -> None:
        """Hand the map to ``area``, ``similar`` or ``mark``."""
        tool = self._tools.get(kind)
        if tool is None:
            tool = self._tools[kind] = self._make(kind)
        if self.canvas.mapTool() is tool:
            return
        if self.canvas.mapTool() not in self._tools.values():
            self._before = self.canvas.mapTool()
        self.canvas.setMapTool(tool)

    def end(self, kind: str) -> None:
        """Give the map back if `kind` has it."""
        tool = self._tools.get(kind)
        if tool is None or self.canvas.mapTool() is not tool:
            return
        before, self._before = self._before, None
        self.canvas.unsetMapTool(tool)
        with contextlib.suppress(RuntimeError):  # another plugin may have taken its tool away
            if before is not None:
                self.canvas.setMapTool(before)

    def show_area(self, visible: bool) -> None:
        """Show or hide the outline of the drawn area."""
        self._show_area(self._rectangle_now() if visible else None)

    def set_area(self, area: QgsGeometry, crs: QgsCoordinateReferenceSystem) -> None:
        """Take a rectangle that was drawn in an earlier session."""
        self._rectangle = (QgsGeometry(area), crs)

    def forget_area(self) -> None:
        """Let go of the rectangle and its outline."""
        self._rectangle = None
        self.show_area(False)

    def end_all(self) -> None:
        """Give the map back whatever has it."""
        for kind in list(self._tools):
            self.end(kind)

    def close(self) -> None:
        """Leave the canvas as it was found."""
        self.end_all()
        if self._outline is not None:
            self.canvas.scene().removeItem(self._outline)
            self._outline = None
        for tool in self._tools.values():
            tool.deleteLater()
        self._tools.clear()

    def _show_area(self, area: QgsGeometry | None) -> None:
        kind = QgsWkbTypes.GeometryType.PolygonGeometry
        if self._outline is None:
            self._outline = QgsRubberBand(self.canvas, kind)
            self._outline.setFillColor(QColor(0, 0, 0, 0))
            self._outline.setStrokeColor(self.canvas.palette().highlight().color())
            self._outline.setWidth(2)
        self._outline.reset(kind)
        if area is not None:
            self._outline.setToGeometry(area, None)

    def _make(self, kind: str) -> QgsMapTool:
        if kind == "mark":
            tool: QgsMapTool = MarkTool(self.canvas)
            tool.marked.connect(self.placeMarked)
        else:
            tool = BoxTool(self.canvas)
            tool.drawn.connect(self._take_rectangle if kind == "area" else self.exampleDrawn)
            tool.drawn.connect(lambda _: self.end(kind))
        tool.left.connect(lambda: self.end(kind))
        tool.deactivated.connect(lambda: self.ended.emit(kind))
        return tool

    def area_inputs(self, where: str) -> tuple[QgsVectorLayer | None, QgsGeometry | None]:
        """Return the layer with the selection, or the drawn rectangle in the map's CRS: what `where` needs."""
        if where == "selection":
            return self.selected_layer(), None
        return None, self._rectangle_now() if where == "rectangle" else None

    def selected_layer(self) -> QgsVectorLayer | None:
        """Return the layer whose selection is meant: the active one, else the only one with selected polygons."""
        if _holds_selection(self._iface.activeLayer()):
            return self._iface.activeLayer()
        layers = [layer for layer in self.canvas.layers() if _holds_selection(layer)]
        return layers[0] if len(layers) == 1 else None

    def _rectangle_now(self) -> QgsGeometry | None:
        if self._rectangle is None:
            return None
        area = QgsGeometry(self._rectangle[0])
        crs = self.canvas.mapSettings().destinationCrs()
        with contextlib.suppress(QgsCsException):
            area.transform(QgsCoordinateTransform(self._rectangle[1], crs, QgsProject.instance()))
        return area

    def _take_rectangle(self, area: QgsGeometry) -> None:
        crs = self.canvas.mapSettings().destinationCrs()
        self._rectangle = (QgsGeometry(area), crs)
        self._show_area(area)
        self.areaDrawn.emit()


def _holds_selection(layer: QgsMapLayer | None) -> bool:
    return (
        layer is not None
        and layer.type() == QgsMapLayer.LayerType.VectorLayer
        and layer.geometryType() == QgsWkbTypes.GeometryType.PolygonGeometry
        and layer.selectedFeatureCount() > 0
    )


def selected_places(layer: QgsVectorLayer) -> list[QgsGeometry]:
    """Return the geometries of a layer's selected features."""
    return [QgsGeometry(feature.geometry()) for feature in layer.selectedFeatures() if feature.hasGeometry()]
