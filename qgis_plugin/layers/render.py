"""Layers that the engine cannot open are drawn by QGIS into a GeoTIFF, off the main thread."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsDataProvider,
    QgsGeometry,
    QgsProject,
    QgsProviderRegistry,
    QgsRasterBlockFeedback,
    QgsRasterDataProvider,
    QgsRasterFileWriter,
    QgsRasterLayer,
    QgsRasterPipe,
    QgsRectangle,
    QgsTask,
)
from qgis.PyQt.QtCore import Qt, pyqtSignal

from ..words import tr
from .area import geometry_of
from .ground import metres_per_unit
from .source import wkt

TILE_PX = 256
MAX_TILES = 4096
"""About 16,384 × 16,384 pixels: more is a burden on a public server."""
FINEST_M = 0.3
"""Web imagery is rarely sharper, whatever its last zoom level says."""
_CHUNK_PX = 1024
_BYTES_PER_PX = 4
_ALPHA = 4
"""The band that QGIS writes beside red, green and blue."""
_CELL_PX = 64
_ANY_OVERSAMPLING = 1000.0


class RenderError(Exception):
    """The layer cannot be drawn; the text says why and what to do."""


@dataclass(frozen=True)
class RenderPlan:
    """What will be drawn: the size is known before any tile is asked for."""

    layer_id: str
    tiles: int
    width_px: int
    height_px: int
    bytes: int
    """Uncompressed."""
    gsd_m: float
    extent: tuple[float, float, float, float]
    crs_wkt: str


def plan_render(
    layer: QgsRasterLayer,
    extent_geometry: QgsGeometry | dict[str, Any] | None = None,
    gsd_m: float | None = None,
) -> RenderPlan:
    """Plan the drawing of a part of a layer.

    Args:
        layer: Any valid raster layer.
        extent_geometry: A geometry or GeoJSON in the layer's coordinate system; None for the whole layer.
        gsd_m: Ground metres per pixel at the centre; by default the layer's own, though not finer than 0.3 m.

    Raises:
        RenderError: The area is empty, has no scale, or needs too many tiles.
    """
    whole = layer.extent()
    shape = geometry_of(extent_geometry) if isinstance(extent_geometry, dict) else extent_geometry
    extent = whole if shape is None else shape.boundingBox().intersect(whole)
    if extent.isEmpty() or not extent.isFinite():
        raise RenderError(tr("The area does not touch this layer: choose another one"))
    scale = metres_per_unit(layer.crs(), extent.center())
    if scale is None:
        raise RenderError(tr("The size of this layer on the ground is unknown: check its coordinate system"))
    gsd = gsd_m or _native_m(layer, scale)
    width = max(1, math.ceil(extent.width() * scale[0] / gsd - 1e-6))
    height = max(1, math.ceil(extent.height() * scale[1] / gsd - 1e-6))
    tiles = math.ceil(width / TILE_PX) * math.ceil(height / TILE_PX)
    if tiles > MAX_TILES:
        text = tr("This area needs {count} tiles, {limit} at most: zoom in or choose a coarser ground resolution")
        raise RenderError(text.format(count=f"{tiles:,}", limit=f"{MAX_TILES:,}"))
    # The grid starts in the upper left corner and may reach over the area by less than a pixel.
    right = extent.xMinimum() + width * gsd / scale[0]
    bottom = extent.yMaximum() - height * gsd / scale[1]
    return RenderPlan(
        layer_id=layer.id(),
        tiles=tiles,
        width_px=width,
        height_px=height,
        bytes=width * height * _BYTES_PER_PX,
        gsd_m=gsd,
        extent=(extent.xMinimum(), bottom, right, extent.yMaximum()),
        crs_wkt=wkt(layer.crs()),
    )


class RenderTask(QgsTask):
    """Draws a planned part of a layer into a GeoTIFF; what it needs of the layer is copied when it is made."""

    done = pyqtSignal(str)
    """The path of the file."""
    failed = pyqtSignal(str)
    """A sentence; empty when the task was cancelled."""

    def __init__(self, plan: RenderPlan, layer: QgsRasterLayer, path: str | Path) -> None:
        super().__init__(tr("Drawing {layer}").format(layer=layer.name()), QgsTask.Flag.CanCancel)
        self.plan = plan
        self.path = str(path)
        self.failed_tiles = 0
        """About how many tiles came back empty, which is what servers' failures look like."""
        self.problem = ""
        self._context = QgsProject.instance().transformContext()
        self._pipe = QgsRasterPipe()
        filters = (layer.renderer(), layer.brightnessFilter(), layer.hueSaturationFilter())
        parts = [_copied(layer.dataProvider()), *(item.clone() for item in filters if item is not None)]
        self._is_drawable = all(self._pipe.set(part) for part in parts)
        if self._pipe.renderer() is not None:
            self._pipe.renderer().setOpacity(1.0)
        self._feedback: QgsRasterBlockFeedback | None = None

    def run(self) -> bool:
        """Draw, in a worker thread."""
        if self.isCanceled():
            return False
        part = Path(self.path).with_name(Path(self.path).name + ".part.tif")
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            if self._draw(part) and self._check(part):
                os.replace(str(part), self.path)
                return True
        except OSError as error:
            self.problem = tr(
                "The drawn image cannot be saved ({reason}): check the room and the rights of its folder"
            ).format(reason=error.strerror or str(error))
        finally:
            part.unlink(missing_ok=True)
        return False

    def cancel(self) -> None:
        """Stop after the block that is being drawn."""
        feedback = self._feedback
        if feedback is not None:
            feedback.cancel()
        super().cancel()

    def finished(self, result: bool) -> None:
        """Tell the result, in the main thread."""
        if result:
            self.done.emit(self.path)
        else:
            self.failed.emit("" if self.isCanceled() else self.problem or tr("The layer could not be drawn"))

    def _draw(self, part: Path) -> bool:
        if not self._is_drawable:
            self.problem = tr("This kind of layer cannot be drawn: save it as a GeoTIFF first")
            return False
        feedback = QgsRasterBlockFeedback()
        feedback.progressChanged.connect(self._tell_progress, Qt.ConnectionType.DirectConnection)
        self._feedback = feedback
        if self.isCanceled():
            return False
        writer = QgsRasterFileWriter(str(part))
        writer.setOutputFormat("GTiff")
        writer.setCreateOptions(["COMPRESS=DEFLATE", "ZLEVEL=1", "TILED=YES", "BIGTIFF=IF_SAFER"])
        writer.setMaxTileWidth(_CHUNK_PX)
        writer.setMaxTileHeight(_CHUNK_PX)
        plan = self.plan
        crs = QgsCoordinateReferenceSystem.fromWkt(plan.crs_wkt)
        code = writer.writeRaster(
            self._pipe, plan.width_px, plan.height_px, QgsRectangle(*plan.extent), crs, self._context, feedback
        )
        self._feedback = None
        if self.isCanceled():
            return False
        if code != QgsRasterFileWriter.WriterError.NoError or not part.is_file():
            reason = "; ".join(feedback.errors()) or tr("is the disk full?")
            self.problem = tr("The layer could not be drawn ({reason})").format(reason=reason)
            return False
        return True

    def _tell_progress(self, percent: float) -> None:
        self.setProgress(0.95 * percent)

    def _check(self, part: Path) -> bool:
        """Count the tiles that are wholly transparent: a server that fails sends nothing, and nobody else says so."""
        written = QgsProviderRegistry.instance().createProvider("gdal", str(part), QgsDataProvider.ProviderOptions())
        if not isinstance(written, QgsRasterDataProvider) or not written.isValid():
            self.problem = tr("The drawn image cannot be read back: is the disk full?")
            return False
        empty = 0
        for top in range(0, self.plan.height_px, TILE_PX):
            for left in range(0, self.plan.width_px, TILE_PX):
                if self.isCanceled():
                    return False
                empty += _empty_cells(written, left, top)
        cells = math.ceil(self.plan.height_px / _CELL_PX) * math.ceil(self.plan.width_px / _CELL_PX)
        self.failed_tiles = math.ceil(self.plan.tiles * empty / cells)
        if empty >= cells:
            self.problem = tr("No image came back for this area: check the connection, or zoom in")
            return False
        return True


