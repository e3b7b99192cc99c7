"""What a raster layer is to the engine: a file it can open, something QGIS must draw, or nothing it can use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsContrastEnhancement,
    QgsCoordinateReferenceSystem,
    QgsMapLayer,
    QgsMultiBandColorRenderer,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsRasterMinMaxOrigin,
    QgsRasterRenderer,
    QgsSingleBandGrayRenderer,
)

from ..words import tr
from .ground import ground_resolution

Range = tuple[float, float]

_IMAGES = (
    b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff",
    b"\0\0\0\x0cjP  ", b"\xffO\xffQ",
)  # fmt: skip
"""First bytes of what the engine opens: TIFF, BigTIFF, PNG, JPEG, JPEG 2000. Names tell nothing, as in the engine."""
_VIRTUAL = b"<VRTDataset"
_VIRTUAL_BYTES = 4 * 2**20
_ELSEWHERE = (b"/vsi", b"://", b"&lt;", b"<Key")
"""Marks of virtual rasters that lead beyond plain files of this machine."""
_DRAWN_BY_SERVERS = ("wms", "arcgismapserver")
"""Providers whose images have any size one asks for."""


@dataclass(frozen=True)
class LayerSource:
    """A raster layer as the engine sees it, free of QGIS objects so that it may travel to threads."""

    layer_id: str = ""
    name: str = ""
    kind: str = "none"
    """"file": the engine opens `path`. "render": QGIS draws it to a file first. "none": see `reason`."""
    path: str = ""
    crs_wkt: str = ""
    crs_override: bool = False
    """The layer's coordinate system is not the file's: QGIS was told another one."""
    extent: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """xmin, ymin, xmax, ymax in the layer's coordinate system."""
    gsd_m: float | None = None
    """Ground metres per pixel at the centre; None for layers without pixels of their own."""
    bands: tuple[int, ...] | None = None
    ranges: tuple[Range, ...] | None = None
    """Lowest and highest value shown, band by band; None leaves the stretch to the engine."""
    allow_vrt: bool = False
    reason: str = ""
    remedy: str = ""
    """What to do, as an action key of the panel: add_layer, set_crs, repair_path; or empty."""

    @property
    def crs(self) -> QgsCoordinateReferenceSystem:
        """The layer's coordinate system."""
        return QgsCoordinateReferenceSystem.fromWkt(self.crs_wkt)

    def request_source(self, rendered: str = "") -> dict[str, Any]:
        """Return the `source` of engine requests.

        Args:
            rendered: The file that QGIS drew, for kind "render".
        """
        path = rendered or self.path
        override = self.crs_wkt if self.crs_override and not rendered else None
        return {"path": path, "crs": override, "allow_vrt": self.allow_vrt and not rendered}

    def request_look(self) -> dict[str, Any]:
        """Return the bands and the stretch of this layer for the `look` of engine requests."""
        if self.kind != "file":
            return {}
        look: dict[str, Any] = {}
        if self.bands:
            look["bands"] = list(self.bands)
        if self.ranges:
            look["stretch"] = {"ranges": [list(pair) for pair in self.ranges]}
        return look


def describe(
    layer: QgsMapLayer | None, stretch_as_shown: bool = True, bands: tuple[int, ...] | None = None
) -> LayerSource:
    """Describe a layer for the engine; layers that cannot be searched come back with a reason.

    Args:
        layer: Any layer or None.
        stretch_as_shown: Pass on the value ranges of the layer's style.
        bands: Bands to search in instead of those shown.
    """
    if layer is None:
        return LayerSource(reason=tr("No image layer is chosen"), remedy="add_layer")
    if not isinstance(layer, QgsRasterLayer):
        return _refused(layer, tr("This layer is not an image"), "add_layer")
    if not layer.isValid():
        return _refused(layer, tr("The image of this layer was moved or cannot be opened"), "repair_path")
    path = local_file(layer)
    if path and not Path(path).is_file():
        return _refused(layer, tr("The image of this layer was moved or renamed"), "repair_path")
    if not layer.crs().isValid():
        return _refused(layer, tr("This layer has no coordinate system"), "set_crs")
    if _is_unplaced(layer):
        return _refused(layer, tr("This image has no place on the map: georeference it first"), "")
    opened = _engine_format(path) if path and layer.providerType() == "gdal" else ""
    shown = _shown(layer, stretch_as_shown, bands) if opened else (None, None)
    extent = layer.extent()
    own_crs = layer.dataProvider().crs()
    return LayerSource(
        layer_id=layer.id(),
        name=layer.name(),
        kind="file" if opened else "render",
        path=path if opened else "",
        crs_wkt=wkt(layer.crs()),
        crs_override=bool(opened) and own_crs != layer.crs(),
        extent=(extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()),
        gsd_m=_resolution(layer),
        bands=shown[0],
        ranges=shown[1],
        allow_vrt=opened == "vrt",
    )


