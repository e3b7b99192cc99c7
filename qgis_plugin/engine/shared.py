"""One warm engine for all who wait for answers: it lives in a thread of its own and serves every other one."""

from __future__ import annotations

import atexit
import threading
import traceback
from queue import SimpleQueue
from typing import Any

from qgis.PyQt.QtCore import QCoreApplication, QObject, QThread, QTimer, pyqtSignal

from ..settings import Settings
from ..words import tr
from .client import EngineClient, Request
from .command import find_engine
from .protocol import EngineError

IDLE_MS = 120_000
"""How long an engine without work stays warm."""
WAIT_MS = 10_000


class Errand:
    """One request on its way to the engine's thread and back.

    Attributes:
        heard: What the engine says, in its order: ("progress", Progress), ("note", text), and one last
            ("finished", result) or ("failed", EngineError).
    """

    def __init__(self, settings: Settings, op: str, args: dict[str, Any]) -> None:
        self.settings, self.op, self.args = settings, op, args
        self.thread: QThread | None = None
        self.heard: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self.request: Request | None = None
        self.unwanted = False


class _Desk(QObject):
    """Lives in the engine's thread: takes errands and keeps the engine warm.

    A change of the settings leads to another engine; the one before ends when its last request has.
    """

    wanted = pyqtSignal(object)
    unwanted = pyqtSignal(object)
    resting = pyqtSignal()

    def __init__(self, users: set[object]) -> None:
        super().__init__()
        self._users = users
        self._clients: dict[object, EngineClient] = {}
        self._errands: dict[Errand, EngineClient] = {}
        self._idle = QTimer(self)
        self._idle.setSingleShot(True)
        self._idle.timeout.connect(self._on_idle)
        self.wanted.connect(self._take)
        self.unwanted.connect(self._cancel)
        self.resting.connect(self._rest)

    @property
    def pids(self) -> list[int]:
        """The process ids of the engines that run here."""
        return [client.pid for client in list(self._clients.values()) if client.pid]

    def _take(self, errand: Errand) -> None:
        self._idle.stop()
        try:
            client = self._client(errand.settings)
        except Exception as error:  # noqa: BLE001 - somebody waits for the end of the errand
            text = tr("The engine could not be started: {reason}").format(reason=error)
            errand.heard.put(("failed", EngineError("engine_stopped", text, details=traceback.format_exc())))
            self._rest()
            return
        self._errands[errand] = client
        self._drop_unused(client)
        errand.request = request = client.request(errand.op, errand.args)
        request.progress.connect(lambda progress: errand.heard.put(("progress", progress)))
        request.note.connect(lambda text: errand.heard.put(("note", text)))
        request.finished.connect(lambda result: self._end(errand, "finished", result))
        request.failed.connect(lambda error: self._end(errand, "failed", error))
        if errand.unwanted:
            request.cancel()

    def _client(self, settings: Settings) -> EngineClient:
        key = (find_engine(settings), settings.authcfg)
        if key not in self._clients:
            self._clients[key] = EngineClient(settings, self)
        return self._clients[key]

    def _cancel(self, errand: Errand) -> None:
        errand.unwanted = True
        if errand.request is not None:
            errand.request.cancel()

    def _end(self, errand: Errand, kind: str, value: object) -> None:
        del self._errands[errand]
        errand.heard.put((kind, value))
        self._rest()

    def _rest(self) -> None:
        if not self._errands:
            self._idle.start(IDLE_MS)

    def _on_idle(self) -> None:
        if not self._users:
            self._drop_unused(None)

    def _drop_unused(self, used: EngineClient | None) -> None:
        busy = {*self._errands.values(), used}
        for key in [key for key, client in self._clients.items() if client not in busy]:
            client = self._clients.pop(key)
            client.stop()
            client.deleteLater()

    def close(self) -> None:
        """End every engine; errands under way are cancelled."""
        for client in list(self._clients.values()):
            client.stop()
        self._clients.clear()
        self.deleteLater()  # in this thread, whoever still holds the Python side


class _Thread(QThread):
    """Runs the desk."""

    def __init__(self, users: set[object]) -> None:
        super().__init__()
        self.desk: _Desk | None = None
        self._users = users
        self._ready = threading.Event()

    def open(self) -> _Desk:
        """Start, and return the desk."""
        self.start()
        self._ready.wait()
        return self.desk

    def run(self) -> None:
        """Serve until `quit`; QGIS's objects of this thread are made and unmade in it."""
        self.desk = _Desk(self._users)
        self._ready.set()
        self.exec()
        self.desk.close()
        self.desk = None


class SharedEngine:
    """The door to the engine's thread, for any thread; the thread starts with the first errand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: _Thread | None = None
        self._users: set[object] = set()

    def enter(self, user: object) -> None:
        """Keep the engine warm for as long as somebody uses it."""
        self._users.add(user)

    def leave(self, user: object) -> None:
        """Let the engine end when it stays without work."""
        self._users.discard(user)
        with self._lock:
            if self._thread is not None:
                self._thread.desk.resting.emit()

    def submit(self, settings: Settings, op: str, args: dict[str, Any]) -> Errand:
        """Hand over a request to the engine of the settings."""
        errand = Errand(settings, op, args)
        with self._lock:
            if self._thread is None:
                self._thread = _Thread(self._users)
                self._thread.open()
                _at_the_end(self.stop)
            errand.thread = self._thread
            self._thread.desk.wanted.emit(errand)
        return errand

    def cancel(self, errand: Errand) -> None:
        """Ask for an early end of a request."""
        with self._lock:
            if errand.thread is self._thread and self._thread is not None:
                self._thread.desk.unwanted.emit(errand)

    def serves(self, errand: Errand) -> bool:
        """Whether an end of the errand can still come."""
        with self._lock:
            return errand.thread is self._thread or not errand.heard.empty()

    def awake(self) -> bool:
        """Whether an engine may run, or be about to start."""
        with self._lock:
            return self._thread is not None

    def pids(self) -> list[int]:
        """The process ids of the engines that run."""
        with self._lock:
            return self._thread.desk.pids if self._thread is not None else []

    def stop(self) -> None:
        """End the engine and its thread, and wait for that; the next errand starts them again."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.quit()
            if not thread.wait(WAIT_MS):
                _LOST.append(thread)  # Qt ends the program when a running thread is deleted


_LOST: list[QThread] = []
_ENDS: set[object] = set()


def _at_the_end(stop: Any) -> None:
    """Stop with the application; `qgis_process` ends without its last signal, so Python's end counts too."""
    if stop not in _ENDS:
        _ENDS.add(stop)
        QCoreApplication.instance().aboutToQuit.connect(stop)
        atexit.register(stop)


shared = SharedEngine()
