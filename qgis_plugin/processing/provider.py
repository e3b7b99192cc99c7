"""The Processing provider ``geoalign``."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .asklayer import AskLayer
from .enginestatus import EngineStatus
from .findsimilar import FindSimilar
from .heatmaptoboxes import HeatmapToBoxes
from .indexraster import IndexRaster
from .landcover import LandCover
from .tileraster import TileRaster

ICON = str(Path(__file__).parents[1] / "resources" / "icon.svg")
ALGORITHMS = (IndexRaster, AskLayer, FindSimilar, LandCover, HeatmapToBoxes, TileRaster, EngineStatus)


class GeoAlignProvider(QgsProcessingProvider):
    """All algorithms of GeoAlign."""

    def id(self) -> str:
        """The id; published, never changed."""
        return "geoalign"

    def name(self) -> str:
        """The name in the toolbox."""
        return "GeoAlign"

    def longName(self) -> str:
        """The name with what it is for."""
        return "GeoAlign – Ask the Map"

    def icon(self) -> QIcon:
        """The provider's icon."""
        return QIcon(ICON)

    def svgIconPath(self) -> str:
        """The icon as SVG, which scales."""
        return ICON

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        """GeoTIFF only: it is what the engine writes."""
        return ["tif", "tiff"]

    def defaultRasterFileExtension(self) -> str:
        """GeoTIFF."""
        return "tif"

    def loadAlgorithms(self) -> None:
        """Make one of each."""
        for algorithm in ALGORITHMS:
            self.addAlgorithm(algorithm())

    def unload(self) -> None:
        """End the engine; QGIS calls this when the plugin goes."""
        from ..engine.shared import shared

        shared.stop()
