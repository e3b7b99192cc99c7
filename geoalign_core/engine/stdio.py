"""The engine on standard input and output."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from geoalign_core.engine.protocol import LINE_BYTES, Failure, LineSplitter, encode, parse
from geoalign_core.engine.server import Engine

if TYPE_CHECKING:
    from geoalign_core.engine.memory import Watch

_CHUNK = 1 << 16
_GRACE_S = 1.0
"""How long a stopped job may take to unwind."""
_LAST_WORDS_S = 0.4
"""How long the client may take to read what was said last."""
_END_S = 1.8
"""After so long the process ends, whatever still hangs."""
_UNREAD_BYTES = 2**26
"""A client that lets so much wait unread has gone."""


class _Wire:
    """The protocol's own pair of descriptors.

    Descriptor 1 itself is pointed at stderr, so that no library, in whatever language, can write into the protocol;
    descriptor 0 reads nothing any more, so that none can eat from it.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        self._in, self._out = os.dup(0), os.dup(1)
        os.dup2(2, 1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        if os.name == "nt":
            import msvcrt

            for descriptor in (self._in, self._out):
                msvcrt.setmode(descriptor, os.O_BINARY)  # type: ignore[attr-defined,unused-ignore]
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._unread = 0
        self._lock = threading.Lock()
        self._writer = threading.Thread(target=self._write, name="geoalign-writer", daemon=True)
        self._writer.start()

    def read(self) -> bytes:
        return os.read(self._in, _CHUNK)

    def send(self, request_id: int, kind: str, fields: dict[str, Any]) -> None:
        """Put a line in the queue. Nobody waits for a client that does not read: not the jobs, not the reader."""
        line = encode(request_id, kind, fields)
        with self._lock:
            if not self._writer.is_alive() or self._unread > _UNREAD_BYTES:
                raise BrokenPipeError
            self._unread += len(line)
            self._lines.put(line)

    def finish(self, timeout_s: float) -> None:
        """Wait until everything is written, but not for long."""
        self._lines.put(None)
        self._writer.join(timeout_s)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            data = memoryview(line)
            try:
                while data:
                    data = data[os.write(self._out, data) :]
            except OSError:
                return  # the client has gone
            with self._lock:
                self._unread -= len(line)


def serve(*, max_windows: int, memory: Watch | None) -> None:
    """Speak the protocol until the input ends, ``shutdown`` is asked for, or the process is asked to end.

    The process ends here, whatever threads of libraries still run: a map program that closes must not leave an
    engine behind.
    """
    from geoalign_core.engine.places import SamePlaces

    wire = _Wire()
    engine = Engine(max_windows=max_windows, places=SamePlaces(), memory=memory)
    asked_to_end: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # An exception in the middle of whatever runs could leave a lock behind; a note does not.
        signal.signal(number, lambda received, _: asked_to_end.append(received))
    try:
        wire.send(0, "hello", engine.hello())
        engine.start()
        # Reading has a thread of its own: a shutdown must not wait for another line.
        threading.Thread(target=_read, args=(wire, engine), name="geoalign-reader", daemon=True).start()
        while not asked_to_end and not engine.stopping.wait(0.1):
            pass
    except OSError:
        pass  # the client has gone before it was greeted
    end_within(_END_S)
    engine.stop(_GRACE_S)
    wire.finish(_LAST_WORDS_S)
    sys.stderr.flush()
    os._exit(0)


def end_within(seconds: float) -> None:
    """End the process after so long at the latest, from a thread that waits for nothing else."""
    watchdog = threading.Timer(seconds, os._exit, (0,))
    watchdog.daemon = True
    watchdog.start()


def _read(wire: _Wire, engine: Engine) -> None:
    splitter = LineSplitter()
    try:
        while data := wire.read():
            for line in splitter.feed(data):
                _take(line, wire, engine)
    except OSError:
        pass  # the client has gone
    engine.stopping.set()


def _take(line: bytes | None, wire: _Wire, engine: Engine) -> None:
    try:
        if line is None:
            raise Failure(
                "line_too_long", f"a line is longer than {LINE_BYTES} bytes", remedy="pass large things by path"
            )
        request = parse(line)
    except Failure as failure:
        wire.send(failure.request_id, "error", failure.fields())
        return
    engine.submit(request, wire.send)
