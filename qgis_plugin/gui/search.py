"""One search: draw the layer when it is no file, see how much there is to read, ask the engine.

Shown in QGIS's task bar while it lasts. Every search ends with exactly one of `done` and `failed`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qgis.core import QgsApplication, QgsProject, QgsTask
from qgis.PyQt.QtCore import QObject, QTimer, pyqtSignal

from ..engine.protocol import EngineError, Progress
from ..layers.render import RenderTask
from ..words import tr

if TYPE_CHECKING:
    from ..engine.client import EngineClient, Request
    from .plan import Plan

PATIENCE_S = 20
"""Reading that takes no longer than this starts without asking."""
PATIENCE_TILES = 100
"""So many map tiles are fetched from a server without asking."""


@dataclass(frozen=True)
class Estimate:
    """What a search would cost, before it begins."""

    tiles: int
    seconds: float
    bytes: float
    key: str
    """Of the plan that costs this."""
    from_server: bool = False
    """Whether the tiles are map tiles to be fetched, not windows to be read."""


class TaskBarEntry(QgsTask):
    """Stands in QGIS's task bar for work that happens elsewhere; its Cancel reaches that work."""

    def __init__(self, title: str) -> None:
        super().__init__(title, QgsTask.Flag.CanCancel)
        self._over = threading.Event()
        self._succeeded = False

    def run(self) -> bool:
        """Wait in the background until the work is over."""
        self._over.wait()
        return self._succeeded

    def cancel(self) -> None:
        """Let `run` end; the work itself hears of it by `taskTerminated`."""
        self._over.set()
        super().cancel()

    def end(self, *, succeeded: bool) -> None:
        """Tell that the work is over."""
        self._succeeded = succeeded
        self._over.set()


class Search(QObject):
    """Runs one plan.

    Args:
        client: The engine.
        plan: Where and how to look.
        op: ``describe``, ``index`` or ``ask``.
        args: What `op` needs beyond source, look and area.
        title: What the task bar says.
        confirmed: The user has agreed to any cost.
        parent: Owner.
    """

    progress = pyqtSignal(object)
    note = pyqtSignal(str)
    confirm = pyqtSignal(object)
    partial = pyqtSignal(object)
    done = pyqtSignal(object)
    failed = pyqtSignal(object)

    def __init__(
        self, client: EngineClient, plan: Plan, op: str, args: dict[str, Any], title: str, *, confirmed: bool,
        parent: QObject,
    ) -> None:  # fmt: skip
        super().__init__(parent)
        self.plan = plan
        self.op = op
        self.args = args
        self.confirmed = confirmed
        self._client = client
        self._title = title
        self._request: Request | None = None
        self._render: RenderTask | None = None
        self._entry: TaskBarEntry | None = None
        self._over = False
        self.committed = False
        """Whether the work itself has begun, beyond looking at what it would cost."""

    def start(self) -> None:
        """Begin, or go on after the user has agreed."""
        if self.plan.render is not None:
            tiles = self.plan.render.tiles
            if not self.confirmed and tiles > PATIENCE_TILES:
                self.confirm.emit(Estimate(tiles, 0.0, self.plan.render.bytes, self.plan.key, from_server=True))
                return
            self._draw()
        elif self.confirmed or self.op == "describe":
            self._send(self.op)
        else:
            self._send("describe")

    def cancel(self) -> None:
        """Stop; `failed` follows with the code ``cancelled``."""
        if self._over:
            return
        if self._request is not None:
            self._request.cancel()
        elif self._render is not None:
            self._render.cancel()
        else:
            QTimer.singleShot(0, lambda: self._fail(EngineError("cancelled", tr("Stopped"))))

    def _draw(self) -> None:
        layer = QgsProject.instance().mapLayer(self.plan.render.layer_id)
        if layer is None:
            self._fail(EngineError("raster", tr("The layer is no longer in the project.")))
            return
        self.committed = True
        render = RenderTask(self.plan.render, layer, self.plan.picture)
        self._render = render
        render.progressChanged.connect(self._drawing)
        render.done.connect(self._drawn)
        render.failed.connect(self._not_drawn)
        QgsApplication.taskManager().addTask(render)

    def _drawing(self, percent: float) -> None:
        self.progress.emit(Progress("rendering", round(percent), 100, None))

    def _drawn(self, path: str) -> None:
        render, self._render = self._render, None
        if render is not None and render.failed_tiles:
            self.note.emit(tr("{n} map tiles did not arrive; they stay empty.").format(n=render.failed_tiles))
        self.progress.emit(Progress("reading the image"))
        self.plan = replace(self.plan, render=None, request_source={"path": path, "crs": None, "allow_vrt": False})
        self.start()

    def _not_drawn(self, reason: str) -> None:
        self._render = None
        self._fail(EngineError("raster", reason) if reason else EngineError("cancelled", tr("Stopped")))

    def _send(self, op: str) -> None:
        if self._entry is None and op != "describe":
            self._entry = TaskBarEntry(self._title)
            self._entry.taskTerminated.connect(self._leave_task_bar)
            QgsApplication.taskManager().addTask(self._entry)
        self.committed = op != "describe"
        base = {"source": self.plan.request_source, "look": self.plan.look, "area": self.plan.area}
        request = self._client.request(op, base if op == "describe" else {**base, **self.args})
        self._request = request
        request.progress.connect(self._advance)
        request.note.connect(self.note)
        request.partial.connect(self.partial)
        request.finished.connect(self._described if op == "describe" and self.op != "describe" else self._succeed)
        request.failed.connect(self._fail)

    def _described(self, description: dict[str, Any]) -> None:
        self._request = None
        seconds = float(description.get("seconds") or 0.0)
        if description.get("windows_missing") and seconds > PATIENCE_S and not self.confirmed:
            self.confirm.emit(
                Estimate(description["windows_missing"], seconds, description.get("bytes") or 0, self.plan.key)
            )
            return
        self._send(self.op)

    def _advance(self, progress: Progress) -> None:
        if self._entry is not None and progress.total:
            self._entry.setProgress(100 * progress.done / progress.total)
        self.progress.emit(progress)

    def _leave_task_bar(self) -> None:
        """The user has cancelled in the task bar, whose manager deletes the entry after this."""
        self._entry = None
        self.cancel()

    def _succeed(self, result: dict[str, Any]) -> None:
        if self._finish(succeeded=True):
            self.done.emit(result)

    def _fail(self, error: EngineError) -> None:
        if self._finish(succeeded=False):
            self.failed.emit(error)

    def _finish(self, *, succeeded: bool) -> bool:
        if self._over:
            return False
        self._over = True
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.taskTerminated.disconnect(self._leave_task_bar)
            entry.end(succeeded=succeeded)
        return True
