"""The ten states of the panel as plain values: what each says, which buttons it offers (no Qt)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..sentences import sentences
from ..stages import stage_text
from ..words import number, tr
from .model import THRESHOLD_MIN

USERS_OWN = {"query", "area", "examples", "usage"}
"""Codes of errors that are about what was asked: to change it is the repair."""


class State(enum.Enum):
    """What the panel is able to do right now."""

    NO_LAYER = "no_layer"
    NO_ENGINE = "no_engine"
    STARTING = "starting"
    NOT_INDEXED = "not_indexed"
    INDEXING = "indexing"
    READY = "ready"
    RESULTS = "results"
    EMPTY = "empty"
    ERROR = "error"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Action:
    """A button of the card."""

    key: str
    text: str


@dataclass(frozen=True)
class Card:
    """An icon, one bold sentence, one plain sentence, at most two buttons; links are example questions."""

    icon: str
    title: str
    text: str
    actions: tuple[Action, ...] = ()
    links: tuple[str, ...] = ()
    details: str = ""


@dataclass(frozen=True)
class ProgressView:
    """A bar (None: no end in sight) with a line of text below it."""

    fraction: float | None
    text: str


@dataclass(frozen=True)
class View:
    """Everything that differs between the states.

    Attributes:
        ask: "ask" offers the Ask button, "stop" turns it into Stop, "off" greys it.
        results: The result block is visible.
        footer: The quiet line at the bottom.
    """

    state: State
    card: Card | None = None
    progress: ProgressView | None = None
    query_enabled: bool = True
    ask: str = "ask"
    results: bool = False
    footer: str = ""


def count_text(count: int) -> str:
    """Return a count with thousands separated."""
    return number(count)


def duration_text(seconds: float) -> str:
    """Return a rough duration in the largest sensible unit."""
    if seconds < 60:
        return tr("{count} s").format(count=max(1, round(seconds)))
    if seconds < 5400:
        return tr("{count} min").format(count=round(seconds / 60))
    return tr("{count} h").format(count=f"{seconds / 3600:.1f}")


def size_text(size: float) -> str:
    """Return a size in bytes as kB, MB or GB."""
    if size < 1e6:
        return tr("{size} kB").format(size=max(1, round(size / 1e3)))
    if size < 1e9:
        return tr("{size} MB").format(size=round(size / 1e6))
    return tr("{size} GB").format(size=f"{size / 1e9:.1f}")


def windows_text(windows: int) -> str:
    """Return "1 tile" or "n tiles"."""
    return tr("1 tile") if windows == 1 else tr("{count} tiles").format(count=count_text(windows))


def progress_view(progress) -> ProgressView:  # noqa: ANN001 - anything with stage, done, total, eta_s
    """Return the bar and its line for a progress report of the engine."""
    parts = [stage_text(progress.stage)]
    fraction = None
    if progress.total:
        fraction = max(0.0, min(1.0, progress.done / progress.total))
        parts.append(f"{fraction:.0%}")
    if progress.eta_s is not None:
        parts.append(tr("about {time} left").format(time=duration_text(progress.eta_s)))
    return ProgressView(fraction, " · ".join(parts))


def no_layer() -> View:
    """There is no image in the project, or none is chosen."""
    card = Card(
        "image",
        tr("Add an image to search"),
        tr("Open a GeoTIFF, or add an XYZ or WMS layer, then choose it above."),
        (Action("add_layer", tr("Add Raster Layer…")),),
    )
    return View(State.NO_LAYER, card, query_enabled=False, ask="off")


def bad_layer(reason: str, repair: Action | None = None) -> View:
    """The chosen layer cannot be searched; the reason says why and what helps."""
    card = Card("blocked", tr("This layer cannot be searched"), reason, (repair,) if repair else ())
    return View(State.NO_LAYER, card, query_enabled=False, ask="off")


def no_engine(size_mb: float, folder: str) -> View:
    """No search engine is known yet."""
    text = tr("It runs beside QGIS in its own folder and does not change the Python of QGIS. Download: {size}.").format(
        size=size_text(size_mb * 1e6)
    )
    if folder:
        text += "\n" + tr("Folder: {folder}").format(folder=folder)
    card = Card(
        "warning",
        tr("The search engine is not installed"),
        text,
        (Action("use_existing", tr("Use Existing…")), Action("install", tr("Install…"))),
    )
    return View(State.NO_ENGINE, card, query_enabled=False, ask="off", footer=tr("Engine: none"))


def starting() -> View:
    """The engine's process is being started."""
    progress = ProgressView(None, tr("Starting the search engine"))
    return View(State.STARTING, progress=progress, ask="off", footer=tr("Engine: starting"))


