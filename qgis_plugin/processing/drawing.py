"""Layers that are no file for the engine are drawn into one first: in Processing's thread, with a copy of the layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgis.core import QgsProcessingException, QgsProcessingFeedback
from qgis.PyQt.QtCore import Qt

from ..words import tr

if TYPE_CHECKING:
    from pathlib import Path

    from ..layers.render import RenderTask


def draw(task: RenderTask, folder: Path, feedback: QgsProcessingFeedback) -> str:
    """Run a prepared drawing here, and return the file."""
    task.path = str(folder / "image.tif")
    feedback.pushInfo(
        tr("Drawing {width} × {height} pixels in {tiles} tiles").format(
            width=task.plan.width_px, height=task.plan.height_px, tiles=task.plan.tiles
        )
    )
    feedback.canceled.connect(task.cancel, Qt.ConnectionType.DirectConnection)
    try:
        drawn = task.run()
    finally:
        feedback.canceled.disconnect(task.cancel)
    if not drawn:
        raise QgsProcessingException(task.problem or tr("Stopped."))
    if task.failed_tiles:
        feedback.pushWarning(
            tr("{failed} of {tiles} tiles came back empty; nothing is found there.").format(
                failed=task.failed_tiles, tiles=task.plan.tiles
            )
        )
    return task.path
