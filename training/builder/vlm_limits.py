"""How fast a server may be asked, and how much may be spent."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiling.errors import GeoAlignError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiling.progress import CancelToken

_MINUTE_S = 60.0


class CostLimitError(GeoAlignError):
    """The next request could cost more than what is left; what was answered is kept."""

    exit_code = 3


class Throttle:
    """Lets requests through so that no 60 seconds hold more of them, or of tokens, than allowed.

    Args:
        requests_per_minute: None sets no limit.
        tokens_per_minute: Prompt and completion together; None sets no limit.
        cancel: Ends every wait.
        clock: Seconds that never run backwards.
    """

    def __init__(
        self, requests_per_minute: int | None, tokens_per_minute: int | None, cancel: CancelToken,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._requests, self._tokens, self._cancel, self._clock = (
            requests_per_minute, tokens_per_minute, cancel, clock,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._past: deque[list[float]] = deque()  # time and tokens of each request of the last minute
        self._closed_until = 0.0

    def enter(self, tokens: int) -> list[float]:
        """Wait for a place; give a ticket for :meth:`correct`.

        Raises:
            CancelledError: The work was cancelled meanwhile.
        """
        while True:
            with self._lock:
                now = self._clock()
                delay = self._delay(now, tokens)
                if delay <= 0:
                    ticket = [now, float(tokens)]
                    self._past.append(ticket)
                    return ticket
            self.sleep(delay)

    def correct(self, ticket: list[float], tokens: int) -> None:
        """Replace the guess of a request's tokens by what the server counted."""
        with self._lock:
            ticket[1] = float(tokens)

    def close(self, seconds: float) -> None:
        """Let nobody through for a while: the server has asked one of us to wait."""
        with self._lock:
            self._closed_until = max(self._closed_until, self._clock() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than the work is wanted.

        Raises:
            CancelledError: The work was cancelled meanwhile.
        """
        end = self._clock() + seconds
        while (left := end - self._clock()) > 0:
            self._cancel.check()
            time.sleep(min(left, 0.1))
        self._cancel.check()

    def _delay(self, now: float, tokens: int) -> float:
        while self._past and self._past[0][0] <= now - _MINUTE_S:
            self._past.popleft()
        delay = self._closed_until - now
        if self._requests and len(self._past) >= self._requests:
            delay = max(delay, self._past[-self._requests][0] + _MINUTE_S - now)
        if self._tokens:
            # A request larger than the limit goes through alone.
            free = self._tokens - min(tokens, self._tokens) - sum(ticket[1] for ticket in self._past)
            for ticket in self._past:
                if free >= 0:
                    break
                free += ticket[1]
                delay = max(delay, ticket[0] + _MINUTE_S - now)
        return delay


@dataclass(frozen=True, slots=True)
class Prices:
    """What tokens cost, in one currency per million."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the price of a request."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class Purse:
    """Money that is spent, and money that is promised to requests under way.

    Args:
        limit: Most that may be spent; None sets no limit.
        spent: What earlier runs spent.
    """

    def __init__(self, limit: float | None, spent: float) -> None:
        self.limit, self.spent, self._promised = limit, spent, 0.0
        self._lock = threading.Lock()

    def promise(self, cost: float) -> None:
        """Set money aside for a request.

        Raises:
            CostLimitError: Spent and promised money and this would go beyond the limit.
        """
        with self._lock:
            if self.limit is not None and self.spent + self._promised + cost > self.limit:
                raise CostLimitError(
                    "the next request could go beyond the cost limit",
                    measured=f"{self.spent:.4f} of {self.limit:g} spent, {self._promised:.4f} in requests under way, "
                    f"up to {cost:.4f} for the next",
                    remedy="run the same command with a higher --max-cost to go on",
                )  # fmt: skip
            self._promised += cost

    def settle(self, promised: float, cost: float) -> None:
        """Replace a promise by what the request really cost."""
        with self._lock:
            self._promised -= promised
            self.spent += cost
