"""How outputs look when QGIS loads them: as the panel's answers do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qgis.core import (
    QgsMapLayer,
    QgsPalettedRasterRenderer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsRasterLayer,
)
from qgis.PyQt.QtGui import QColor

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = 100


class Styler(QgsProcessingLayerPostProcessorInterface):
    """Applies one style to one loaded layer, in the main thread.

    QGIS holds only a bare pointer to it and Python would delete it too early, so the class keeps the last ones.
    """

    instances: ClassVar[list[Styler]] = []

    def __init__(self, style: Callable[[Any], None]) -> None:
        super().__init__()
        self.style = style

    @classmethod
    def attach(cls, context: QgsProcessingContext, layer_id: str, style: Callable[[Any], None]) -> None:
        """Style an output if it is going to be loaded."""
        if context.willLoadLayerOnCompletion(layer_id):
            styler = cls(style)
            cls.instances = [*cls.instances[-KEPT:], styler]
            context.layerToLoadOnCompletionDetails(layer_id).setPostProcessor(styler)

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        """Style the layer; QGIS calls this."""
        self.style(layer)
        layer.triggerRepaint()


def style_heatmap(context: QgsProcessingContext, layer_id: str, threshold: float) -> None:
    """Show colours from the threshold on, and nothing below it."""
    from ..layers import style

    Styler.attach(context, layer_id, lambda layer: style.style_heatmap(layer, threshold))


def style_matches(context: QgsProcessingContext, layer_id: str, shape: str) -> None:
    """Show outlines with the score as label."""
    from ..layers import style

    Styler.attach(context, layer_id, lambda layer: style.style_regions(layer, shape == "polygons"))


def style_classes(context: QgsProcessingContext, layer_id: str, names: list[str]) -> None:
    """Use the style that the engine wrote beside the raster; an engine on another machine keeps it there."""
    Styler.attach(context, layer_id, lambda layer: _classes(layer, names))


def _classes(layer: QgsRasterLayer, names: list[str]) -> None:
    beside = Path(layer.source()).with_suffix(".qml")
    if beside.is_file():
        layer.loadNamedStyle(str(beside))
        return
    colours = [QColor.fromHsv(360 * place // len(names), 150, 210) for place in range(len(names))]
    classes = [
        QgsPalettedRasterRenderer.Class(number, colour, name)
        for number, (colour, name) in enumerate(zip(colours, names), start=1)
    ]
    layer.setRenderer(QgsPalettedRasterRenderer(layer.dataProvider(), 1, classes))