def local_file(layer: QgsRasterLayer) -> str:
    """Return the plain local path behind a layer, or "" where GDAL needs more than a path."""
    if layer.providerType() != "gdal":
        return ""
    parts = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
    path = str(parts.get("path") or "")
    is_plain = not (parts.get("layerName") or parts.get("vsiPrefix") or parts.get("openOptions"))
    if not path or not is_plain or path.startswith("/vsi") or "://" in path:
        return ""
    # Subdatasets such as NETCDF:"a.nc":var are no paths; C:\ and C:/ are. Relative paths are qgis_process's.
    may_be_other = ":" in path[2:] or not Path(path).is_absolute()
    return "" if may_be_other and not Path(path).exists() else str(Path(path).absolute())


def wkt(crs: QgsCoordinateReferenceSystem) -> str:
    """Return a coordinate system as WKT 2, which keeps what WKT 1 loses."""
    return str(crs.toWkt(QgsCoordinateReferenceSystem.WktVariant.WKT_PREFERRED))


def _refused(layer: QgsMapLayer, reason: str, remedy: str) -> LayerSource:
    return LayerSource(layer_id=layer.id(), name=layer.name(), reason=reason, remedy=remedy)


def _engine_format(path: str) -> str:
    """Return "image" or "vrt" for a file that the engine can open, else "": QGIS knows more formats and draws them."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(1024)
            if head.startswith(_IMAGES):
                return "image"
            if _VIRTUAL in head:
                text = head + stream.read(_VIRTUAL_BYTES)
                return "" if any(mark in text for mark in _ELSEWHERE) else "vrt"
    except OSError:
        return ""
    return ""


def _is_unplaced(layer: QgsRasterLayer) -> bool:
    """Tell whether a file has no geotransform: QGIS then counts pixels, downwards from the origin."""
    if layer.providerType() != "gdal" or layer.crs().isGeographic():
        return False
    extent = layer.extent()
    corners = (extent.xMinimum(), extent.yMaximum(), extent.width(), extent.height())
    return bool(corners == (0.0, 0.0, float(layer.width()), float(layer.height())))


def _resolution(layer: QgsRasterLayer) -> float | None:
    if layer.providerType() in _DRAWN_BY_SERVERS or layer.width() < 1 or layer.height() < 1:
        return None
    extent = layer.extent()
    unit_x, unit_y = layer.rasterUnitsPerPixelX(), layer.rasterUnitsPerPixelY()
    return ground_resolution(layer.crs(), extent.center(), abs(unit_x), abs(unit_y))


def _shown(
    layer: QgsRasterLayer, stretch_as_shown: bool, bands: tuple[int, ...] | None
) -> tuple[tuple[int, ...] | None, tuple[Range, ...] | None]:
    """Return bands and value ranges of the layer's style, or of other bands where those are shown too."""
    renderer = layer.renderer()
    if isinstance(renderer, QgsMultiBandColorRenderer):
        numbers = (renderer.redBand(), renderer.greenBand(), renderer.blueBand())
        stretches = (
            renderer.redContrastEnhancement(),
            renderer.greenContrastEnhancement(),
            renderer.blueContrastEnhancement(),
        )
    elif isinstance(renderer, QgsSingleBandGrayRenderer):
        numbers, stretches = (renderer.grayBand(),), (renderer.contrastEnhancement(),)
    else:
        return bands, None
    if any(number < 1 for number in numbers):
        return bands, None
    found = dict(zip(numbers, (_range(stretch) for stretch in stretches)))
    wanted = bands or numbers
    ranges = tuple(found.get(number) for number in wanted)
    usable = stretch_as_shown and not _follows_canvas(renderer) and all(ranges)
    return wanted, tuple(pair for pair in ranges if pair) if usable else None


def _follows_canvas(renderer: QgsRasterRenderer) -> bool:
    """A stretch that changes with every move of the map would ask for a new index each time."""
    return bool(renderer.minMaxOrigin().extent() == QgsRasterMinMaxOrigin.Extent.UpdatedCanvas)


def _range(enhancement: QgsContrastEnhancement | None) -> Range | None:
    if enhancement is None:
        return None
    algorithm = QgsContrastEnhancement.ContrastEnhancementAlgorithm
    if enhancement.contrastEnhancementAlgorithm() == algorithm.NoEnhancement:
        return None
    low, high = enhancement.minimumValue(), enhancement.maximumValue()
    # NaN and empty ranges come from styles whose statistics were never computed.
    return (low, high) if high > low else None
