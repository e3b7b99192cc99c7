"""The engine for a map program on another machine: the same messages over HTTP, and files up and down."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoalign_core.engine.memory import parse_size
from geoalign_core.engine.server import Engine
from geoalign_core.engine.stdio import end_within
from geoalign_core.engine.storage import KEEP_HOURS, Storage
from tiling.errors import GeoAlignError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geoalign_core.engine.memory import Watch

TOKEN_VARIABLE = "GEOALIGN_TOKEN"
_TOKEN_CHARS = 16
_GRACE_S = 2
_END_S = 20.0
"""After so long the process ends, whatever still hangs; removing large uploads takes its time."""
_TIDY_S = 60.0


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How to serve, checked."""

    host: str
    port: int
    token: str
    made_up: bool
    """Whether the token was made here and has to be shown."""
    roots: tuple[Path, ...]
    files: Path | None
    """Where uploads and results lie; None is a folder that goes when the engine does."""
    max_upload_bytes: int
    keep_hours: float
    names: tuple[str, ...]
    certfile: Path | None
    keyfile: Path | None

    @classmethod
    def read(
        cls, address: str, *, token_file: Path | None = None, roots: tuple[Path, ...] = (), files: Path | None = None,
        max_upload: str = "20GB", keep_hours: float = KEEP_HOURS, names: tuple[str, ...] = (),
        certfile: Path | None = None, keyfile: Path | None = None,
    ) -> HttpOptions:  # fmt: skip
        """Read the command's options.

        Raises:
            UsageError: One cannot be understood, or the engine would stand open to a network.
        """
        host, port = _split(address)
        token = _token(token_file)
        if token is None and not is_loopback(host):
            raise UsageError(
                "an engine on the network needs a token", measured=address,
                remedy=f"give --token-file FILE or set {TOKEN_VARIABLE}",
            )  # fmt: skip
        for root in roots:
            if not root.is_dir():
                raise UsageError("is not a folder", path=root, remedy="give --root an existing folder")
        if (certfile is None) != (keyfile is None):
            raise UsageError("TLS takes a certificate and a key", remedy="give both --certfile and --keyfile")
        return cls(
            host, port, token or secrets.token_urlsafe(24), token is None, tuple(roots), files,
            parse_size(max_upload), keep_hours, tuple(names), certfile, keyfile,
        )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError("is not HOST:PORT", measured=address, remedy="write it like 127.0.0.1:8765")
    return host, int(port)


def _token(file: Path | None) -> str | None:
    if file is None:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return None
    else:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise UsageError("cannot be read", path=file, remedy="give a text file that holds the token") from error
    if len(token) < _TOKEN_CHARS or not token.isascii() or not token.isprintable():
        raise UsageError("the token is too short or not plain", remedy=f"use at least {_TOKEN_CHARS} ASCII characters")
    return token


def serve_http(options: HttpOptions, *, max_windows: int, memory: Watch | None) -> None:
    """Serve until the process is asked to end.

    Raises:
        GeoAlignError: The optional packages are missing, or the address is taken.
    """
    try:
        import uvicorn

        from geoalign_core.engine.web import application
    except ModuleNotFoundError as error:
        raise GeoAlignError(
            "serving over HTTP takes packages that are not installed", measured=str(error.name),
            remedy="run: pip install 'geoalign[http]'",
        ) from error  # fmt: skip
    listener = _listen(options)
    tls: dict[str, Any] = {}
    if options.certfile is not None:
        tls = {"ssl_certfile": str(options.certfile), "ssl_keyfile": str(options.keyfile)}
    # uvicorn ends in good order and then sends itself the signal again, which must not cut off what follows here.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), _folder(options.files) as folder:
        storage = Storage(folder, options.roots, options.max_upload_bytes, keep_hours=options.keep_hours)
        engine = Engine(max_windows=max_windows, places=storage, memory=memory, shared=True)
        _announce(options, listener.getsockname()[1])
        engine.start()
        threading.Thread(target=_tidy, args=(storage,), name="geoalign-tidy", daemon=True).start()
        config = uvicorn.Config(
            application(engine, storage, token=options.token, names=(options.host, *options.names)),
            log_level="warning", lifespan="off", server_header=False, timeout_graceful_shutdown=_GRACE_S, **tls,
        )  # fmt: skip
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            end_within(_END_S)
            engine.stop(_GRACE_S)
    sys.stderr.flush()
    os._exit(0)  # whatever threads of libraries still run


@contextlib.contextmanager
def _folder(files: Path | None) -> Iterator[Path]:
    if files is not None:
        yield files
        return
    with tempfile.TemporaryDirectory(prefix="geoalign-engine-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _tidy(storage: Storage) -> None:
    while True:
        with contextlib.suppress(OSError):
            storage.sweep()
        time.sleep(_TIDY_S)


def _listen(options: HttpOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
        listener.listen(128)
    except OSError as error:
        raise GeoAlignError(
            f"cannot listen on {options.host}:{options.port}", measured=error.strerror, remedy="choose another port"
        ) from error
    return listener


def _announce(options: HttpOptions, port: int) -> None:
    scheme = "http" if options.certfile is None else "https"
    host = f"[{options.host}]" if ":" in options.host else options.host
    lines = [f"GeoAlign engine at {scheme}://{host}:{port}"]
    if options.made_up:
        lines.append(f"token: {options.token}")
    if options.certfile is None and not is_loopback(options.host):
        lines.append("note: without --certfile the token and the images cross the network readable by others")
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()
