"""Requests to an engine elsewhere, sent through QGIS with its proxies, certificates and stored sign-ins."""

from __future__ import annotations

import hashlib
import re
import uuid
from pathlib import Path
from urllib.parse import quote, urlsplit

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtNetwork import QNetworkReply, QNetworkRequest

from ..words import tr
from .protocol import EngineError

FILES = "/v1/files/"
SIDECARS = (".aux.xml", ".ovr", ".msk")
WORLD_FILES = (".tfw", ".tifw", ".wld", ".prj", ".jgw", ".pgw", ".j2w")


class Web:
    """Makes requests to one address.

    Attributes:
        address: Where the engine listens.
    """

    def __init__(self, address: str, authcfg: str) -> None:
        self.address = address
        self._authcfg = authcfg
        self._client = str(uuid.uuid4())

    def request(self, path: str, content_type: str = "") -> QNetworkRequest:
        """A request with the stored sign-in, past any cache."""
        request = QNetworkRequest(QUrl(self.address + path))
        request.setAttribute(QNetworkRequest.Attribute.CacheSaveControlAttribute, False)
        control = QNetworkRequest.CacheLoadControl.AlwaysNetwork
        request.setAttribute(QNetworkRequest.Attribute.CacheLoadControlAttribute, control)
        # request ids count from 1 in every QGIS: the name keeps those of two apart
        request.setRawHeader(b"X-GeoAlign-Client", self._client.encode())
        if content_type:
            request.setHeader(QNetworkRequest.KnownHeaders.ContentTypeHeader, content_type)
        return self._signed(request)[1]

    def sign_in_problem(self) -> EngineError | None:
        """Why requests cannot be signed, or None: an engine must not be asked without the sign-in that was chosen."""
        if self._signed(QNetworkRequest(QUrl(self.address)))[0]:
            return None
        text = tr("QGIS cannot use the authentication “{name}”.").format(name=self._authcfg)
        remedy = tr("Choose another one in the engine settings, or enter the master password of QGIS.")
        return EngineError("unauthorized", text, remedy)

    def _signed(self, request: QNetworkRequest) -> tuple[bool, QNetworkRequest]:
        if not self._authcfg:
            return True, request
        answer = QgsApplication.authManager().updateNetworkRequest(request, self._authcfg)
        return answer if isinstance(answer, tuple) else (bool(answer), request)


def status_of(reply: QNetworkReply) -> int:
    """The HTTP status, 0 when there was no answer."""
    return int(reply.attribute(QNetworkRequest.Attribute.HttpStatusCodeAttribute) or 0)


def problem_of(reply: QNetworkReply, address: str, message: dict | None = None) -> EngineError:
    """Why a request failed, for the user.

    Args:
        reply: The finished reply.
        address: The address of the engine.
        message: The error that the body held, if any.
    """
    host, status = urlsplit(address).netloc.rpartition("@")[2], status_of(reply)
    if status == 401:
        return EngineError(
            "unauthorized", tr("The engine at {host} does not accept the sign-in.").format(host=host),
            tr("Choose an authentication with its token in the engine settings."),
        )  # fmt: skip
    if message:
        return EngineError.from_message(message)
    if status:
        text = tr("The address {host} answered with status {status}.").format(host=host, status=status)
        remedy = tr("Check the address in the engine settings.")
        return EngineError("unreachable", text, remedy, reply.errorString(), True)
    return EngineError(
        "unreachable", tr("The engine at {host} cannot be reached.").format(host=host),
        tr("Check that it runs and that the address in the engine settings is right."), reply.errorString(), True,
    )  # fmt: skip


def upload_key(path: Path) -> str:
    """The same file has the same key, a changed file another one."""
    facts = path.stat()
    named = f"{path.resolve()}|{facts.st_size}|{facts.st_mtime_ns}"
    return hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def upload_path(key: str, name: str) -> str:
    """Where a file is put."""
    return f"{FILES}{key}/{quote(safe_name(name))}"


def safe_name(name: str) -> str:
    """A file name that every server takes; the suffix stays."""
    return re.sub(r"[^\w.\-]+", "_", Path(name).name, flags=re.ASCII)[-100:].lstrip("._-") or "file"


def with_sidecars(path: Path) -> list[Path]:
    """A raster behind the files that place and describe it."""
    beside = [Path(f"{path}{suffix}") for suffix in SIDECARS] + [path.with_suffix(suffix) for suffix in WORLD_FILES]
    return [*(one for one in beside if one != path and one.is_file()), path]
