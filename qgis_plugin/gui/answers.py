"""The answer that is on show: its layers, its rows in the panel, and going from match to match."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qgis.core import (
    QgsCoordinateFormatter,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsRectangle,
)
from qgis.PyQt.QtCore import QObject, QTimer
from qgis.PyQt.QtWidgets import QApplication

from ..layers.area import geometry_of
from ..layers.overlay import Overlay
from ..layers.results import AnswerGroup
from ..layers.thumbnails import Thumbnails
from ..words import number, tr
from .marks import Marks
from .model import Curve, Results, Row
from .plan import finest

if TYPE_CHECKING:
    from qgis.core import QgsMapLayer
    from qgis.gui import QgisInterface, QgsMapCanvas
    from qgis.PyQt.QtGui import QImage

    from ..layers.project import Question
    from ..layers.results import Match
    from .dock import AskDock

ROWS = 200
"""More rows than anybody reads; the map shows them all."""
_MARGIN = 3.0
"""A match fills a third of the map when one goes to it."""
_LEAST_PX = 120
"""And the map never shows less than so many pixels of the image: what lies around tells what it is."""
_OUTLINE_PX = 3.0
"""Outlines follow the heatmap, whose pixels are coarser than the image's by about this much."""
_WGS84 = QgsCoordinateReferenceSystem("EPSG:4326")


