"""One warm engine for all of QGIS: starts it, speaks to it, notices when it is silent, and brings it back once."""

from __future__ import annotations

import time
from typing import Any, Callable

from qgis.PyQt.QtCore import QCoreApplication, QObject, QThread, QTimer, pyqtSignal

from ..settings import Settings
from ..words import tr
from .command import EngineChoice, find_engine, why_none
from .log import engine_log
from .process import StdioTransport
from .protocol import EngineError, Progress, encode, speaks

HELLO_S = 60.0
SILENCE_S = 6.5
"""Three heartbeats of 2 s, and a little for a busy computer."""
CANCEL_MS = 5000
"""An engine that has not confirmed a cancellation by then is replaced."""
ATTEMPTS = 2
TICK_MS = 500


class Request(QObject):
    """One question to the engine; ends with exactly one of `finished` and `failed`, never inside `request()`.

    Signals:
        progress: `Progress`.
        partial: What is known so far, in the shape of the result (dict).
        note: A remark for the user.
        finished: The result (dict).
        failed: `EngineError`.
    """

    progress = pyqtSignal(object)
    partial = pyqtSignal(object)
    note = pyqtSignal(str)
    finished = pyqtSignal(object)
    failed = pyqtSignal(object)

    def __init__(self, client: EngineClient, id_: int, op: str, args: dict[str, Any]) -> None:
        super().__init__(client)
        self.id, self.op, self.args = id_, op, args
        self.attempts = 0
        self.over = self.unwanted = False
        self._client = client
        self._error: EngineError | None = None

    def cancel(self) -> None:
        """Ask for an early end: `failed` follows with the code "cancelled"."""
        self._client.cancel(self)

    def within(self, milliseconds: int) -> None:
        """Take the engine away when the request has not ended by then."""
        QTimer.singleShot(milliseconds, self._force)

    def end_later(self, error: EngineError) -> None:
        """Fail as soon as the event loop runs."""
        self._error = error
        QTimer.singleShot(0, self._end_now)

    def _end_now(self) -> None:
        self.end(None, self._error)

    def _force(self) -> None:
        if not self.over:
            self._client.force(self)

    def end(self, result: dict[str, Any] | None, error: EngineError | None = None) -> None:
        """Emit the last signal; a second call does nothing."""
        if self.over:
            return
        self.over = True
        if error is not None:
            self.failed.emit(error)
        else:
            self.finished.emit(result or {})
        self.deleteLater()


