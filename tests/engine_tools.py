"""The engine as a real process, spoken to in lines."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
ENDS = ("result", "error")


class EngineProcess:
    """``geoalign engine --stdio``; every message is kept with the time of its arrival."""

    def __init__(self, *options, wait=True, cwd=REPO, **environment):
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "geoalign_core", "engine", "--stdio", *map(str, options)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, env={**os.environ, **environment},
        )  # fmt: skip
        self.lines = queue.Queue()
        self.stderr = b""
        self.last = 0
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._drain)]
        for thread in self._threads:
            thread.start()
        self.hello = self.next(20)[1] if wait else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(5)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()

    def _read(self):
        for line in self.process.stdout:
            assert len(line) <= 2**20
            self.lines.put((time.monotonic(), json.loads(line)))
        self.lines.put((time.monotonic(), None))

    def _drain(self):
        self.stderr = self.process.stderr.read()

    def raw(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, op, **args):
        self.last += 1
        self.raw(json.dumps({"v": 1, "id": self.last, "op": op, "args": args}).encode() + b"\n")
        return self.last

    def next(self, timeout=30):
        return self.lines.get(timeout=timeout)

    def until(self, number, kinds=ENDS, timeout=60):
        """Return all messages of a request up to the first of some kinds, as (time, message)."""
        found = []
        while True:
            at, message = self.next(timeout)
            assert message is not None, self.stderr
            if message["id"] == number:
                found.append((at, message))
                if message["type"] in kinds:
                    return found

    def call(self, op, **args):
        """Return the last message of a request."""
        return self.until(self.send(op, **args))[-1][1]

    def result(self, op, **args):
        message = self.call(op, **args)
        assert message["type"] == "result", message
        return message["result"]

    def failure(self, op, **args):
        message = self.call(op, **args)
        assert message["type"] == "error", message
        return message

    def close_input(self):
        """Close the input and return how long the process took to end, and its exit code."""
        begun = time.monotonic()
        self.process.stdin.close()
        code = self.process.wait(20)
        return time.monotonic() - begun, code


def square(x, y, side):
    return {"type": "Polygon", "coordinates": [[[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]]}