class AnswerView(QObject):
    """Shows one question's answer on the map and in the panel."""

    def __init__(self, iface: QgisInterface, dock: AskDock, parent: QObject) -> None:
        super().__init__(parent)
        self._iface = iface
        self._dock = dock
        self._group: AnswerGroup | None = None
        self._layer: QgsMapLayer | None = None
        self._matches: list[Match] = []
        self._selected: int | None = None
        self.question: Question | None = None
        self.title = ""
        self.marks: Marks | None = None
        self._overlay = Overlay(iface.mapCanvas())
        self._is_new = False
        self._thumbnails = Thumbnails(self)
        self._thumbnails.ready.connect(self._set_thumbnail)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(200)
        self._later.timeout.connect(self._draw_thumbnails)

    @property
    def canvas(self) -> QgsMapCanvas:
        """The map."""
        return self._iface.mapCanvas()

    @property
    def matches(self) -> list[Match]:
        """The best matches at the present threshold, best first."""
        return list(self._matches)

    def open(self, question: Question, layer: QgsMapLayer, title: str) -> None:
        """Turn to a question; its layers are found again when they are in the project."""
        if self.question is not None and self.question.id == question.id:
            # The threshold may have moved since the question was sent.
            self.question = replace(question, threshold_pct=self.question.threshold_pct)
            return
        self.close()
        self.question, self.title = question, title
        self.marks = Marks(question)
        self._is_new = True
        self._layer = layer
        self._group = AnswerGroup.find(QgsProject.instance(), question.id, files=question.files)

    def renew(self) -> None:
        """Bring the answer forward when it comes: its question is asked anew."""
        self._is_new = True

    def bring_forward(self) -> None:
        """Show this answer instead of the others about its image."""
        if self._group is not None:
            self._group.bring_forward()

    def set_visible(self, visible: bool) -> None:
        """Show or hide what is drawn over the map: it goes with the panel."""
        if visible:
            self.show_marks()
        else:
            self._overlay.clear()

    def close(self) -> None:
        """Turn away from the question; its layers stay."""
        self._thumbnails.cancel()
        self._later.stop()
        self._overlay.clear()
        self.question = self.marks = self._group = self._layer = None
        self._matches, self._selected = [], None

    def take(self, result: dict[str, Any]) -> None:
        """Show what the engine found, also when it is not complete yet."""
        question = self.question
        if question is None:
            return
        calibration = result.get("calibration")
        self.show(
            {kind: path for kind, path in (result.get("files") or {}).items() if path},
            histogram=tuple(result.get("histogram") or question.histogram),
            best_score=result.get("best_score", question.best_score),
            gsd_m=finest(result.get("gsd_m")),
            calibration=calibration if Curve.read(calibration) is not None else None,
        )

    def show(self, files: dict[str, str] | None = None, **changes: object) -> None:
        """Put files on the map, or swap those that are there for newer ones; `changes` are of the question."""
        if self.question is None or self._layer is None:
            return
        self.question = replace(self.question, files={**self.question.files, **(files or {})}, **changes)
        if self._group is None or not self._group.exists:
            self._group = AnswerGroup.create(QgsProject.instance(), self._layer, self.title, self.question.id)
        self._group.show(self.question.files, self.question.what, self.question.threshold_pct)
        if files and self._is_new:
            self._group.bring_forward()
            self._is_new = False

    def show_rows(self) -> None:
        """Fill the panel's result block."""
        if self.question is None:
            return
        self._collect()
        question = self.question
        self._dock.show_results(
            Results(
                self._rows(),
                self._count(),
                tuple(question.histogram),
                question.threshold_pct,
                Curve.read(question.calibration),
                by_example=bool(question.include or question.exclude or not question.text),
            )
        )
        self.show_marks()
        self._later.start()

    def set_threshold(self, percent: int) -> None:
        """Filter the layers and the rows; the engine is not asked."""
        if self.question is None or percent == self.question.threshold_pct:
            return
        self.question = replace(self.question, threshold_pct=percent)
        self._overlay.highlight(None)
        if self._group is not None:
            self._group.set_threshold(percent)
        self._collect()
        self._dock.set_rows(self._rows(), self._count())
        self._later.start()

    def show_marks(self) -> None:
        """Show the examples on the map, and their number in the panel."""
        if self.question is not None and self.marks is not None and self._layer is not None:
            right, wrong = map(geometry_of, self.marks.include), map(geometry_of, self.marks.exclude)
            self._overlay.show_marks(right, wrong, self._layer.crs())
            self._dock.set_examples(len(self.marks.include), len(self.marks.exclude), self.marks.can_undo)
            self._dock.set_rows(self._rows(), self._count())

    def match(self, number: int) -> Match | None:
        """Return the match of a row."""
        return next((match for match in self._matches if match.id == number), None)

    def outline(self, match: Match) -> QgsGeometry:
        """Return what a match covers, as few vertices as its pixels need: it becomes an example."""
        if self._group is None or self.question is None:
            return match.geometry
        outline = self._group.outline(match, self.question.threshold_pct)
        simple = outline.simplify(_OUTLINE_PX * self._pixel())
        return outline if simple.isEmpty() else simple

    def activate(self, number: int) -> None:
        """Go to a match."""
        match = self.match(number)
        if match is None or self._layer is None:
            return
        self._selected = number
        self._dock.select_result(number)
        box = QgsRectangle(match.geometry.boundingBox())
        box.scale(max(_MARGIN, _LEAST_PX * self._pixel() / max(box.width(), box.height(), 1e-9)))
        whole = QgsRectangle(self._layer.extent())
        whole.scale(1.1)
        if box.width() > whole.width() or box.height() > whole.height():
            box = whole
        try:
            self.canvas.setExtent(self._to_map().transformBoundingBox(box))
        except QgsCsException:
            return
        self.canvas.refresh()
        self._overlay.highlight(match.geometry, self._layer.crs())

    def step(self, by: int) -> None:
        """Go to the next or previous match, round and round."""
        if not self._matches:
            return
        numbers = [match.id for match in self._matches]
        at = numbers.index(self._selected) + by if self._selected in numbers else (0 if by > 0 else -1)
        self.activate(numbers[at % len(numbers)])

    def copy(self, number: int) -> None:
        """Copy a match's place, latitude first, as map services read it."""
        match = self.match(number)
        if match is not None:
            QApplication.clipboard().setText(self._place(match.center, plain=True))

    def export(self, path: str) -> None:
        """Write the matches at the present threshold; raises what the writer says."""
        if self._group is not None and self.question is not None:
            self._group.export(path, self.question.threshold_pct, [match.id for match in self._wrong()])

    def best_rung(self, wanted: int = 10) -> int:
        """Return the highest threshold that shows so many matches, or the lowest that shows most."""
        if self._group is None:
            return 50
        counts = {percent: self._group.count(percent) for percent in range(95, 5, -5)}
        enough = [percent for percent, count in counts.items() if count >= wanted]
        if enough:
            return enough[0]
        most = max(counts.values())
        return max((percent for percent, count in counts.items() if count == most and most), default=10)

    def _pixel(self) -> float:
        """Return the size of the image's pixels in its own unit; 0 when it has none."""
        return self._layer.rasterUnitsPerPixelX() if self._layer is not None else 0.0

    def _wrong(self) -> list[Match]:
        """Return the matches that were marked as wrong and are still there."""
        marks = self.marks
        return [match for match in self._matches if marks is not None and marks.verdict_of(match.geometry) == "no"]

    def _collect(self) -> None:
        self._matches = [] if self._group is None or self.question is None else self._group.matches(
            self.question.threshold_pct, ROWS
        )  # fmt: skip

    def _count(self) -> int:
        if self._group is None or self.question is None:
            return 0
        return self._group.count(self.question.threshold_pct) - len(self._wrong())

    def _rows(self) -> tuple[Row, ...]:
        """Lay the matches out; what was marked as wrong comes last."""
        marks = self.marks
        wrong = self._wrong()
        matches = [match for match in self._matches if match not in wrong] + wrong
        return tuple(
            Row(match.id, match.score, self._describe(match), marks.verdict_of(match.geometry) if marks else "")
            for match in matches
        )

    def _describe(self, match: Match) -> str:
        area = "" if not match.area_m2 else tr("{area} m² · ").format(area=number(match.area_m2))
        return area + self._place(match.center)

    def _place(self, point: QgsPointXY, *, plain: bool = False) -> str:
        """Say where a point of the layer is, in degrees where that is possible."""
        if self._layer is None:
            return ""
        try:
            transform = QgsCoordinateTransform(self._layer.crs(), _WGS84, QgsProject.instance())
            degrees = transform.transform(point)
        except QgsCsException:
            return f"{point.x():.1f}, {point.y():.1f}"
        if plain:
            return f"{degrees.y():.6f}, {degrees.x():.6f}"
        kind = QgsCoordinateFormatter.Format.FormatDecimalDegrees
        flags = QgsCoordinateFormatter.FormatFlags(QgsCoordinateFormatter.FormatFlag.FlagDegreesUseStringSuffix)
        latitude = QgsCoordinateFormatter.formatY(degrees.y(), kind, 5, flags)
        return f"{latitude}, {QgsCoordinateFormatter.formatX(degrees.x(), kind, 5, flags)}"

    def _to_map(self) -> QgsCoordinateTransform:
        map_crs = self.canvas.mapSettings().destinationCrs()
        return QgsCoordinateTransform(self._layer.crs(), map_crs, QgsProject.instance())

    def _draw_thumbnails(self) -> None:
        if self._layer is not None:
            self._thumbnails.request(self._layer, self._matches)

    def _set_thumbnail(self, number: int, image: QImage) -> None:
        self._dock.set_thumbnail(number, image)
