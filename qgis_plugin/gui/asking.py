"""From the panel to the engine: makes questions out of what the panel shows, and searches out of questions."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from qgis.core import QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QObject, QUuid, pyqtSignal

from ..layers.folders import stem_for
from ..layers.project import Question
from ..words import tr
from .plan import Plan, PlanError, area_in, options_of, plan_for, source_of
from .search import Estimate, Search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..engine.client import EngineClient
    from .dock import AskDock
    from .map_tools import MapTools
    from .runner import Runner

DEFAULT_THRESHOLD_PCT = 50
"""From here on a question explains a place as well as everything generic together."""


class Asker(QObject):
    """Sends questions to the engine."""

    growing = pyqtSignal(object, object)
    """(question, result so far)"""
    answered = pyqtSignal(object, object)
    """(question, result)"""

    def __init__(self, dock: AskDock, client: EngineClient, tools: MapTools, runner: Runner, parent: QObject) -> None:
        super().__init__(parent)
        self._dock = dock
        self._client = client
        self._tools = tools
        self._runner = runner
        self._last: Callable[[], None] = self.read_image

    def question(
        self, text: str, *, known: Iterable[Question] = (), include: Iterable[dict[str, Any]] = ()
    ) -> Question:
        """Make a question of what the panel shows; one that was asked before is asked again.

        Raises:
            PlanError: The layer or the area cannot be used.
        """
        layer = self._dock.layer()
        options = self._dock.options()
        place = self._area(layer)
        now = {
            "avoid": options.avoid,
            "where": self._dock.where(),
            "what": self._dock.what(),
            "options": asdict(options),
        }
        for old in known:
            if text and (old.text, old.layer_id, old.area) == (text, layer.id(), place):
                return replace(old, **now)
        return Question(
            id=QUuid.createUuid().toString(QUuid.StringFormat.Id128)[:12], text=text, area=place,
            threshold_pct=DEFAULT_THRESHOLD_PCT, include=tuple(include), layer_id=layer.id(), **now,
        )  # fmt: skip

    def ask(self, question: Question, title: str, *, refit: bool = False) -> None:
        """Run a question.

        Args:
            question: What to ask.
            title: Its name.
            refit: Only the examples have changed since the last time.
        """
        layer = layer_of(question)
        if layer is None:
            return
        self._last = partial(self.ask, question, title, refit=refit)
        try:
            plan = plan_for(question, layer)
        except PlanError as problem:
            self._runner.fail(problem.error)
            return
        # Files that QGIS shows cannot be replaced everywhere, so every answer gets a name of its own.
        question = replace(question, revision=question.revision + bool(question.files))
        args = {
            "query": question.text or None, "avoid": list(question.avoid), "include": list(question.include),
            "exclude": list(question.exclude), "out": plan.folder,
            "stem": stem_for(question.text or title, question.id, question.revision),
            "min_area_m2": options_of(question).min_area_m2,
        }  # fmt: skip
        search = Search(self._client, plan, "ask", args, title, confirmed=refit or self._agreed(plan), parent=self)
        search.partial.connect(lambda result: self.growing.emit(question, result))
        search.done.connect(lambda result: self.answered.emit(question, result))
        self._runner.run(search)

    def retry(self) -> None:
        """Do again what failed."""
        self._last()

    def look(self) -> None:
        """See how much of the chosen image and area is still to be read; errors wait until somebody asks."""
        plan = self._idle_plan_or_none()
        if plan is None or plan.render is not None or self._runner.busy:
            return
        search = Search(self._client, plan, "describe", {}, "", confirmed=True, parent=self)
        search.done.connect(lambda result: self._looked(plan, result))
        self._runner.run(search)

    def read_image(self) -> None:
        """Read the chosen image now, before any question."""
        self._last = self.read_image
        try:
            plan = self._idle_plan(writes=True)
        except PlanError as problem:
            self._runner.fail(problem.error)
            return
        if plan is not None:
            title = tr("Reading {layer}").format(layer=self._dock.layer().name())
            confirmed = self._agreed(plan)
            self._runner.run(Search(self._client, plan, "index", {}, title, confirmed=confirmed, parent=self))

    def _agreed(self, plan: Plan) -> bool:
        """Whether the user has seen what exactly this costs."""
        return self._runner.estimate is not None and self._runner.estimate.key == plan.key

    def _area(self, layer: QgsRasterLayer) -> dict[str, Any] | None:
        source = source_of(layer, self._dock.options())
        if source.kind == "none":
            raise PlanError(source.reason)
        where = self._dock.where()
        selection, rectangle = self._tools.area_inputs(where)
        return area_in(where, source, self._tools.canvas, selection=selection, rectangle=rectangle)

    def _idle_plan(self, *, writes: bool) -> Plan | None:
        layer = self._dock.layer()
        return None if layer is None else plan_for(self.question(""), layer, writes=writes)

    def _idle_plan_or_none(self) -> Plan | None:
        try:
            return self._idle_plan(writes=False)
        except PlanError:
            return None

    def _looked(self, plan: Plan, description: dict[str, Any]) -> None:
        missing = int(description.get("windows_missing") or 0)
        now = self._idle_plan_or_none()
        if missing and now is not None and now.key == plan.key:
            seconds, size = float(description.get("seconds") or 0), float(description.get("bytes") or 0)
            self._runner.offer(Estimate(missing, seconds, size, plan.key))


def layer_of(question: Question) -> QgsRasterLayer | None:
    """Return the layer that a question is about, while it is in the project."""
    layer = QgsProject.instance().mapLayer(question.layer_id)
    return layer if isinstance(layer, QgsRasterLayer) else None
