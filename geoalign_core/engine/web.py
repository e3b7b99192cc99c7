"""The addresses of the HTTP engine. Needs the optional packages of ``geoalign[http]``."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import re
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from geoalign_core.engine.protocol import LINE_BYTES, Failure, encode, parse
from geoalign_core.engine.storage import PREFIX

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from geoalign_core.engine.server import Engine
    from geoalign_core.engine.storage import Storage

_CLIENT = re.compile(r"[A-Za-z0-9-]{8,64}")
_STATUS = {"unauthorized": 401, "disk_full": 507, "line_too_long": 413}


def application(engine: Engine, storage: Storage, *, token: str, names: tuple[str, ...]) -> ASGIApp:
    """Return the ASGI application.

    Args:
        engine: Does the work.
        storage: Keeps the files.
        token: What every request must carry.
        names: Host names that requests may be addressed to, besides this machine's own and plain IP addresses.
    """
    files = PREFIX + "{key}/{name}"
    web = _Web(engine, storage)
    app = Starlette(
        routes=[
            Route("/v1/hello", web.hello, methods=["GET"]),
            Route("/v1/messages", web.messages, methods=["POST"]),
            Route(files, web.upload, methods=["PUT"]),
            Route(files, web.download, methods=["GET", "HEAD"]),
        ],
        exception_handlers={Failure: _refuse, ClientDisconnect: _gone, 404: _missing, 405: _missing},
    )
    return _Gate(app, token, {*names, "localhost", socket.gethostname()})


class _Gate:
    """Lets in what carries the token and is addressed to this machine.

    A page in a browser can send requests here under a name of its own that leads to this address; the check of the
    name stops it before the token is looked at.
    """

    def __init__(self, app: ASGIApp, token: str, names: set[str]) -> None:
        self._app = app
        self._token = token.encode()
        self._names = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._knows(headers.get("host", "")):
            failure = Failure("bad_request", "the engine is not called that", remedy="call it by its IP address")
            await _answer(failure, 421)(scope, receive, send)
        elif not self._lets_in(headers.get("authorization", "")):
            failure = Failure("unauthorized", "the token is missing or wrong", remedy="enter the engine's token")
            await _answer(failure, 401)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _knows(self, host: str) -> bool:
        name = host.rsplit(":", 1)[0] if re.search(r":[0-9]+$", host) else host
        name = name.strip("[]").lower()
        with contextlib.suppress(ValueError):
            ip_address(name)
            return True
        return name in self._names

    def _lets_in(self, header: str) -> bool:
        scheme, _, value = header.partition(" ")
        given = value.strip().encode("latin-1")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given, self._token)


def _answer(failure: Failure, status: int) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"v": 1, "id": failure.request_id, "type": "error", **failure.fields()}, status, headers)


async def _refuse(_: Request, error: Exception) -> Response:
    failure = error if isinstance(error, Failure) else Failure("internal", "the engine stumbled")
    return _answer(failure, _STATUS.get(failure.code, 400))


async def _missing(_: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _answer(Failure("bad_request", "there is nothing at this address"), status)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody hears it: the client hung up in the middle of its request


class _Web:
    def __init__(self, engine: Engine, storage: Storage) -> None:
        self._engine, self._storage = engine, storage

    async def hello(self, _: Request) -> Response:
        fields = await run_in_threadpool(self._engine.hello)
        return Response(encode(0, "hello", fields), media_type="application/json")

    async def messages(self, request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) >= LINE_BYTES:
                raise Failure("line_too_long", f"a request is longer than {LINE_BYTES} bytes")
        message = parse(bytes(body))
        name = request.headers.get("x-geoalign-client", "")
        peer = request.client.host if request.client else ""
        return _Stream(self._engine, message, name if _CLIENT.fullmatch(name) else peer)

    async def upload(self, request: Request) -> Response:
        key, name = request.path_params["key"], request.path_params["name"]
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self._storage.max_bytes:
            raise Failure("bad_request", f"the upload is larger than {self._storage.max_bytes} bytes", remedy="cut it")
        path = await self._storage.receive(key, name, request.stream())
        return JSONResponse({"path": self._storage.told(path)}, 201)

    async def download(self, request: Request) -> Response:
        key, name = request.path_params["key"], request.path_params["name"]
        path = self._storage.place(key, name)
        if not path.is_file():
            return _answer(Failure("bad_request", "the file is not here", remedy="upload it"), 404)
        self._storage.use(key, name if request.method == "GET" else "")
        return FileResponse(path)


class _Stream(Response):
    """The messages of one request, until the last one; a client that hangs up stops its job."""

    def __init__(self, engine: Engine, message: Any, channel: str) -> None:  # noqa: ANN401 - a protocol Request
        super().__init__(media_type="application/x-ndjson")
        self._engine, self._message, self._channel = engine, message, channel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        lines: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(request_id: int, kind: str, fields: dict[str, Any]) -> None:
            line = encode(request_id or self._message.id, kind, fields)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lines.put_nowait, (kind, line))

        self._engine.submit(self._message, tell, self._channel)
        headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.ensure_future(_hung_up(receive))
        try:
            while await self._pass_on(lines, gone, send):
                pass
        finally:
            gone.cancel()
            self._engine.cancel(self._channel, self._message.id, tell)

    @staticmethod
    async def _pass_on(lines: asyncio.Queue[tuple[str, bytes]], gone: asyncio.Future[None], send: Send) -> bool:
        """Send the next message; return whether more will come."""
        waiting = asyncio.ensure_future(lines.get())
        both: set[asyncio.Future[Any]] = {waiting, gone}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            return False
        kind, line = waiting.result()
        more = kind not in ("result", "error")
        await send({"type": "http.response.body", "body": line, "more_body": more})
        return more


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