def not_indexed(windows: int, seconds: float, bytes_: float, footer: str = "") -> View:
    """The image has to be read once; asked for once per layer and area."""
    text = tr("{tiles}, about {time}, {size} on disk. Afterwards every question takes a second.").format(
        tiles=windows_text(windows), time=duration_text(seconds), size=size_text(bytes_)
    )
    card = Card("read", tr("This image has to be read once"), text, (Action("start", tr("Start")),))
    return View(State.NOT_INDEXED, card, ask="off", footer=footer)


def indexing(progress, footer: str = "", ask: str = "stop") -> View:  # noqa: ANN001 - see progress_view
    """Tiles are being read, or a question is being worked on."""
    card = Card(
        "chat",
        tr("You can already type a question"),
        tr("Tiles that are ready are searched first. Stop keeps what has been read."),
    )
    return View(State.INDEXING, card, progress_view(progress), ask=ask, footer=footer)


def ready(examples: tuple[str, ...], footer: str = "") -> View:
    """Everything waits for a question."""
    card = Card("idea", tr("Ask for anything seen from above"), "", links=tuple(examples))
    return View(State.READY, card, footer=footer)


def results(footer: str = "") -> View:
    """There are matches."""
    return View(State.RESULTS, results=True, footer=footer)


def empty(threshold_pct: int, best_score: float | None, footer: str = "") -> View:
    """No region reaches the limit."""
    title = tr("No match above {limit}").format(limit=f"{threshold_pct / 100:.2f}")
    if not best_score or 100 * best_score < THRESHOLD_MIN:
        card = Card("empty", title, tr("Try other words, or a larger area."))
        return View(State.EMPTY, card, results=True, footer=footer)
    text = tr("Best match: {score}. Lower the limit, or try other words.").format(score=f"{best_score:.2f}")
    actions = (Action("lower", tr("Lower the Limit")), Action("best10", tr("Show Best 10")))
    return View(State.EMPTY, Card("empty", title, text, actions), results=True, footer=footer)


def error(engine_error, repair: Action | None = None, footer: str = "") -> View:  # noqa: ANN001 - an EngineError
    """The cause and the next step in one sentence each, the details on demand.

    What the user can set right has no details, and does not look like a fault of the program.
    """
    title = sentences(engine_error.message).rstrip(".")
    if engine_error.code in USERS_OWN:
        card = Card("warning", title, sentences(engine_error.remedy), (repair,) if repair else ())
        return View(State.ERROR, card, footer=footer)
    actions = (Action("copy_details", tr("Copy Details")),) + ((repair,) if repair else ())
    text = sentences(engine_error.remedy) or tr("Copy the details and send them to the authors of GeoAlign.")
    card = Card("error", title, text, actions, details=_details(engine_error))
    return View(State.ERROR, card, footer=footer)


def stopped(problem, *, never_ran: bool = False, footer: str = "") -> View:  # noqa: ANN001 - an EngineError or None
    """The engine's process is gone, or never came; `never_ran` sends to the settings, for it is the wrong one."""
    title = sentences(problem.message).rstrip(".") if problem else tr("The engine stopped")
    text = sentences(problem.remedy) if problem else tr("It most likely ran out of memory.")
    other = (
        Action("engine_settings", tr("Engine Settings…")) if never_ran else Action("copy_details", tr("Copy Details"))
    )
    actions = (other, Action("restart", tr("Try Again") if never_ran else tr("Restart")))
    card = Card("stopped", title, text, actions, details=_details(problem) if problem else "")
    return View(State.STOPPED, card, ask="off", footer=footer or tr("Engine: stopped"))


def _details(problem) -> str:  # noqa: ANN001
    lines = (f"{problem.message} [{problem.code}]", problem.remedy, problem.details)
    return "\n".join(line for line in lines if line)
