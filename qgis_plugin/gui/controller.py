"""What the panel does: it connects layer, question, engine and map, and decides which state is shown."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from qgis.core import Qgis, QgsMapLayer, QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QObject, QTimer
from qgis.PyQt.QtWidgets import QApplication

from ..engine.client import EngineClient
from ..engine.redact import redact
from ..engine.report import engine_report
from ..layers.area import geometry_of
from ..layers.results import question_of
from ..settings import Settings
from ..words import number, tr
from . import cards, states
from .answers import AnswerView
from .asking import Asker, layer_of
from .dock import AskDock
from .map_tools import MapTools
from .plan import PlanError, options_of, source_of
from .runner import Runner
from .saved import SavedQuestions
from .saving import save_matches
from .teacher import Teacher

if TYPE_CHECKING:
    from qgis.gui import QgisInterface

    from ..layers.project import Question

_SETTLE_MS = 300
"""The panel looks at an image only when the choice has been still for so long."""


class AskController(QObject):
    """One per QGIS; owns the panel, the engine and the questions of the project."""

    def __init__(self, iface: QgisInterface, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.iface = iface
        self.settings = Settings()
        self.dock = AskDock(iface.mainWindow())
        self.client = EngineClient(self.settings, self)
        self.runner = Runner(self)
        self.tools = MapTools(iface, self)
        self.answers = AnswerView(iface, self.dock, self)
        self.asker = Asker(self.dock, self.client, self.tools, self.runner, self)
        self.teacher = Teacher(self.dock, self.answers, self.asker, self.tools, self.runner, self)
        self.saved = SavedQuestions(self)
        self._searched = ""
        self._told: set[tuple[str, str]] = set()
        self._greeted: dict[str, Any] | None = None
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(_SETTLE_MS)
        self._settle.timeout.connect(self._look)
        self._connect()
        self.dock.set_recent(self.settings.recent_questions)
        self._keep_answers_out()
        self._turn_to(self.saved.current)
        self.refresh()

    def _connect(self) -> None:
        dock = self.dock
        dock.askRequested.connect(self.ask)
        dock.stopRequested.connect(self.runner.stop)
        dock.layerChanged.connect(self._change_layer)
        dock.areaChanged.connect(self._change_area)
        dock.whatChanged.connect(self._change_what)
        dock.optionsChanged.connect(self._change_look)
        dock.exampleClicked.connect(self._ask_example)
        dock.cardAction.connect(self._act)
        dock.thresholdMoved.connect(self._move_threshold)
        dock.resultActivated.connect(self.answers.activate)
        dock.resultCopied.connect(self.answers.copy)
        dock.stepRequested.connect(self.answers.step)
        dock.saveRequested.connect(lambda: save_matches(self.answers, dock, self.iface.messageBar()))
        dock.engineSettingsRequested.connect(self._set_up_engine)
        dock.reportRequested.connect(self._copy_report)
        dock.visibilityChanged.connect(self._appear)
        self.client.stateChanged.connect(self._engine_changed)
        self.runner.changed.connect(self.refresh)
        self.runner.told.connect(self._tell)
        self.runner.noted.connect(self._note)
        self.teacher.told.connect(self._tell)
        self.teacher.similarWanted.connect(self._ask_similar)
        self.asker.growing.connect(self._grow)
        self.asker.answered.connect(self._answer)
        self.tools.areaDrawn.connect(self._change_look)
        self.saved.restored.connect(self._change_project)
        QgsProject.instance().layersAdded.connect(self._keep_answers_out)
        QgsProject.instance().layerWillBeRemoved.connect(self._lose_layer)
        self.iface.currentLayerChanged.connect(self._follow_tree)

    def close(self) -> None:
        """Stop everything; called when the plugin is unloaded."""
        for signal, slot in (
            (QgsProject.instance().layersAdded, self._keep_answers_out),
            (QgsProject.instance().layerWillBeRemoved, self._lose_layer),
            (self.iface.currentLayerChanged, self._follow_tree),
        ):
            with contextlib.suppress(TypeError):
                signal.disconnect(slot)
        self._settle.stop()
        self.runner.stop()
        self.teacher.stop()
        self.saved.close()
        self.answers.close()
        self.tools.close()
        self.client.stop()

    # Asking

    def ask(self) -> None:
        """Search for what the panel says. While a cost is on show, this agrees to it."""
        text = " ".join(self.dock.question().split())
        if not text or self.dock.layer() is None:
            self.dock.focus_question()
            self.refresh()
            return
        self.settings.remember(text)
        self.dock.set_recent(self.settings.recent_questions)
        self._begin(text, [])

    def _ask_example(self, text: str) -> None:
        self.dock.set_question(text)
        self.ask()

    def _ask_similar(self, include: list[dict[str, Any]]) -> None:
        self.dock.set_question("")
        self._begin("", include)

    def _begin(self, text: str, include: list[dict[str, Any]]) -> None:
        if not self.client.available():
            self.refresh()
            return
        try:
            question = self.asker.question(text, known=self.saved.questions, include=include)
        except PlanError as problem:
            self.runner.fail(problem.error)
            return
        if self.answers.question is not None and self.answers.question.id == question.id:
            question = self.answers.marks.applied(question)
            self.answers.renew()
        self.asker.ask(question, self.saved.title(question))

    def _grow(self, question: Question, result: dict[str, Any]) -> None:
        """Show what is known so far, unless the user has turned to another image meanwhile."""
        if layer_of(question) is not None and layer_of(question) is self.dock.layer():
            self._show(question, result)

    def _show(self, question: Question, result: dict[str, Any]) -> None:
        """Put an answer on the map and into the project, also one that is not complete yet."""
        self.answers.open(question, layer_of(question), self.saved.title(question))
        self.answers.take(result)
        self.saved.keep(self.answers.question)

    def _answer(self, question: Question, result: dict[str, Any]) -> None:
        layer = layer_of(question)
        if layer is None:
            return
        if layer is not self.dock.layer():
            self.dock.set_layer(layer)
            self.dock.set_question(question.text)
        self._show(question, result)
        seconds = sum((result.get("seconds") or {}).values())
        self._searched = tr("Searched {tiles} in {seconds} s").format(
            tiles=states.windows_text(int(result.get("windows") or 0)), seconds=number(seconds, 1)
        )
        for note in result.get("notes") or ():
            self._note(note)
        self.answers.show_rows()
        self.refresh()

    # What the panel shows

    def refresh(self) -> None:
        """Show the state that everything is in."""
        self.dock.show_view(self._view())

    def _view(self) -> states.View:
        layer = self.dock.layer()
        if layer is None:
            return states.no_layer()
        source = source_of(layer, self.dock.options())
        if source.kind == "none":
            return cards.bad_layer(source)
        return cards.engine_view(self.client, self.settings) or self._search_view()

    def _search_view(self) -> states.View:
        runner, question = self.runner, self.answers.question
        footer = cards.footer(self.client, self._searched if question else "")
        if runner.busy:
            return cards.running(self.client, runner, footer, has_answer=bool(self.answers.matches))
        if runner.estimate is not None:
            return cards.offer(runner.estimate, footer)
        if runner.error is not None:
            return cards.failed(runner.error, cards.footer(self.client, ""))
        if question is None:
            return states.ready(cards.examples(), footer)
        if self.answers.matches:
            return states.results(footer)
        return states.empty(question.threshold_pct, question.best_score, footer)

    def _tell(self, text: str) -> None:
        self.iface.messageBar().pushMessage(tr("Ask the Map"), text, Qgis.MessageLevel.Info, 8)

    def _note(self, note: str) -> None:
        """Pass a remark of the engine on; what was said of this question is not said again at every mark."""
        about = self.answers.question.id if self.answers.question else ""
        if (about, note) not in self._told:
            self._told.add((about, note))
            self._tell(note)

    # What the user does

    def _change_look(self) -> None:
        """Forget what was said about another choice, and look at this one when it has been still for a while."""
        self.runner.stop_looking()
        self.runner.fail(None)
        self._settle.start()

    def _change_layer(self) -> None:
        """Turn to another image, and to the last answer about it."""
        self._change_look()
        layer, question = self.dock.layer(), self.answers.question
        if layer is not None and (question is None or question.layer_id != layer.id()):
            self._turn_to(self.saved.latest_of(layer))
        self.refresh()

    def _change_area(self) -> None:
        is_rectangle = self.dock.where() == "rectangle"
        self.tools.show_area(is_rectangle)
        if is_rectangle:
            self.tools.begin("area")
        self._change_look()

    def _change_what(self) -> None:
        if self.answers.question is not None:
            self.answers.show(what=self.dock.what())
            self.answers.show_rows()
            self.saved.keep(self.answers.question)

    def _move_threshold(self, percent: int) -> None:
        self.answers.set_threshold(percent)
        self.saved.keep(self.answers.question)
        self.refresh()

    def _act(self, key: str) -> None:
        """Do what a button of the card says."""
        actions = {
            "add_layer": lambda: self.iface.actionAddRasterLayer().trigger(),
            "use_existing": self._set_up_engine,
            "install": lambda: self._set_up_engine("install"),
            "engine_settings": self._set_up_engine,
            "start": self._start,
            "stop": self.runner.stop,
            "best10": lambda: self._jump_to(self.answers.best_rung(10)),
            "lower": lambda: self._jump_to(self.answers.best_rung(1)),
            "copy_details": self._copy_details,
            "repair_path": lambda: cards.choose_path(self.dock.layer(), self.dock) and self._change_layer(),
            "restart": self._restart,
            "retry": self._retry,
            "set_crs": lambda: cards.choose_crs(self.dock.layer(), self.iface.mainWindow()) and self._change_layer(),
        }
        if key in actions:
            actions[key]()

    def _start(self) -> None:
        if self.runner.waits:
            self.runner.go_on()
        elif self.dock.question().strip():
            self.ask()
        else:
            self.asker.read_image()

    def _jump_to(self, percent: int) -> None:
        self.dock.set_threshold(percent)
        self._move_threshold(percent)

    def _retry(self) -> None:
        self.runner.fail(None)
        self.asker.retry()

    def _restart(self) -> None:
        self.runner.fail(None)
        self.client.restart()

    def _set_up_engine(self, page: str = "") -> None:
        from .engine_dialog import EngineDialog

        dialog = EngineDialog(self.settings, self.client, self.iface.mainWindow())
        if page == "install":
            dialog.show_install()
        accepted = dialog.exec()
        dialog.deleteLater()
        if accepted:
            self.runner.fail(None)
        self._appear(True)

    def _copy_report(self) -> None:
        QApplication.clipboard().setText(engine_report(self.client, self.settings))
        self._tell(tr("The report is in the clipboard."))

    def _copy_details(self) -> None:
        error = self.runner.error or self.client.problem
        details = cards.details(error) if error is not None else ""
        report = engine_report(self.client, self.settings)
        QApplication.clipboard().setText(f"{redact(details)}\n\n{report}".strip())
        self._tell(tr("The details are in the clipboard."))

    # What happens around the panel

    def _appear(self, visible: bool) -> None:
        """Wake the engine when there is something that it could be asked."""
        self.answers.set_visible(visible)
        if not visible:
            self.tools.end_all()
        if visible and self.client.state == "idle" and self.dock.layer() is not None:
            self.client.start()
        self._settle.start()
        self.refresh()

    def _look(self) -> None:
        if not self.dock.isVisible() or self.dock.layer() is None:
            return
        if self.client.state == "idle":
            self.client.start()
        if self.client.state in ("ready", "starting") and self.answers.question is None:
            self.asker.look()

    def _engine_changed(self, state: str) -> None:
        if state == "ready" and self.client.hello is not self._greeted:
            # The devices are known only when torch is loaded, which also makes the first question quicker.
            self._greeted = self.client.hello
            self.client.request("status", {}).finished.connect(self._offer_choices)
        self.refresh()

    def _offer_choices(self, status: dict[str, Any]) -> None:
        self.dock.set_choices(status.get("models") or [], status.get("devices") or [])
        self.refresh()

    def _change_project(self, question: Question | None) -> None:
        self.runner.stop()
        self.tools.forget_area()
        self.dock.set_question("")
        self._turn_to(question)

    def _keep_answers_out(self, *_: object) -> None:
        """Heatmaps are images too, but nobody means to search them."""
        layers = QgsProject.instance().mapLayers().values()
        self.dock.layer_box.setExceptedLayerList([layer for layer in layers if question_of(layer)])

    def _turn_to(self, question: Question | None) -> None:
        """Show a question of the project as it was left."""
        self.runner.stop_looking()
        self.runner.fail(None)
        if question is None or layer_of(question) is None:
            self.answers.close()
            self.refresh()
            return
        self.dock.set_layer(layer_of(question))
        self.dock.set_question(question.text)
        self.dock.set_options(options_of(question))
        self.dock.set_what(question.what)
        if question.where == "rectangle" and question.area:
            self.tools.set_area(geometry_of(question.area), layer_of(question).crs())
        self.dock.set_where(question.where)
        self.tools.show_area(question.where == "rectangle")
        self._searched = ""
        self.answers.open(question, layer_of(question), self.saved.title(question))
        self.answers.show_rows()
        self.refresh()

    def _follow_tree(self, layer: QgsMapLayer | None) -> None:
        """Turn to the question whose layer is chosen in the layer tree, or to the chosen image."""
        question = self.saved.of_layer(layer)
        if question is not None and question is not self.answers.question:
            self._turn_to(question)
            self.answers.bring_forward()
        elif isinstance(layer, QgsRasterLayer) and question is None and self.answers.question is None:
            self.dock.set_layer(layer)
            self._change_layer()

    def _lose_layer(self, layer_id: str) -> None:
        self.runner.stop_layer(layer_id)
        question = self.answers.question
        if question is not None and question.layer_id == layer_id:
            self.answers.close()
        QTimer.singleShot(0, self.refresh)
