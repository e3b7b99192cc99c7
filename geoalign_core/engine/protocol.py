"""Version 1 of the protocol: one JSON object per line, checked before anything acts on it.

This module loads nothing but the standard library, so that the first line leaves within a blink.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOCOL = 1
LINE_BYTES = 2**20
"""Longest line in either direction."""
MAX_ID = 2**53 - 1
DETAIL_CHARS = 16_000
INSTANT = ("ping", "cancel", "shutdown")
"""Operations that are answered at once, whatever runs."""
JOBS = ("status", "warm", "describe", "index", "ask", "landcover", "regions", "tile")
"""Operations that run one after another."""
_OP = re.compile(r"[a-z_]{1,32}")


class Failure(Exception):  # noqa: N818 - it becomes an answer, and "error" is that answer's type
    """What ends a request: the ``error`` message of the protocol.

    Args:
        code: One of the protocol's codes.
        message: One sentence that says what is wrong.
        remedy: What to do, or nothing.
        details: For a report, any number of lines.
        retryable: Whether the same request may succeed later.
        request_id: Which request, when the line named one.
    """

    def __init__(
        self, code: str, message: str, *, remedy: str = "", details: str = "", retryable: bool = False,
        request_id: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.code, self.message, self.remedy = code, message, remedy
        self.details, self.retryable, self.request_id = details, retryable, request_id

    def fields(self) -> dict[str, Any]:
        """Return what the message carries besides version, id and type."""
        return {
            "code": self.code, "message": self.message, "remedy": self.remedy,
            "details": self.details[-DETAIL_CHARS:], "retryable": self.retryable,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """One line of a client."""

    id: int
    op: str
    args: dict[str, Any]


def encode(request_id: int, kind: str, fields: dict[str, Any]) -> bytes:
    """Return one line of the engine.

    Raises:
        Failure: It would be longer than :data:`LINE_BYTES`.
    """
    head = {"v": PROTOCOL, "id": request_id, "type": kind}
    line = json.dumps({**head, **fields}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = line.encode("utf-8", errors="replace") + b"\n"
    if len(data) > LINE_BYTES:
        raise Failure("internal", f"the answer is longer than a line may be ({len(data)} bytes)")
    return data


def parse(line: bytes) -> Request:
    """Read one line of a client.

    Raises:
        Failure: ``bad_json``, ``wrong_version``, ``bad_request`` or ``unknown_op``.
    """
    try:
        data = json.loads(line.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise Failure("bad_json", f"a line is not JSON: {reason}", remedy="send one JSON object per line") from error
    if not isinstance(data, dict):
        raise Failure("bad_request", "a request is a JSON object", remedy='send {"v":1,"id":1,"op":"ping","args":{}}')
    number = data.get("id")
    if not _is_whole(number) or not 1 <= number <= MAX_ID:
        raise Failure("bad_request", f"an id is a whole number from 1 to {MAX_ID}", remedy="count requests from 1")
    if not _is_whole(data.get("v")) or data["v"] != PROTOCOL:
        raise Failure(
            "wrong_version", f"this engine speaks version {PROTOCOL} of the protocol",
            remedy="install an engine and a plugin of the same version", request_id=number,
        )  # fmt: skip
    op, args = data.get("op"), data.get("args", {})
    if not isinstance(op, str) or not isinstance(args, dict):
        raise Failure("bad_request", "op is a text and args an object", request_id=number)
    if op not in (*INSTANT, *JOBS):
        shown = op if _OP.fullmatch(op) else "that"
        known = ", ".join((*INSTANT, *JOBS))
        raise Failure("unknown_op", f"no operation is called {shown}", remedy=f"use {known}", request_id=number)
    return Request(number, op, args)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


class LineSplitter:
    """Cuts a stream into lines, and gives up on a line that is too long without keeping it."""

    def __init__(self, limit: int = LINE_BYTES) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """Yield the lines that ``data`` completes, without their ends; None stands for one that was too long."""
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._add(end)
            line = None if self._skipping else b"".join(self._parts)
            self._parts, self._size, self._skipping = [], 0, False
            if line is None or line.strip():
                yield line
        self._add(rest)

    def _add(self, part: bytes) -> None:
        if self._skipping or not part:
            return
        self._size += len(part)
        if self._size >= self._limit:
            self._parts, self._skipping = [], True
        else:
            self._parts.append(part)
