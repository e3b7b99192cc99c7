"""The lines that go to the engine and come back: one JSON object each, protocol version 1. No Qt in here."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

PROTOCOL = 1
LINE_BYTES = 1 << 20
"""The longest line either side may send."""


@dataclass(frozen=True)
class EngineError:
    """What went wrong, in one sentence, and what to do about it."""

    code: str
    message: str
    remedy: str = ""
    details: str = ""
    retryable: bool = False

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> EngineError:
        """The error that an engine reports; missing fields do no harm."""
        return cls(
            code=str(message.get("code") or "internal"),
            message=str(message.get("message") or "The engine reported an error without a text."),
            remedy=str(message.get("remedy") or ""),
            details=str(message.get("details") or ""),
            retryable=bool(message.get("retryable")),
        )


class EngineFailure(Exception):  # noqa: N818 - the error is what it carries
    """Raises an `EngineError`."""

    def __init__(self, error: EngineError) -> None:
        super().__init__(f"{error.message} {error.remedy}".strip())
        self.error = error


@dataclass(frozen=True)
class Progress:
    """How far a request has come."""

    stage: str = ""
    done: float = 0
    total: float = 0
    eta_s: float | None = None

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Progress:
        """The progress that an engine reports; a field of the wrong type counts as not known."""
        eta = message.get("eta_s")
        return cls(
            stage=str(message.get("stage") or ""),
            done=_number(message.get("done")),
            total=_number(message.get("total")),
            eta_s=_number(eta) if isinstance(eta, (int, float)) else None,
        )

    @property
    def fraction(self) -> float | None:
        """Done part between 0 and 1, or None when the total is not known."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total > 0 else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0


def speaks(versions: object) -> bool:
    """Whether an engine of these versions, lowest and highest, speaks ours."""
    if not isinstance(versions, list) or len(versions) != 2 or not all(isinstance(one, int) for one in versions):
        return False
    return bool(versions[0] <= PROTOCOL <= versions[1])


def encode(id_: int, op: str, args: dict[str, Any]) -> bytes:
    """One request as a line.

    Raises:
        ValueError: The line is longer than the protocol allows, or the arguments are no JSON.
    """
    try:
        text = json.dumps({"v": PROTOCOL, "id": id_, "op": op, "args": args}, ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise ValueError(str(error)) from error
    line = text.encode("utf-8", "replace") + b"\n"
    if len(line) > LINE_BYTES:
        raise ValueError(f"the request has {len(line)} bytes, {LINE_BYTES} are allowed")
    return line


class LineReader:
    """Turns a byte stream into messages; whatever is no message is counted and skipped.

    A line over the limit is thrown away as it arrives, so a runaway engine cannot fill QGIS's memory.

    Attributes:
        garbage: Lines that were no message.
        oversized: Lines over the limit.
    """

    def __init__(self, limit: int = LINE_BYTES) -> None:
        self.garbage = 0
        self.oversized = 0
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping = False

    @property
    def mid_line(self) -> bool:
        """Whether the stream stands inside an unfinished line."""
        return self._skipping or self._size > 0

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that are complete with these bytes."""
        messages = []
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._take(piece)
            message = self._finish()
            if message is not None:
                messages.append(message)
        self._take(rest)
        return messages

    def _take(self, piece: bytes) -> None:
        if self._skipping or not piece:
            return
        self._size += len(piece)
        if self._size > self._limit:
            self._skipping = True
            self._parts = []
            self.oversized += 1
        else:
            self._parts.append(piece)

    def _finish(self) -> dict[str, Any] | None:
        line, skipped = b"".join(self._parts).strip(), self._skipping
        self._parts, self._size, self._skipping = [], 0, False
        if skipped or not line:
            return None
        try:
            message = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            message = None
        if isinstance(message, dict) and isinstance(message.get("type"), str):
            return message
        self.garbage += 1
        return None
