"""Ask the map: GeoAlign inside QGIS."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qgis.gui import QgisInterface

    from .plugin import GeoAlignPlugin


def classFactory(iface: QgisInterface) -> GeoAlignPlugin:
    """Make the plugin: the function that QGIS calls."""
    from .plugin import GeoAlignPlugin

    return GeoAlignPlugin(iface)
