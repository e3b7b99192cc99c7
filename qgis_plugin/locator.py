"""The locator bar: ``ask parking lots`` searches the active raster layer."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import qgis.utils
from qgis.core import QgsFeedback, QgsLocatorContext, QgsLocatorFilter, QgsLocatorResult, QgsMapLayer
from qgis.PyQt.QtGui import QIcon

from .words import tr

ICON = str(Path(__file__).parent / "resources" / "icon.svg")
PREFIX = "ask"
MAX_RECENT = 5


def recent_questions() -> list[str]:
    """The questions asked last, newest first."""
    from .settings import Settings

    return Settings().recent_questions


class AskLocatorFilter(QgsLocatorFilter):
    """Offers to ask what was typed, and the recent questions that contain it.

    QGIS calls `prepare` of a clone in the main thread and `fetchResults` of it in another one, so everything that
    belongs to QGIS is copied in `prepare`.

    Args:
        on_ask: Called in the main thread with the question that was chosen.
        recent: Gives the recent questions, newest first.
    """

    def __init__(self, on_ask: Callable[[str], None], recent: Callable[[], list[str]] = recent_questions) -> None:
        super().__init__()
        self.on_ask = on_ask
        self.recent = recent
        self._layer_name = ""
        self._questions: list[str] = []
        self.setUseWithoutPrefix(False)

    def clone(self) -> AskLocatorFilter:
        """A copy for one search."""
        return AskLocatorFilter(self.on_ask, self.recent)

    def name(self) -> str:
        """The filter's id in the settings; never translated."""
        return "geoalign_ask"

    def displayName(self) -> str:
        """The filter's name in the locator's menu."""
        return tr("Ask the Map")

    def prefix(self) -> str:
        """What to type before the question."""
        return PREFIX

    def prepare(self, string: str, context: QgsLocatorContext) -> list[str]:
        """Copy what the search needs; no completions."""
        iface = qgis.utils.iface
        layer = iface.activeLayer() if iface is not None else None
        is_raster = layer is not None and layer.type() == QgsMapLayer.LayerType.RasterLayer
        self._layer_name = layer.name() if is_raster else ""
        self._questions = list(self.recent())
        return []

    def fetchResults(self, string: str, context: QgsLocatorContext, feedback: QgsFeedback) -> None:
        """Offer the question itself, then the recent ones that contain it."""
        typed = string.strip()
        if typed:
            self.resultFetched.emit(self._result(typed, 1.0, ""))
        matching = [text for text in self._questions if typed.lower() in text.lower() and text != typed]
        for place, text in enumerate(matching[:MAX_RECENT]):
            if feedback.isCanceled():
                return
            self.resultFetched.emit(self._result(text, 0.9 - place / 100, tr("Asked before")))

    def triggerResult(self, result: QgsLocatorResult) -> None:
        """Ask the question of a result."""
        question = result.getUserData() if hasattr(result, "getUserData") else result.userData
        self.on_ask(str(question))

    def _result(self, question: str, score: float, description: str) -> QgsLocatorResult:
        if self._layer_name:
            title = tr("Search {layer} for “{question}”").format(layer=self._layer_name, question=question)
        else:
            title = tr("Search the map for “{question}”").format(question=question)
        result = QgsLocatorResult(self, title, question)
        result.description = description
        result.score = score
        result.icon = QIcon(ICON)
        return result
