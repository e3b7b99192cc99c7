"""A vision-language model behind any OpenAI-compatible endpoint (vLLM, llama.cpp, a paid service).

``POST …/v1/chat/completions`` with the picture as a data URI and the answer as one JSON object. Nothing is sent until
a user names an endpoint; the key goes into one header and nowhere else.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import io
import json
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from tiling.errors import GeoAlignError, UsageError
from training.builder.vlm_limits import Prices, Purse, Throttle

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx
    from numpy.typing import NDArray

    from tiling.progress import CancelToken
    from training.builder.vlm_cache import AnswerCache

KEY_VARIABLE = "GEOALIGN_VLM_KEY"
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_BAD_REQUEST = frozenset({400, 413, 415, 422})
_LONGEST_WAIT_S = 600.0
_PIXELS_PER_TOKEN = 28 * 28  # Qwen-VL: one token per 28 × 28 px; only a first guess, the server's count corrects it


class EndpointError(GeoAlignError):
    """The server cannot be asked: wrong address, wrong key, or out of order for too long."""


class AnswerError(GeoAlignError):
    """The server answered, and the answer is of no use; it concerns one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Which model is asked, and how."""

    url: str
    """Base address, such as ``http://localhost:8000/v1``."""
    model: str
    key: str | None = field(default=None, repr=False)
    temperature: float = 0.2
    max_tokens: int = 1500
    """Of a reply."""
    seed: int = 0
    image_px: int = 1024
    """Longest side of the picture that is sent."""
    json_mode: str = "schema"
    """How JSON is asked for: ``schema`` and ``object`` are ``response_format``; ``none`` trusts the prompt."""
    timeout_s: float = 120.0
    retries: int = 6
    """After the first try, for a busy or failing server."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    prices: Prices = field(default_factory=Prices)
    max_cost: float | None = None

    def address(self) -> str:
        """Return the address that is asked.

        Raises:
            UsageError: It is not an http(s) address, or carries a password.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError("is not an http address", path=self.url, remedy="give --endpoint http://HOST:PORT/v1")
        if parts.username or parts.password:
            raise UsageError("the endpoint carries a password", remedy=f"put the key into {KEY_VARIABLE} instead")
        base = self.url.rstrip("/")
        if base.endswith("/chat/completions"):
            return base
        return f"{base}{'' if parts.path.strip('/') else '/v1'}/chat/completions"

    def is_exposed(self) -> bool:
        """Whether requests go unencrypted to another machine."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        return parts.scheme == "http" and not (host in {"localhost", "::1"} or host.startswith("127."))

    def parameters(self) -> dict[str, Any]:
        """Return what decides an answer, beside prompt and picture."""
        return {
            "model": self.model, "temperature": self.temperature, "max_tokens": self.max_tokens, "seed": self.seed,
            "image_px": self.image_px, "json_mode": self.json_mode,
        }  # fmt: skip


class Client:
    """Asks a model; may be used by many threads.

    Args:
        endpoint: Which model, and the limits.
        cache: Keeps answers and counts the money.
        repair: What is said after a reply that is not JSON; ``$problem`` has been put in by :meth:`ask`.
        cancel: Ends every wait.
    """

    def __init__(self, endpoint: Endpoint, cache: AnswerCache, *, repair: str, cancel: CancelToken) -> None:
        import httpx

        self.endpoint, self.cache = endpoint, cache
        self._address, self._repair, self._cancel = endpoint.address(), repair, cancel
        headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        self._http = httpx.Client(timeout=httpx.Timeout(endpoint.timeout_s, connect=20.0), headers=headers)
        self._throttle = Throttle(endpoint.requests_per_minute, endpoint.tokens_per_minute, cancel)
        self._purse = Purse(endpoint.max_cost, cache.totals()[3])
        self._most_prompt_tokens = 0
        self._answered = False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, prompt: str, image: NDArray[np.uint8], schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model's answer to a prompt about a picture (H, W, 3), from the cache if it was asked before.

        Raises:
            AnswerError: Two replies were no JSON object of this schema, or the server refuses this request.
            EndpointError: The server cannot be asked.
            CostLimitError: There is not enough money left.
            CancelledError: Stopped.
        """
        shape = f"{image.shape}:".encode()
        digest = hashlib.sha256(shape + np.ascontiguousarray(image).tobytes()).hexdigest()
        key = self.cache.key({**self.endpoint.parameters(), "prompt": prompt, "schema": schema}, digest)
        if (kept := self.cache.get(key)) is not None:
            return kept
        uri, pixels = data_uri(image, self.endpoint.image_px)
        content = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": prompt}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        guess = len(prompt) // 3 + pixels // _PIXELS_PER_TOKEN + 200
        reply = self._chat(messages, schema, guess)
        try:
            answer = parse_answer(reply, schema)
        except ValueError as problem:
            messages += [
                {"role": "assistant", "content": reply or "(nothing)"},
                {"role": "user", "content": self._repair.replace("$problem", str(problem))},
            ]
            try:
                answer = parse_answer(self._chat(messages, schema, guess + len(reply) // 3), schema)
            except ValueError as again:
                raise AnswerError("the model gave no usable JSON", measured=str(again)) from again
        self.cache.put(key, answer)
        return answer

    def _chat(self, messages: list[dict[str, Any]], schema: Mapping[str, Any], guess: int) -> str:
        """Send messages and return the reply's text; pay for it."""
        options, body = self.endpoint, self._body(messages, schema)
        prompt_tokens = max(guess, self._most_prompt_tokens)
        promised = options.prices.of(prompt_tokens, options.max_tokens)
        self._purse.promise(promised)
        cost = 0.0
        try:
            item = self._post(body, prompt_tokens + options.max_tokens)
            text, used = read_reply(item)
            if used is None:  # a server that does not count
                used = prompt_tokens, len(text) // 3
            cost = options.prices.of(*used)
            self._most_prompt_tokens = max(self._most_prompt_tokens, used[0])
            self.cache.pay(*used, cost)
        finally:
            self._purse.settle(promised, cost)
        self._answered = True
        return text

    def _body(self, messages: list[dict[str, Any]], schema: Mapping[str, Any]) -> bytes:
        options = self.endpoint
        body: dict[str, Any] = {
            "model": options.model, "messages": messages, "temperature": options.temperature,
            "max_tokens": options.max_tokens, "seed": options.seed,
        }  # fmt: skip
        if options.json_mode == "schema":
            form = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        elif options.json_mode == "object":
            body["response_format"] = {"type": "json_object"}
        return json.dumps(body).encode()

    def _post(self, body: bytes, tokens: int) -> dict[str, Any]:
        """Send a request until it is answered; back off while the server is busy."""
        reason = ""
        for attempt in range(self.endpoint.retries + 1):
            ticket = self._throttle.enter(tokens)
            found, delay = self._try(body)
            if isinstance(found, dict):
                if (used := usage_of(found)) is not None:
                    self._throttle.correct(ticket, sum(used))
                return found
            reason = found
            if attempt == self.endpoint.retries:
                break
            if delay is None:
                # Random parts keep many threads from coming back at the same moment.
                self._throttle.sleep(min(60.0, 0.5 * 2**attempt) * random.uniform(0.5, 1.0))
            elif delay <= _LONGEST_WAIT_S:
                self._throttle.close(delay)
            else:
                reason += f", wait {delay:.0f} s"
                break
        raise EndpointError(
            "does not answer", path=self._address, measured=reason,
            remedy="see that the server runs, and run the same command again to go on",
        )  # fmt: skip

    def _try(self, body: bytes) -> tuple[dict[str, Any] | str, float | None]:
        """Send a request once: the reply, or why there is none and the seconds that the server asks to wait.

        Raises:
            EndpointError: Asking again would not help.
            AnswerError: Nor would it help here, but other requests were answered.
        """
        import httpx

        try:
            response = self._http.post(self._address, content=body, headers={"Content-Type": "application/json"})
        except httpx.HTTPError as error:
            return f"{type(error).__name__}: {self._clean(str(error))}", None
        if response.status_code != 200:
            reason = f"{response.status_code} {self._clean(response.text)}".strip()
            if response.status_code not in _AGAIN:
                raise self._refusal(response.status_code, reason)
            return reason, retry_after(response)
        try:
            item = response.json()
        except ValueError:
            return "200, but not JSON", None
        return (item, None) if isinstance(item, dict) else ("200, but no JSON object", None)

    def _refusal(self, status: int, reason: str) -> GeoAlignError:
        if status in {401, 403}:
            remedy = f"put the right key into {KEY_VARIABLE}"
        elif status in _BAD_REQUEST and self._answered:
            return AnswerError("the server refuses this request", measured=reason)
        elif status in _BAD_REQUEST:
            remedy = "check --model; an older server may need --json-mode object or none"
        else:
            remedy = "check --endpoint and --model"
        return EndpointError("refuses the request", path=self._address, measured=reason, remedy=remedy)

    def _clean(self, text: str) -> str:
        """Shorten what a server says to one line, without the key, should it repeat it."""
        if self.endpoint.key:
            text = text.replace(self.endpoint.key, "[key]")
        return " ".join(text.split())[:200]


def data_uri(image: NDArray[np.uint8], longest_px: int) -> tuple[str, int]:
    """Return a picture (H, W, 3), its longer side at most ``longest_px``, as a JPEG data URI, and its pixel count."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    payload = io.BytesIO()
    picture.save(payload, "JPEG", quality=92)
    return f"data:image/jpeg;base64,{base64.b64encode(payload.getvalue()).decode()}", picture.width * picture.height


def retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that a server asks to wait, given as a number or as a date (RFC 9110 §10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def usage_of(item: object) -> tuple[int, int] | None:
    """Return prompt and completion tokens as the server counted them, or None."""
    try:
        usage = item["usage"]  # type: ignore[index]
        return int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    except (KeyError, TypeError, ValueError):
        return None


def read_reply(item: Mapping[str, Any]) -> tuple[str, tuple[int, int] | None]:
    """Return the text of a chat completion (empty if there is none) and its usage."""
    try:
        content = item["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        content = None
    return content if isinstance(content, str) else "", usage_of(item)


def parse_answer(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Read a JSON object out of a reply, with or without a fence or thoughts before it.

    Raises:
        ValueError: There is none, it is cut short, or it does not fit the schema.
    """
    import jsonschema

    text = text.rpartition("</think>")[2]
    start, end = text.find("{"), text.rfind("}")
    if start < 0:
        raise ValueError("there is no JSON object")
    if end < start:
        raise ValueError("the JSON is cut short")
    try:
        item = json.loads(text[start : end + 1])
    except ValueError as error:
        raise ValueError(f"the JSON cannot be read: {error}") from error
    try:
        jsonschema.validate(item, schema)
    except jsonschema.ValidationError as error:
        raise ValueError(f"it does not fit: {error.message[:120]}") from error
    return item
