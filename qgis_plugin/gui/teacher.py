"""Teaching by example: "like this", "not this", find similar. Every mark moves the heatmap at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgis.core import QgsCoordinateTransform, QgsCsException, QgsGeometry, QgsProject
from qgis.PyQt.QtCore import QObject, QTimer, pyqtSignal

from ..layers.area import AreaError, geojson
from ..layers.tools import mark_geometry
from ..words import tr
from .asking import layer_of
from .map_tools import selected_places
from .plan import PlanError, options_of, source_of

if TYPE_CHECKING:
    from qgis.core import QgsPointXY, QgsRasterLayer

    from .answers import AnswerView
    from .asking import Asker
    from .dock import AskDock
    from .map_tools import MapTools
    from .marks import Marks
    from .runner import Runner

_GATHER_MS = 120
"""Clicks that follow each other this quickly are one change."""


class Teacher(QObject):
    """Turns clicks into examples and asks again."""

    told = pyqtSignal(str)
    similarWanted = pyqtSignal(object)
    """Examples, as GeoJSON in the layer's CRS."""

    def __init__(
        self, dock: AskDock, answers: AnswerView, asker: Asker, tools: MapTools, runner: Runner, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._dock, self._answers, self._asker, self._tools, self._runner = dock, answers, asker, tools, runner
        self._gather = QTimer(self)
        self._gather.setSingleShot(True)
        self._gather.setInterval(_GATHER_MS)
        self._gather.timeout.connect(self._refit)
        dock.resultMarked.connect(self.mark_result)
        dock.resultSimilar.connect(self._like_result)
        dock.undoRequested.connect(self.undo)
        dock.markToggled.connect(lambda on: tools.begin("mark") if on else tools.end("mark"))
        dock.similarToggled.connect(lambda on: tools.begin("similar") if on else tools.end("similar"))
        dock.similarFromSelection.connect(self._like_selection)
        tools.placeMarked.connect(self.mark_place)
        tools.exampleDrawn.connect(self._like_drawn)
        tools.ended.connect(self._release)

    @property
    def _marks(self) -> Marks | None:
        return self._answers.marks

    def mark_result(self, number: int, verdict: str) -> None:
        """Say that a match is right or wrong."""
        match = self._answers.match(number)
        if match is not None:
            self._mark(self._answers.outline(match), verdict)

    def mark_place(self, point: QgsPointXY, verdict: str) -> None:
        """Say that a place on the map is what is looked for, or is not. A second click takes it back."""
        question = self._answers.question
        layer = layer_of(question) if question is not None else None
        if layer is None or self._marks is None:
            self.told.emit(tr("Ask something first, then click what is right and what is wrong."))
            return
        source = source_of(layer, options_of(question))
        map_crs = self._tools.canvas.mapSettings().destinationCrs()
        try:
            geometry = mark_geometry(point, map_crs, source, question.gsd_m)
        except AreaError as problem:
            self.told.emit(str(problem))
            return
        said = self._marks.verdict_at(geometry.centroid().asPoint())
        self._mark(geometry, "" if said == verdict else verdict)

    def undo(self) -> None:
        """Take the last mark back."""
        if self._marks is not None and self._marks.undo():
            self._answers.show_marks()
            self._gather.start()

    def stop(self) -> None:
        """Forget what was about to be asked."""
        self._gather.stop()

    def _mark(self, geometry: QgsGeometry, verdict: str) -> None:
        if self._marks is None:
            return
        self._marks.mark(geometry, verdict)
        self._answers.show_marks()
        self._gather.start()

    def _refit(self) -> None:
        if self._answers.question is None or self._marks is None:
            return
        question = self._marks.applied(self._answers.question)
        if not question.text and not question.include:
            self.told.emit(tr("Mark at least one place that is right."))
            return
        self._asker.ask(question, self._answers.title, refit=True)

    def _like_result(self, number: int) -> None:
        match = self._answers.match(number)
        if match is not None:
            self.similarWanted.emit([geojson(self._answers.outline(match))])

    def _like_drawn(self, geometry: QgsGeometry) -> None:
        self._like([geometry], self._tools.canvas.mapSettings().destinationCrs())

    def _like_selection(self) -> None:
        layer = self._tools.selected_layer()
        if layer is None:
            self.told.emit(tr("Select the features that show what you look for, then try again."))
            return
        self._like(selected_places(layer), layer.crs())

    def _like(self, geometries: list[QgsGeometry], crs: object) -> None:
        layer: QgsRasterLayer | None = self._dock.layer()
        if layer is None:
            return
        transform = QgsCoordinateTransform(crs, layer.crs(), QgsProject.instance())
        try:
            for geometry in geometries:
                geometry.transform(transform)
        except QgsCsException:
            self._runner.fail(PlanError(tr("The example does not lie on this layer: choose another one.")).error)
            return
        self.similarWanted.emit([geojson(geometry) for geometry in geometries])

    def _release(self, kind: str) -> None:
        if kind == "mark":
            self._dock.set_mark_active(False)
        elif kind == "similar":
            self._dock.set_similar_active(False)
