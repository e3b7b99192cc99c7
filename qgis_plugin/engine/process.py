"""The engine as a child process, spoken to over its standard input and output."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from qgis.PyQt.QtCore import QObject, QProcess, QProcessEnvironment, QTimer, pyqtSignal

from ..words import tr
from .command import EngineChoice
from .environment import child_environment
from .log import LogFile, job_folder
from .protocol import EngineError, LineReader, encode

GRACE_MS = 1000
"""How long an engine may take to end by itself, and then by request, before it is killed."""
NO_WINDOW = 0x08000000


def prepare(process: QProcess, program: str, arguments: list[str], extra: dict[str, str] | None = None) -> None:
    """Give a process its command, a clean environment, a working directory, and no console window."""
    environment = QProcessEnvironment()
    for name, value in {**child_environment(os.environ, sys.platform), **(extra or {})}.items():
        environment.insert(name, value)
    process.setProcessEnvironment(environment)
    process.setWorkingDirectory(str(job_folder()))
    process.setProgram(program)
    process.setArguments(arguments)
    if hasattr(process, "setCreateProcessArgumentsModifier"):
        process.setCreateProcessArgumentsModifier(_without_window)


def _without_window(arguments: Any) -> None:
    arguments.flags |= NO_WINDOW


class StdioTransport(QObject):
    """One engine process.

    Signals:
        message: A message of the engine (dict).
        oversized: A line over the limit was thrown away.
        closed: The engine has ended without being asked to (`EngineError`).
    """

    message = pyqtSignal(object)
    oversized = pyqtSignal()
    closed = pyqtSignal(object)

    def __init__(self, choice: EngineChoice, log: LogFile, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._log = log
        self._reader = LineReader()
        self._ending = False
        self._process = QProcess(self)
        try:
            prepare(self._process, choice.program, list(choice.arguments))
        except OSError as error:
            self._refused = str(error)
        else:
            self._refused = ""
        self._process.readyReadStandardOutput.connect(self._read)
        self._process.readyReadStandardError.connect(self._read_log)
        self._process.errorOccurred.connect(self._on_error)
        self._process.finished.connect(self._on_finished)

    @property
    def pid(self) -> int:
        """The process id, 0 when it does not run."""
        return int(self._process.processId())

    @property
    def garbage(self) -> int:
        """Lines that were no messages."""
        return self._reader.garbage

    def open(self) -> None:
        """Start the process."""
        self._log.forget()
        if self._refused:
            QTimer.singleShot(0, lambda: self._close(self._not_started(self._refused)))
        else:
            self._process.start()

    def send(self, id_: int, op: str, args: dict[str, Any]) -> None:
        """Write a request."""
        self._process.write(encode(id_, op, args))

    def kill(self) -> None:
        """End the process at once; nothing is emitted any more."""
        self._ending = True
        if self._process.state() == QProcess.ProcessState.NotRunning:
            self.deleteLater()
        else:
            self._process.finished.connect(self.deleteLater)
            self._process.kill()

    def leave(self) -> None:
        """Let the process end on its own, helped when it does not, without waiting for it."""
        self._ending = True
        if self._process.state() == QProcess.ProcessState.NotRunning:
            self.deleteLater()
            return
        self._process.finished.connect(self.deleteLater)
        self._process.closeWriteChannel()
        QTimer.singleShot(GRACE_MS, self._process.terminate)
        QTimer.singleShot(2 * GRACE_MS, self._process.kill)

    def stop(self) -> None:
        """End the process and wait until it is gone, 2.5 s at most."""
        self._ending = True
        if self._process.state() != QProcess.ProcessState.NotRunning:
            self._process.closeWriteChannel()
            if not self._process.waitForFinished(GRACE_MS):
                self._process.terminate()
                if not self._process.waitForFinished(GRACE_MS):
                    self._process.kill()
                    self._process.waitForFinished(GRACE_MS // 2)
        self.deleteLater()

    def _read(self) -> None:
        before = self._reader.oversized
        for message in self._reader.feed(bytes(self._process.readAllStandardOutput())):
            if not self._ending:
                self.message.emit(message)
        if self._reader.oversized > before and not self._ending:
            self.oversized.emit()

    def _read_log(self) -> None:
        self._log.write(bytes(self._process.readAllStandardError()))

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self._close(self._not_started(self._process.errorString()))

    def _on_finished(self, code: int, status: QProcess.ExitStatus) -> None:
        self._read_log()
        self._read()
        self._close(ended(code, status == QProcess.ExitStatus.CrashExit, self._reader.mid_line, self._log.tail()))

    def _close(self, problem: EngineError) -> None:
        if not self._ending:
            self._ending = True
            self.closed.emit(problem)

    def _not_started(self, reason: str) -> EngineError:
        message = tr("The engine could not be started: {reason}").format(reason=reason)
        return EngineError("engine_stopped", message, tr("Check the engine in the engine settings."))


def ended(code: int, crashed: bool, mid_line: bool, details: str) -> EngineError:
    """What the end of an engine means, for the user."""
    killed = crashed and hasattr(signal, "SIGKILL") and code == signal.SIGKILL
    if killed or mid_line or code == 137 or "MemoryError" in details:
        message = tr("The engine stopped. It most likely ran out of memory.")
        remedy = tr("Search a smaller area, or close other programs.")
    elif "No module named" in details and "geoalign_core" in details:
        message = tr("GeoAlign is not installed in the Python chosen for the engine.")
        remedy = tr("Choose another one in the engine settings, or install the engine there.")
    elif crashed:
        message = tr("The engine stopped unexpectedly.")
        remedy = tr("Start it again; if it stops again, copy the report and send it to us.")
    else:
        message = tr("The engine ended by itself with code {code}.").format(code=code)
        remedy = tr("The details say why; check the engine in the engine settings.")
    return EngineError("engine_stopped", message, remedy, details, True)
