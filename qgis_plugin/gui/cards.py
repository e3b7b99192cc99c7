"""Which view tells what is going on: from engine, search and layer to the panel's states."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from qgis.gui import QgsProjectionSelectionDialog
from qgis.PyQt.QtWidgets import QDialog, QFileDialog, QWidget

from ..engine.command import VARIABLE
from ..engine.install import plan_install
from ..engine.protocol import EngineError, Progress
from ..words import tr
from . import states
from .states import Action, Card, State, View

if TYPE_CHECKING:
    from qgis.core import QgsRasterLayer

    from ..engine.client import EngineClient
    from ..layers.source import LayerSource
    from ..settings import Settings
    from .runner import Runner
    from .search import Estimate


def examples() -> tuple[str, ...]:
    """Questions that show what can be asked."""
    return tr("parking lots with many cars"), tr("solar panels on roofs"), tr("flooded fields")


def bad_layer(source: LayerSource) -> View:
    """The layer cannot be searched; offer the repair that fits."""
    repairs = {"repair_path": tr("Repair Path…"), "set_crs": tr("Set Coordinate System…")}
    repair = Action(source.remedy, repairs[source.remedy]) if source.remedy in repairs else None
    return states.bad_layer(source.reason, repair)


def engine_view(client: EngineClient, settings: Settings) -> View | None:
    """The view for an engine that cannot be asked now, None for one that can."""
    if client.state == "none" and _is_named(settings):
        # One was named and is not there: to install another would not help.
        repair = Action("engine_settings", tr("Engine Settings…"))
        return replace(states.error(client.problem, repair, tr("Engine: none")), query_enabled=False, ask="off")
    if client.state == "none":
        plan = plan_install(settings)
        return states.no_engine(plan.size_mb, plan.folder)
    if client.state in ("stopped", "wrong"):
        return states.stopped(client.problem, never_ran=not client.has_run)
    if client.state == "starting":
        # A question may be typed and sent already: it waits for the engine.
        return replace(states.starting(), ask="ask")
    return None


def _is_named(settings: Settings) -> bool:
    return settings.engine_mode in ("command", "address") or bool(settings.engine_command or os.environ.get(VARIABLE))


def footer(client: EngineClient, searched: str) -> str:
    """What was searched, and how the engine is."""
    names = {
        "idle": tr("Engine: starts with the next question"),
        "ready": tr("Engine: ready ({device})"),
        "busy": tr("Engine: working ({device})"),
        "silent": tr("Engine: not answering ({device})"),
    }
    engine = names.get(client.state, "{device}").format(device=client.device_title or tr("CPU"))
    return f"{searched} · {engine}" if searched else engine


def running(client: EngineClient, runner: Runner, footer_text: str, *, has_answer: bool) -> View:
    """A search is under way; an answer that is there stays in view while it is refined."""
    if client.state == "silent":
        text = tr("It may be busy with a large step. Wait, or stop it.")
        card = Card("warning", tr("The engine does not answer"), text, (Action("stop", tr("Stop")),))
        return View(State.INDEXING, card, ask="stop", footer=footer_text, results=has_answer)
    progress = runner.progress or Progress("starting", 0, 0, None)
    view = states.indexing(progress, footer_text)
    if has_answer or progress.stage not in ("embedding", "checking"):
        view = replace(view, card=None, results=has_answer)
    return view


def offer(estimate: Estimate, footer_text: str) -> View:
    """What reading the image would cost, with Start."""
    view = states.not_indexed(estimate.tiles, estimate.seconds, estimate.bytes, footer_text)
    if estimate.from_server:
        card = Card(
            "read",
            tr("This layer comes from a server"),
            tr("{tiles} will be fetched and drawn into a picture of about {size}, then searched.").format(
                tiles=states.windows_text(estimate.tiles), size=states.size_text(estimate.bytes)
            ),
            (Action("start", tr("Start")),),
        )
        view = replace(view, card=card)
    return replace(view, ask="ask")


def failed(error: EngineError, footer_text: str) -> View:
    """An error with the repair that fits it."""
    if error.code == "engine_stopped":
        return states.stopped(error, footer=footer_text)
    if error.code in ("unauthorized", "wrong_version", "device", "model", "torch_load_failed"):
        repair = Action("engine_settings", tr("Engine Settings…"))
    elif error.code == "raster":
        repair = Action("repair_path", tr("Repair Path…"))
    else:
        repair = None if error.code in states.USERS_OWN else Action("retry", tr("Try Again"))
    return states.error(error, repair, footer_text)


def details(error: EngineError) -> str:
    """Everything that is known of an error."""
    lines = (f"{error.message} [{error.code}]", error.remedy, error.details)
    return "\n".join(line for line in lines if line)


def choose_path(layer: QgsRasterLayer | None, parent: QWidget) -> bool:
    """Let the user say where the image of a layer is now."""
    path, _ = QFileDialog.getOpenFileName(parent, tr("Where Is the Image?"))
    if layer is None or not path:
        return False
    layer.setDataSource(path, layer.name(), layer.providerType())
    return True


def choose_crs(layer: QgsRasterLayer | None, parent: QWidget) -> bool:
    """Let the user say in which coordinate system a layer is."""
    if layer is None:
        return False
    dialog = QgsProjectionSelectionDialog(parent)
    chosen = dialog.exec() == QDialog.DialogCode.Accepted
    if chosen:
        layer.setCrs(dialog.crs())
    dialog.deleteLater()
    return chosen
