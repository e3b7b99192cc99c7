"""Makes an environment for the engine, in its own folder, with its own packages; QGIS's Python is not touched."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

from qgis.core import QgsNetworkAccessManager
from qgis.PyQt.QtCore import QLockFile, QObject, QProcess, QTimer, QUrl, pyqtSignal
from qgis.PyQt.QtNetwork import QNetworkReply, QNetworkRequest

from ..words import tr
from .command import ENGINE_VERSION, READY, managed_folder
from .log import ESCAPES, LogFile
from .network import certificate_environment, proxy_environment
from .process import prepare
from .protocol import EngineError, LineReader, speaks
from .pythons import PROBE, candidates, fits
from .redact import hide_sign_ins
from .steps import CPU_INDEX, InstallPlan, Stamps, Step, command_of, free_mb, plan_install
from .trouble import classify

__all__ = ["InstallPlan", "Installer", "managed_folder", "plan_install"]

QUIET = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
FULL_MB = 8
"""Less free than this means a full disk, whatever the tools say: venv does not print what its own child said."""
INDEX_MS = 10_000
KEPT_OUTPUT = 200_000
BIG_FILE = 20_000_000
"""Only downloads from this size on move the progress bar."""
RAW_PROGRESS = re.compile(r"^Progress (\d+) of (\d+)$")


class Installer(QObject):
    """Runs an `InstallPlan` step by step without blocking; a second start goes on where the first one ended.

    Signals:
        stage: The title of the step that begins.
        progress: The part done, 0 to 1.
        line: What the tools print, line by line.
        done: The engine is installed and answers.
        failed: `EngineError`; the code is "cancelled" after `cancel`.
    """

    stage = pyqtSignal(str)
    progress = pyqtSignal(float)
    line = pyqtSignal(str)
    done = pyqtSignal()
    failed = pyqtSignal(object)

    def __init__(self, plan: InstallPlan, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.plan = plan
        self.running = False
        self.log = LogFile(plan.folder.with_name(plan.folder.name + ".log"))
        self._lock = QLockFile(str(plan.folder.with_name(plan.folder.name + ".lock")))
        self._lock.setStaleLockTime(0)  # a lock ends with its process, however long that takes
        self._process: QProcess | None = None
        self._reply: QNetworkReply | None = None
        self._stamps: Stamps | None = None
        self._left: list[Step] = []
        self._pythons: list[list[str]] = []
        self._base: list[str] = []
        self._environment: dict[str, str] = {}
        self._cpu_index: bool | None = None
        self._cancelled = False
        self._fraction = self._passed = 0.0
        self._output = self._rest = ""

    def start(self) -> None:
        """Begin, or go on after an interruption."""
        if not self.running:
            self.running, self._cancelled = True, False
            QTimer.singleShot(0, self._begin)

    def cancel(self) -> None:
        """Stop; what is done is kept for the next start."""
        self._cancelled = True
        if self._reply is not None:
            self._reply.abort()
        if self._process is not None:
            self._process.closeWriteChannel()
            self._process.kill()

    def _begin(self) -> None:
        plan = self.plan
        try:
            plan.folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._fail(classify(tr("Making the environment"), str(error)))
            return
        if not self._lock.tryLock(0):
            if self._lock.error() == QLockFile.LockError.LockFailedError:
                text, remedy = tr("Another QGIS is installing the engine."), tr("Wait until it is done.")
                self._fail(EngineError("install_running", text, remedy, retryable=True))
            else:
                self._fail(classify("", f"Permission denied: {plan.folder.parent}"))
            return
        self._stamps = Stamps(plan)
        free = free_mb(plan.folder)
        if free < plan.disk_mb and not self._stamps.done:
            text = tr("The installation needs {needed} MB, {free} MB are free.").format(needed=plan.disk_mb, free=free)
            self._fail(EngineError("disk_full", text, tr("Free some space."), retryable=True))
            return
        self._say(time.strftime("%Y-%m-%d %H:%M:%S ") + f"GeoAlign {ENGINE_VERSION} -> {plan.folder}")
        try:
            certificates = certificate_environment(plan.folder.parent)
            self._environment = {**QUIET, **proxy_environment(), **certificates}
            self._stamps.write()
            if not self._stamps.done:
                (plan.folder / READY).unlink(missing_ok=True)
        except OSError as error:
            self._fail(classify("", str(error)))
            return
        self._left = [step for step in plan.steps if step.key not in self._stamps.done]
        self._fraction = sum(step.share for step in plan.steps if step.key in self._stamps.done)
        named = [[plan.python]] if Path(plan.python).is_file() else []
        self._pythons = named + [command for command in candidates() if command not in named]
        self._next()

    def _next(self) -> None:
        self.progress.emit(min(1.0, self._fraction))
        if self._cancelled:
            self._fail(EngineError("cancelled", tr("Stopped."), retryable=True))
        elif not self._left:
            self._complete()
        else:
            step = self._left[0]
            self.stage.emit(step.title)
            if step.key == "torch" and self._wants_cpu_index() and self._cpu_index is None:
                self._ask_index()
            elif step.key == "probe":
                self._probe()
            else:
                self._run(command_of(step.key, self.plan, self._base, bool(self._cpu_index)))

    def _wants_cpu_index(self) -> bool:
        return not self.plan.cuda and not self.plan.wheels and sys.platform.startswith("linux")

    def _ask_index(self) -> None:
        self._reply = QgsNetworkAccessManager.instance().head(QNetworkRequest(QUrl(CPU_INDEX + "/")))
        self._reply.finished.connect(self._on_index)
        QTimer.singleShot(INDEX_MS, self._reply.abort)

    def _on_index(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            self._cpu_index = reply.error() == QNetworkReply.NetworkError.NoError
            reply.deleteLater()
            self._say(f"{CPU_INDEX}: {'answers' if self._cpu_index else reply.errorString()}")
        self._next()

    def _probe(self) -> None:
        if not self._pythons:
            text = tr("No Python 3.11 or newer was found on this computer.")
            self._fail(EngineError("no_python", text, tr("Install Python 3.12 from python.org, then install again.")))
            return
        self._run([*self._pythons[0], "-c", PROBE])

    def _run(self, command: list[str]) -> None:
        self._output = self._rest = ""
        self._passed = 0.0
        process = QProcess(self)
        try:
            prepare(process, command[0], command[1:], self._environment)
        except OSError as error:
            self._fail(classify(self._left[0].title, str(error)))
            return
        process.setProcessChannelMode(QProcess.ProcessChannelMode.MergedChannels)
        process.readyReadStandardOutput.connect(self._read)
        process.errorOccurred.connect(self._on_error)
        process.finished.connect(self._on_finished)
        self._process = process
        process.start()
        if self._left[0].key == "hello":
            process.closeWriteChannel()

    def _read(self) -> None:
        if self._process is None:
            return
        text = bytes(self._process.readAllStandardOutput()).decode("utf-8", "replace")
        self._output = (self._output + text)[-KEPT_OUTPUT:]
        *lines, self._rest = (self._rest + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines:
            raw = RAW_PROGRESS.match(line)
            if raw:
                self._on_download(int(raw[1]), int(raw[2]))
            elif line.strip():
                self._say(line)

    def _on_download(self, done: int, total: int) -> None:
        if total >= BIG_FILE:
            self._passed = max(self._passed, 0.8 * done / total)
            self.progress.emit(min(1.0, self._fraction + self._left[0].share * self._passed))

    def _say(self, line: str) -> None:
        line = hide_sign_ins(ESCAPES.sub("", line.rstrip()))[:2000]
        self.log.write(line.encode("utf-8", "replace") + b"\n")
        self.line.emit(line)

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart and self._process is not None:
            self._say(self._process.errorString())
            self._output += self._process.errorString()
            self._ended(False)

    def _on_finished(self, code: int, status: QProcess.ExitStatus) -> None:
        self._read()
        if self._rest.strip():
            self._say(self._rest)
        self._ended(code == 0 and status == QProcess.ExitStatus.NormalExit)

    def _ended(self, good: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.deleteLater()
        step = self._left[0]
        if self._cancelled:
            self._next()
        elif step.key == "probe":
            self._after_probe(good and fits(self._output))
        elif not good:
            self._start_over(step)
            full = "\nNo space left on device" if free_mb(self.plan.folder) < FULL_MB else ""
            self._fail(classify(step.title, self._output + full))
        elif step.key == "hello" and not _greets(self._output):
            text = tr("The engine is installed but does not speak this plugin's protocol.")
            self._fail(EngineError("wrong_version", text, tr("Update the plugin."), self._output[-2000:]))
        else:
            self._pass_step()

    def _start_over(self, step: Step) -> None:
        """An environment whose packages do not work is made anew the next time."""
        if self._stamps is not None and step.key in ("verify", "hello"):
            self._stamps.done = []
            try:
                self._stamps.write()
            except OSError as error:
                self._say(str(error))

    def _after_probe(self, fitting: bool) -> None:
        python = self._pythons.pop(0)
        if not fitting:
            self._next()
            return
        self._base = python
        self._fraction += self._left.pop(0).share
        self._next()

    def _pass_step(self) -> None:
        step = self._left.pop(0)
        self._fraction += step.share
        try:
            if self._stamps is not None and step.key not in ("verify", "hello"):
                self._stamps.add(step.key)
        except OSError as error:
            self._fail(classify(step.title, str(error)))
            return
        self._next()

    def _complete(self) -> None:
        facts = {"version": ENGINE_VERSION, "cuda": self.plan.cuda, "made": time.strftime("%Y-%m-%d")}
        try:
            (self.plan.folder / READY).write_text(json.dumps(facts), encoding="utf-8")
            if self._stamps is not None:
                self._stamps.clear()
        except OSError as error:
            self._fail(classify("", str(error)))
            return
        self._end()
        self.progress.emit(1.0)
        self.done.emit()

    def _fail(self, error: EngineError) -> None:
        self._say(f"{error.code}: {error.message}")
        self._end()
        self.failed.emit(error)

    def _end(self) -> None:
        self.running = False
        self._lock.unlock()


def _greets(output: str) -> bool:
    messages = LineReader().feed(output.encode("utf-8") + b"\n")
    return any(message["type"] == "hello" and speaks(message.get("protocol")) for message in messages)