class EngineClient(QObject):
    """The engine of a QGIS session. Lives in the thread that made it: in the panel's case the main one.

    Signals:
        stateChanged: The new `state`.

    Attributes:
        state: "none", "idle", "starting", "ready", "busy", "silent", "stopped" or "wrong".
        problem: Why it is "none", "stopped" or "wrong".
        hello: How the engine introduced itself.
        device_title: What it computes on, as far as known.
        choice: The engine that is or would be started.
    """

    stateChanged = pyqtSignal(str)

    def __init__(self, settings: Settings, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.state = "none"
        self.problem: EngineError | None = None
        self.hello: dict[str, Any] | None = None
        self.has_run = False
        """Whether the chosen engine ever said hello."""
        self.device_title = ""
        self.status: dict[str, Any] | None = None
        self.log = engine_log()
        self._settings = settings
        self._transport: Any = None
        self._next_id = 1
        self._queue: list[Request] = []
        self._sent: dict[int, Request] = {}
        self._started_at = self._heard_at = 0.0
        self._clock = QTimer(self)
        self._clock.setInterval(TICK_MS)
        self._clock.timeout.connect(self._tick)
        self.choice = find_engine(settings)
        self._look_up()
        application = QCoreApplication.instance()
        if application is not None and application.thread() == QThread.currentThread():
            application.aboutToQuit.connect(self.stop)

    @property
    def pid(self) -> int:
        """The process id of the engine, 0 when none runs here."""
        return self._transport.pid if self._transport is not None else 0

    @property
    def garbage(self) -> int:
        """Lines of the running engine that were no messages."""
        return self._transport.garbage if self._transport is not None else 0

    def available(self) -> bool:
        """Whether there is an engine that runs or could be started."""
        return self.choice is not None

    def configure(self, settings: Settings | None = None) -> None:
        """Read the settings again and drop the running engine; requests under way are cancelled."""
        self._settings = settings or self._settings
        self._drop()
        self._abandon(_cancelled())
        self.status, self.device_title = None, ""
        self._choose(find_engine(self._settings))

    def start(self) -> None:
        """Start the engine when it does not run yet."""
        if self._transport is not None:
            return
        if self.choice is None:
            self._choose(find_engine(self._settings))
        if self.choice is None:
            return
        self.problem, self.hello = None, None
        self._started_at = self._heard_at = time.monotonic()
        self._transport = self._make_transport()
        self._transport.message.connect(self._on_message)
        self._transport.oversized.connect(self._on_oversized)
        self._transport.closed.connect(self._on_closed)
        self._clock.start()
        self._set_state("starting")
        self._transport.open()

    def restart(self) -> None:
        """Replace the engine by a new one; requests under way are cancelled."""
        self._drop()
        self._abandon(_cancelled())
        self.start()

    def dismiss(self, then: Callable[[], object]) -> None:
        """Let go of the engine; `then` is called when its process is gone.

        The next `configure`, `start` or request looks for an engine anew.
        """
        if self._transport is None:
            QTimer.singleShot(0, then)
        else:
            self._transport.destroyed.connect(lambda *_: then())
        self._drop()
        self._abandon(_cancelled())
        self._choose(None)

    def stop(self) -> None:
        """End the engine and wait for it, 3 s at most; requests under way are cancelled."""
        transport, self._transport = self._transport, None
        self._clock.stop()
        if transport is not None:
            _silence(transport)
            transport.stop()
        self._abandon(_cancelled())
        self._look_up()

    def request(self, op: str, args: dict[str, Any]) -> Request:
        """Send a request; the engine is started when it does not run."""
        request = Request(self, self._next_id, op, args)
        self._next_id += 1
        try:
            encode(request.id, op, args)
        except ValueError as error:
            text = tr("The request cannot be sent: {reason}").format(reason=error)
            request.end_later(EngineError("bad_request", text))
            return request
        self._queue.append(request)
        QTimer.singleShot(0, self._send_queued)
        return request

    def cancel(self, request: Request) -> None:
        """See `Request.cancel`."""
        if request.over:
            return
        if request.id not in self._sent or self._transport is None:
            self._queue = [waiting for waiting in self._queue if waiting is not request]
            self._sent.pop(request.id, None)
            request.end_later(_cancelled())
            return
        request.unwanted = True
        self._transport.send(self._new_id(), "cancel", {"target": request.id})
        request.within(CANCEL_MS)

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def force(self, request: Request) -> None:
        """Kill an engine that does not react to a cancellation; other requests go to the next engine."""
        if self._sent.pop(request.id, None) is None:
            return
        others = list(self._sent.values())
        self._drop(kill=True)
        for other in others:
            other.attempts -= 1
        self._send_again([request, *others])

    def _send_again(self, requests: list[Request], problem: EngineError | None = None) -> None:
        """Give to the next engine what the last one owed, but for what nobody wants any more."""
        self._sent, self._queue = {}, [request for request in requests if not request.unwanted] + self._queue
        self.problem = problem
        self._set_state("idle")
        for request in requests:
            if request.unwanted:
                request.end(None, _cancelled())
        if self._queue:
            self.start()

    def _make_transport(self) -> Any:
        if self.choice.kind == "address":
            from .remote import HttpTransport

            return HttpTransport(self.choice.program, self._settings.authcfg, self)
        return StdioTransport(self.choice, self.log, self)

    def _send_queued(self) -> None:
        if self._transport is None and self._queue:
            self.start()
            if self._transport is None:
                self._abandon(self.problem or why_none(self._settings))
        if self._transport is None or self.hello is None:
            return
        queue, self._queue = self._queue, []
        for request in queue:
            request.attempts += 1
            self._sent[request.id] = request
            self._transport.send(request.id, request.op, request.args)
        self._heard_at = time.monotonic()
        self._settle()

    def _settle(self) -> None:
        if self.hello is not None:
            self._set_state("busy" if self._sent else "ready")

    def _on_message(self, message: dict[str, Any]) -> None:
        self._heard_at = time.monotonic()
        kind = message["type"]
        if kind == "hello":
            self._on_hello(message)
            return
        id_ = message.get("id")
        request = self._sent.get(id_) if isinstance(id_, int) else None
        if self.state == "silent":
            self._settle()
        if request is None:
            return
        if kind == "progress":
            request.progress.emit(Progress.from_message(message))
        elif kind == "partial" and isinstance(message.get("result"), dict):
            request.partial.emit(message["result"])
        elif kind == "note":
            request.note.emit(str(message.get("text") or ""))
        elif kind in ("result", "error"):
            self._end(request, message)

    def _end(self, request: Request, message: dict[str, Any]) -> None:
        del self._sent[request.id]
        result = message.get("result")
        if message["type"] == "error":
            error = EngineError.from_message(message)
        elif isinstance(result, dict):
            error = None
            if request.op == "status":
                self._learn(result)
        else:
            error = EngineError("internal", tr("The engine sent an answer that is not complete."))
        self._settle()
        request.end(result, error)

    def _learn(self, status: dict[str, Any]) -> None:
        self.status = status
        devices = [device for device in status.get("devices") or [] if isinstance(device, dict)]
        wanted = self._settings.device
        named = [device for device in devices if device.get("name") == wanted]
        best = named or [device for device in devices if device.get("name") != "cpu"] or devices
        self.device_title = str(best[0].get("title") or best[0].get("name") or "") if best else ""

    def _on_hello(self, message: dict[str, Any]) -> None:
        if not speaks(message.get("protocol")):
            remedy = tr("Install the engine again in the engine settings, or update the plugin.")
            text = tr("The engine (version {version}) and this plugin do not understand each other.")
            version = message.get("engine") or "?"
            self._give_up("wrong", EngineError("wrong_version", text.format(version=version), remedy))
            return
        self.hello, self.has_run = message, True
        self._settle()
        self._send_queued()

    def _on_oversized(self) -> None:
        """An answer was too long to be kept: whose it was cannot be told, the first in the row is likely."""
        if self._sent:
            request = self._sent.pop(next(iter(self._sent)))
            text = tr("The engine sent an answer that is too long.")
            request.end(None, EngineError("line_too_long", text, tr("Search a smaller area.")))
            self._settle()

    def _on_closed(self, problem: EngineError) -> None:
        greeted, again = self.hello is not None, list(self._sent.values())
        if not greeted or any(request.attempts >= ATTEMPTS and not request.unwanted for request in again):
            self._give_up("stopped", problem)
            return
        self._drop()
        self._send_again(again, problem)

    def _give_up(self, state: str, problem: EngineError) -> None:
        self._drop()
        self.problem = problem
        self._set_state(state)
        self._abandon(problem)

    def _drop(self, kill: bool = False) -> None:
        """Let go of the engine without waiting; the caller sees to the requests sent to it."""
        transport, self._transport = self._transport, None
        self._clock.stop()
        self.hello = None
        if transport is not None:
            _silence(transport)
            transport.kill() if kill or self.state == "silent" else transport.leave()

    def _abandon(self, error: EngineError) -> None:
        waiting = [*self._sent.values(), *self._queue]
        self._sent, self._queue = {}, []
        for request in waiting:
            request.end(None, error)

    def _choose(self, choice: EngineChoice | None) -> None:
        self.choice, self.has_run = choice, False
        self._look_up()

    def _look_up(self) -> None:
        self.hello = None
        self.problem = None if self.choice else why_none(self._settings)
        self._set_state("idle" if self.choice else "none")

    def _tick(self) -> None:
        now = time.monotonic()
        if self.state == "starting" and now - self._started_at > HELLO_S:
            text = tr("The engine did not answer within {seconds} seconds.").format(seconds=round(HELLO_S))
            remedy = tr("Start it again; a virus scanner can make the first start slow.")
            self._give_up("stopped", EngineError("engine_stopped", text, remedy, self.log.tail(), True))
        elif self.state == "busy" and now - self._heard_at > SILENCE_S:
            self._set_state("silent")

    def _set_state(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self.stateChanged.emit(state)


def _silence(transport: Any) -> None:
    for signal in (transport.message, transport.oversized, transport.closed):
        try:
            signal.disconnect()
        except TypeError:
            continue  # nothing was connected


def _cancelled() -> EngineError:
    return EngineError("cancelled", tr("Stopped."))
