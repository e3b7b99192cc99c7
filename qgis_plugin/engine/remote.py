"""An engine at an address: the same messages over HTTP, with rasters sent there and results fetched."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from qgis.core import QgsNetworkAccessManager
from qgis.PyQt.QtCore import QFile, QIODevice, QObject, QTimer, pyqtSignal
from qgis.PyQt.QtNetwork import QNetworkReply

from ..words import tr
from .protocol import EngineError, LineReader, encode
from .web import FILES, Web, problem_of, safe_name, status_of, upload_key, upload_path, with_sidecars

NOT_SEEN = "raster"
"""The code of an engine that cannot or must not read the file named: then it is sent there."""


class HttpTransport(QObject):
    """Speaks to an engine over HTTP; has the signals and methods of `StdioTransport`."""

    message = pyqtSignal(object)
    oversized = pyqtSignal()
    closed = pyqtSignal(object)

    pid = 0

    def __init__(self, address: str, authcfg: str, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.web = Web(address, authcfg)
        self.garbage = 0
        self.uploaded: dict[str, str] = {}
        self._network = QgsNetworkAccessManager.instance()
        self._jobs: dict[int, _Job] = {}
        self._replies: set[QNetworkReply] = set()
        self._ending = False

    def open(self) -> None:
        """Ask the engine to introduce itself."""
        problem = self.web.sign_in_problem()
        if problem is not None:
            QTimer.singleShot(0, lambda: self.lose(problem))
            return
        reply = self.get("/v1/hello")
        reply.finished.connect(lambda: self._on_hello(reply))

    def send(self, id_: int, op: str, args: dict[str, Any]) -> None:
        """Send a request, and first the files it names when the engine cannot see them.

        Request ids of two QGIS may be the same, so a cancellation closes the connection: that hits the right job only.
        """
        if op == "cancel":
            target = self._jobs.get(args["target"])
            if target is not None:
                target.give_up()
            return
        job = _Job(self, id_, op, args)
        self._jobs[id_] = job
        job.start()

    def kill(self) -> None:
        """Close every connection; the engine cancels what belonged to them."""
        self._ending = True
        for reply in list(self._replies):
            reply.abort()
        self.deleteLater()

    leave = kill
    stop = kill

    def get(self, path: str) -> QNetworkReply:
        """Start a GET."""
        return self._track(self._network.get(self.web.request(path)))

    def head(self, path: str) -> QNetworkReply:
        """Start a HEAD."""
        return self._track(self._network.head(self.web.request(path)))

    def post(self, body: bytes) -> QNetworkReply:
        """Start a POST of one message."""
        return self._track(self._network.post(self.web.request("/v1/messages", "application/json"), body))

    def put(self, path: str, file: QFile) -> QNetworkReply:
        """Start sending a file."""
        return self._track(self._network.put(self.web.request(path, "application/octet-stream"), file))

    def deliver(self, message: dict[str, Any]) -> None:
        """Pass a message to the client."""
        if message["type"] in ("result", "error"):
            self._jobs.pop(message.get("id", 0), None)
        if not self._ending:
            self.message.emit(message)

    def lose(self, problem: EngineError) -> None:
        """The connection has broken."""
        if not self._ending:
            self.kill()
            self.closed.emit(problem)

    @property
    def ending(self) -> bool:
        """Whether nothing is wanted any more."""
        return self._ending

    def _track(self, reply: QNetworkReply) -> QNetworkReply:
        self._replies.add(reply)
        reply.finished.connect(lambda: self._replies.discard(reply))
        reply.finished.connect(reply.deleteLater)
        return reply

    def _on_hello(self, reply: QNetworkReply) -> None:
        reader = LineReader()
        found = reader.feed(bytes(reply.readAll()) + b"\n")
        self.garbage += reader.garbage
        if self._ending:
            return
        if status_of(reply) == 200 and found and found[0]["type"] == "hello":
            self.deliver(found[0])
        elif status_of(reply) == 200:
            text = tr("There is no engine of GeoAlign at this address.")
            self.lose(EngineError("unreachable", text, tr("Check the address in the engine settings.")))
        else:
            errors = [message for message in found if message["type"] == "error"]
            self.lose(problem_of(reply, self.web.address, errors[0] if errors else None))


class _Job(QObject):
    """One request over HTTP: send files, stream the answer, fetch the results."""

    def __init__(self, transport: HttpTransport, id_: int, op: str, args: dict[str, Any]) -> None:
        super().__init__(transport)
        self._transport, self._id, self._op, self._args = transport, id_, op, args
        self._sent_args = copy.deepcopy(args)
        self._reader = LineReader()
        self._waiting: list[dict[str, Any]] = []
        self._fetching = False
        self._over = False
        self._key = ""
        self._to_send: list[Path] = []
        self._main = Path()
        self._did_send = False
        self._reply: QNetworkReply | None = None
        self._file: QFile | None = None

    def start(self) -> None:
        """Ask with the path as it is: on one machine, or with shared folders, nothing needs to be sent."""
        path = self._local_file()
        if path is not None and str(path) in self._transport.uploaded:
            self._send_files()
        else:
            self._post()

    def give_up(self) -> None:
        """Close the connection, which cancels the request."""
        reply, self._reply = self._reply, None
        self._fail(EngineError("cancelled", tr("Stopped.")))
        if reply is not None:
            reply.abort()

    def _holder(self) -> tuple[dict[str, Any], str]:
        source = self._sent_args.get("source")
        return (source, "path") if isinstance(source, dict) else (self._sent_args, "heatmap")

    def _local_file(self) -> Path | None:
        holder, key = self._holder()
        path = Path(str(holder.get(key) or ""))
        return path if path.is_absolute() and path.is_file() else None

    def _send_files(self) -> None:
        path = self._local_file()
        if path is None or self._did_send:
            self._post()
            return
        self._did_send, self._main = True, path
        try:
            self._key, self._to_send = upload_key(path), with_sidecars(path)
        except OSError as error:
            self._fail(EngineError("raster", tr("{path} cannot be read: {reason}").format(path=path, reason=error)))
            return
        if self._transport.uploaded.get(str(path)) == self._key:
            self._use(upload_path(self._key, path.name))
        else:
            self._send_next()

    def _send_next(self) -> None:
        if not self._to_send:
            self._post()
            return
        target = upload_path(self._key, self._to_send[0].name)
        self._reply = reply = self._transport.head(target)
        reply.finished.connect(lambda: self._on_head(reply, target))

    def _on_head(self, reply: QNetworkReply, target: str) -> None:
        if self._over or self._transport.ending:
            return
        path = self._to_send[0]
        length = bytes(reply.rawHeader(b"Content-Length")).decode() or "-1"
        if status_of(reply) == 200 and length == str(path.stat().st_size):
            self._sent(path, target)
            return
        if status_of(reply) in (0, 401):
            self._on_refused(reply)
            return
        self._file = QFile(str(path), self)
        if not self._file.open(QIODevice.OpenModeFlag.ReadOnly):
            reason = self._file.errorString()
            self._fail(EngineError("raster", tr("{path} cannot be read: {reason}").format(path=path, reason=reason)))
            return
        self._reply = put = self._transport.put(target, self._file)
        put.uploadProgress.connect(lambda done, total: self._on_moved("uploading", done, total))
        put.finished.connect(lambda: self._on_put(put, path))

    def _on_moved(self, stage: str, done: int, total: int) -> None:
        if not self._over and total > 0:
            self._deliver({"type": "progress", "stage": stage, "done": done, "total": total, "eta_s": None})

    def _on_put(self, reply: QNetworkReply, path: Path) -> None:
        if self._file is not None:
            self._file.close()
        if self._over or self._transport.ending:
            return
        answer = _json_object(bytes(reply.readAll()))
        if status_of(reply) in (200, 201) and isinstance(answer.get("path"), str):
            self._sent(path, answer["path"])
        elif path != self._main and status_of(reply) in (400, 413):
            self._sent(path, "")  # the server takes no such file: the image may do without
        else:
            self._on_refused(reply, answer)

    def _on_refused(self, reply: QNetworkReply, answer: dict[str, Any] | None = None) -> None:
        problem = problem_of(reply, self._transport.web.address, answer if answer and "message" in answer else None)
        if status_of(reply) == 0:
            self._transport.lose(problem)
        else:
            self._fail(problem)

    def _sent(self, path: Path, there: str) -> None:
        self._to_send.remove(path)
        if path == self._main:
            self._transport.uploaded[str(path)] = self._key
            self._use(there)
        else:
            self._send_next()

    def _use(self, there: str) -> None:
        holder, key = self._holder()
        holder[key] = there
        self._post()

    def _post(self) -> None:
        self._reader = LineReader()
        self._reply = reply = self._transport.post(encode(self._id, self._op, self._sent_args))
        reply.readyRead.connect(lambda: self._read(reply))
        reply.finished.connect(lambda: self._on_answered(reply))

    def _read(self, reply: QNetworkReply) -> None:
        if reply is not self._reply or self._over:
            return
        before, garbage = self._reader.oversized, self._reader.garbage
        messages = self._reader.feed(bytes(reply.readAll()))
        self._transport.garbage += self._reader.garbage - garbage
        if self._reader.oversized > before:
            self._fail(EngineError("line_too_long", tr("The engine sent an answer that is too long.")))
            return
        for message in messages:
            if message.get("id") in (self._id, 0, None):
                self._waiting.append({**message, "id": self._id})
        self._pass_on()

    def _on_answered(self, reply: QNetworkReply) -> None:
        if reply is not self._reply or self._transport.ending:
            return
        self._read(reply)
        terminal = any(message["type"] in ("result", "error") for message in self._waiting)
        if not self._over and not terminal and self._reply is reply:
            problem = problem_of(reply, self._transport.web.address)
            if status_of(reply) in (200, 0):
                self._transport.lose(problem)
            else:
                self._fail(problem)

    def _pass_on(self) -> None:
        """Deliver the messages in their order; one with files waits until these are here."""
        while self._waiting and not self._fetching and not self._over:
            message = self._waiting[0]
            if message["type"] == "error" and message.get("code") == NOT_SEEN and self._may_send():
                self._waiting.clear()
                self._reply = None
                self._send_files()
                return
            names = _remote_files(message)
            if names:
                self._fetching = True
                self._fetch(message, names)
            else:
                self._deliver(self._waiting.pop(0))

    def _may_send(self) -> bool:
        return not self._did_send and self._local_file() is not None

    def _fetch(self, message: dict[str, Any], names: list[str]) -> None:
        files = message["result"]["files"]
        if not names:
            self._fetching = False
            self._deliver(self._waiting.pop(0))
            self._pass_on()
            return
        reply = self._transport.get(files[names[0]])
        target = Path(str(self._args.get("out") or ".")) / safe_name(unquote(files[names[0]]))
        part = QFile(f"{target}.part")

        def store() -> None:
            part.write(reply.readAll())

        def stored() -> None:
            store()
            whole = part.flush() and part.error() == QFile.FileError.NoError
            part.close()
            if self._over or self._transport.ending:
                part.remove()
            elif status_of(reply) != 200 or reply.error() != QNetworkReply.NetworkError.NoError:
                part.remove()
                self._fail(problem_of(reply, self._transport.web.address))
            elif not whole:
                part.remove()
                self._fail(EngineError("disk_full", tr("{path} cannot be written.").format(path=target)))
            elif self._put_in_place(part.fileName(), target):
                files[names[0]] = str(target)
                self._fetch(message, names[1:])

        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._fail(_not_written(target, str(error)))
            return
        if not part.open(QIODevice.OpenModeFlag.WriteOnly):
            self._fail(_not_written(target, part.errorString()))
            return
        reply.readyRead.connect(store)
        reply.downloadProgress.connect(lambda done, total: self._on_moved("downloading", done, total))
        reply.finished.connect(stored)

    def _put_in_place(self, part: str, target: Path) -> bool:
        try:
            os.replace(part, target)
        except OSError as error:
            QFile.remove(part)
            self._fail(_not_written(target, str(error)))
            return False
        return True

    def _deliver(self, message: dict[str, Any]) -> None:
        if self._over:
            return
        if message["type"] in ("result", "error"):
            self._over = True
            self.deleteLater()
        self._transport.deliver({**message, "id": self._id})

    def _fail(self, error: EngineError) -> None:
        self._deliver({
            "type": "error", "code": error.code, "message": error.message, "remedy": error.remedy,
            "details": error.details, "retryable": error.retryable,
        })  # fmt: skip


def _not_written(path: Path, reason: str) -> EngineError:
    return EngineError("output", tr("{path} cannot be written.").format(path=path), details=reason)


def _remote_files(message: dict[str, Any]) -> list[str]:
    result = message.get("result")
    files = result.get("files") if isinstance(result, dict) else None
    if not isinstance(files, dict):
        return []
    return [name for name, path in files.items() if isinstance(path, str) and path.startswith(FILES)]


def _json_object(body: bytes) -> dict[str, Any]:
    found = LineReader().feed(b'{"type":"answer","body":' + (body.strip().replace(b"\n", b" ") or b"{}") + b"}\n")
    answer = found[0].get("body") if found else None
    return answer if isinstance(answer, dict) else {}
