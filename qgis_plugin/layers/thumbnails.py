"""Small pictures of matches, drawn one after another while the user reads the list."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

from qgis.core import (
    QgsMapLayer,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
)
from qgis.PyQt.QtCore import QObject, QPointF, QRectF, QSize, Qt, pyqtSignal
from qgis.PyQt.QtGui import QColor, QImage, QPainter, QPen

from .matches import Match
from .style import OUTLINE

_MARGIN = 1.6
_KEPT = 1000

_Key = tuple[str, str, int]


class Thumbnails(QObject):
    """Draws thumbnails of matches; QGIS draws in a thread of its own, one at a time, and the rest waits."""

    ready = pyqtSignal(int, object)
    """The id of a match and its QImage."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._waiting: deque[tuple[str, Match, int]] = deque()
        self._kept: OrderedDict[_Key, QImage] = OrderedDict()
        self._job: QgsMapRendererSequentialJob | None = None
        self._drawn: tuple[_Key, Match, QgsRectangle] | None = None

    def request(self, layer: QgsMapLayer | None, matches: Iterable[Match], size_px: int = 48) -> None:
        """Draw the thumbnails of these matches, those first; earlier wishes are dropped.

        Args:
            layer: The image; nothing else is drawn.
            matches: In the order of the list.
            size_px: Side of the pictures in device pixels.
        """
        self._waiting.clear()
        if layer is None:
            return
        for match in matches:
            held = self._kept.get(_key(layer.id(), match, size_px))
            if held is not None:
                self.ready.emit(match.id, held)
            else:
                self._waiting.append((layer.id(), match, size_px))
        self._next()

    def cancel(self) -> None:
        """Drop all wishes; the picture being drawn is stopped without waiting for it."""
        self._waiting.clear()
        self._drawn = None
        if self._job is not None:
            self._job.cancelWithoutBlocking()

    def _next(self) -> None:
        """Start the next picture unless one is being drawn."""
        while self._job is None and self._waiting:
            layer_id, match, size_px = self._waiting.popleft()
            layer = QgsProject.instance().mapLayer(layer_id)
            if isinstance(layer, QgsRasterLayer) and layer.isValid():
                self._start(layer, match, size_px)

    def _start(self, layer: QgsRasterLayer, match: Match, size_px: int) -> None:
        extent = _frame(layer, match, size_px)
        settings = QgsMapSettings()
        settings.setLayers([layer])
        settings.setDestinationCrs(layer.crs())
        settings.setTransformContext(QgsProject.instance().transformContext())
        settings.setOutputSize(QSize(size_px, size_px))
        settings.setBackgroundColor(QColor(0, 0, 0, 0))
        settings.setExtent(extent)
        self._drawn = (_key(layer.id(), match, size_px), match, extent)
        self._job = QgsMapRendererSequentialJob(settings)
        self._job.finished.connect(self._finish)
        self._job.start()

    def _finish(self) -> None:
        job, drawn = self._job, self._drawn
        self._job = self._drawn = None
        if job is not None and drawn is not None:
            key, match, extent = drawn
            image = _outlined(QImage(job.renderedImage()), match.geometry.boundingBox(), extent)
            self._kept[key] = image
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            self.ready.emit(match.id, image)
        if job is not None:
            job.deleteLater()
        self._next()


def _key(layer_id: str, match: Match, size_px: int) -> _Key:
    return layer_id, match.geometry.boundingBox().toString(15), size_px


def _frame(layer: QgsRasterLayer, match: Match, size_px: int) -> QgsRectangle:
    """Return a square around a match with some of its surroundings, never finer than the image itself."""
    box = match.geometry.boundingBox()
    native = size_px * abs(layer.rasterUnitsPerPixelX()) if layer.width() > 0 else 0.0
    half = max(_MARGIN * max(box.width(), box.height()), native, 1e-9) / 2
    whole = layer.extent()
    x = _inside(box.center().x(), half, whole.xMinimum(), whole.xMaximum())
    y = _inside(box.center().y(), half, whole.yMinimum(), whole.yMaximum())
    return QgsRectangle(x - half, y - half, x + half, y + half)


def _inside(center: float, half: float, low: float, high: float) -> float:
    """Move a frame that reaches over the image back onto it, if it fits."""
    return center if high - low < 2 * half else min(max(center, low + half), high - half)


def _outlined(image: QImage, box: QgsRectangle, extent: QgsRectangle) -> QImage:
    """Draw the box thinly, with a dark line under it that keeps it visible on bright ground."""
    scale = image.width() / extent.width()
    corner = QPointF((box.xMinimum() - extent.xMinimum()) * scale, (extent.yMaximum() - box.yMaximum()) * scale)
    frame = QRectF(corner.x(), corner.y(), box.width() * scale, box.height() * scale)
    painter = QPainter(image)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    for color, width in ((QColor(18, 18, 22, 160), 2.6), (OUTLINE, 1.2)):
        pen = QPen(color)
        pen.setWidthF(width)
        pen.setJoinStyle(Qt.PenJoinStyle.MiterJoin)
        painter.setPen(pen)
        painter.drawRect(frame)
    painter.end()
    return image