def _empty_cells(provider: QgsRasterDataProvider, left: int, top: int) -> int:
    """Count the wholly transparent cells of a tile of the file; the server's tiles lie across ours."""
    extent = provider.extent()
    width, height = min(TILE_PX, provider.xSize() - left), min(TILE_PX, provider.ySize() - top)
    unit_x, unit_y = extent.width() / provider.xSize(), extent.height() / provider.ySize()
    corner_x, corner_y = extent.xMinimum() + left * unit_x, extent.yMaximum() - top * unit_y
    window = QgsRectangle(corner_x, corner_y - height * unit_y, corner_x + width * unit_x, corner_y)
    # The block must outlive its data, which is a view.
    block = provider.block(_ALPHA, window, width, height)
    alpha = bytes(block.data())
    if b"\0" not in alpha:
        return 0
    empty = 0
    for row in range(0, height, _CELL_PX):
        lines = range(row, min(row + _CELL_PX, height))
        for start in range(0, width, _CELL_PX):
            stop = min(start + _CELL_PX, width)
            empty += not any(alpha[line * width + start : line * width + stop].strip(b"\0") for line in lines)
    return empty


def _native_m(layer: QgsRasterLayer, scale: tuple[float, float]) -> float:
    """Return the ground metres per pixel of the raster itself, or of a server's finest level within reason."""
    if layer.providerType() == "gdal" and layer.width() > 0:
        return math.sqrt(scale[0] * scale[1] * abs(layer.rasterUnitsPerPixelX() * layer.rasterUnitsPerPixelY()))
    resolutions = [value for value in layer.dataProvider().nativeResolutions() if value > 0]
    return max(FINEST_M, min(resolutions, default=0.0) * math.sqrt(scale[0] * scale[1]))


def _copied(provider: QgsRasterDataProvider) -> QgsRasterDataProvider:
    """Copy a provider, so that smaller pictures are made of averages, where it can: samples would flicker."""
    copy = provider.clone()
    if copy.enableProviderResampling(True):
        copy.setZoomedOutResamplingMethod(QgsRasterDataProvider.ResamplingMethod.Average)
        copy.setMaxOversampling(_ANY_OVERSAMPLING)
    return copy
