"""Save Matches As: the rows at the present threshold, in the format that the name tells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qgis.core import Qgis
from qgis.PyQt.QtWidgets import QFileDialog

from ..layers.export import ExportError
from ..words import tr

if TYPE_CHECKING:
    from qgis.gui import QgsMessageBar
    from qgis.PyQt.QtWidgets import QWidget

    from .answers import AnswerView

FORMATS = {".gpkg": "GeoPackage (*.gpkg)", ".shp": "ESRI Shapefile (*.shp)", ".geojson": "GeoJSON (*.geojson)"}


def save_matches(answers: AnswerView, parent: QWidget, bar: QgsMessageBar) -> None:
    """Ask where to, and write; a failure is told in passing, the results stay in view."""
    path, chosen = QFileDialog.getSaveFileName(parent, tr("Save Matches As"), "", ";;".join(FORMATS.values()))
    if not path:
        return
    if Path(path).suffix.lower() not in FORMATS:
        path += next((suffix for suffix, title in FORMATS.items() if title == chosen), ".gpkg")
    try:
        answers.export(path)
    except ExportError as problem:
        bar.pushMessage(tr("Ask the Map"), str(problem), Qgis.MessageLevel.Warning)
        return
    bar.pushMessage(tr("Ask the Map"), tr("Saved {path}").format(path=path), Qgis.MessageLevel.Success, 8)
