"""Which engine to use: a named one, the environment variable's, the managed one, or `geoalign` on the search path."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable
from urllib.parse import urlsplit

from qgis.PyQt.QtCore import QStandardPaths

from ..settings import Settings
from ..words import tr
from .protocol import EngineError, EngineFailure

ENGINE_VERSION = "0.1.0"
"""The version of the engine that this plugin was made with."""
VARIABLE = "GEOALIGN_PYTHON"
READY = "ready.json"
SERVE = ("engine", "--stdio")
HOST = re.compile(r"[\w.-]+$|[0-9a-f:.]+(%[\w.-]+)?$", re.IGNORECASE)
"""Names, IPv4 and IPv6."""


@dataclass(frozen=True)
class EngineChoice:
    """An engine that can be started, or the address of a running one.

    Attributes:
        kind: "command", "environment", "managed", "path" or "address".
        program: The executable, or the address.
        arguments: What the executable is called with.
        title: For the user.
    """

    kind: str
    program: str
    arguments: tuple[str, ...]
    title: str


def find_engine(settings: Settings) -> EngineChoice | None:
    """The engine that the settings ask for, or None when there is none."""
    mode = settings.engine_mode
    if mode == "address":
        return _quietly(check_address, settings.engine_address)
    if mode == "command":
        return _quietly(check_command, settings.engine_command)
    if mode == "managed":
        return _managed()
    return (
        _quietly(check_command, settings.engine_command)
        or _environment()
        or _managed()
        or _quietly(check_command, "geoalign", "path")
    )


def why_none(settings: Settings) -> EngineError:
    """Why `find_engine` found nothing, for the user."""
    try:
        if settings.engine_mode == "address":
            check_address(settings.engine_address)
        elif settings.engine_command and settings.engine_mode in ("auto", "command"):
            check_command(settings.engine_command)
        elif os.environ.get(VARIABLE) and settings.engine_mode == "auto":
            check_command(os.environ[VARIABLE])
    except EngineFailure as failure:
        return failure.error
    return EngineError(
        "no_engine", tr("The search engine is not installed."), tr("Install it in the engine settings of the panel.")
    )


def check_command(text: str, kind: str = "command") -> EngineChoice:
    """The engine behind a Python, a `geoalign` script, or the folder of an environment.

    Raises:
        EngineFailure: There is nothing that could be started.
    """
    text = text.strip().strip('"')
    path = Path(text).expanduser()
    if text and path.is_dir():
        python = environment_python(path)
        if python is None:
            raise _unusable(tr("There is no Python in the folder {path}.").format(path=path))
        path = python
    elif text and not path.is_file():
        found = shutil.which(text) if path.name == text else None
        if found is None:
            raise _unusable(tr("There is no program {path}.").format(path=text))
        path = Path(found)
    if not text or not os.access(path, os.X_OK):
        raise _unusable(tr("{path} cannot be run.").format(path=text or tr("An empty command")))
    if re.match(r"(python|pypy)[\d.w]*(\.exe)?$", path.name, re.IGNORECASE):
        return EngineChoice(kind, str(path), ("-m", "geoalign_core", *SERVE), str(path))
    return EngineChoice(kind, str(path), SERVE, str(path))


def check_address(text: str) -> EngineChoice:
    """The engine at an address; whether it answers is not looked at.

    Raises:
        EngineFailure: It is no address of the web.
    """
    text = text.strip()
    try:
        parts = urlsplit(text if "//" in text else f"http://{text}")
        valid = parts.scheme in ("http", "https") and HOST.match(parts.hostname or "") and parts.port != 0
    except ValueError:  # a port or brackets that are none
        valid = False
    if not valid:
        raise EngineFailure(EngineError(
            "no_engine",
            tr("“{text}” is no address of an engine.").format(text=text) if text else tr("The address is missing."),
            tr("Write it like http://gpu-room:8765."),
        ))  # fmt: skip
    address = parts._replace(path=parts.path.rstrip("/"), query="", fragment="").geturl()
    return EngineChoice("address", address, (), parts.netloc.rpartition("@")[2])


def environment_python(folder: Path) -> Path | None:
    """The Python of a virtual or conda environment."""
    inside = ("Scripts/python.exe", "python.exe") if sys.platform == "win32" else ("bin/python3", "bin/python")
    return next((folder / name for name in inside if (folder / name).is_file()), None)


def managed_folder(version: str = ENGINE_VERSION) -> Path:
    """Where the plugin keeps the engine it installs: outside the plugin, keyed by the engine's version."""
    base = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericDataLocation)
    return Path(base) / "geoalign" / f"engine-{version}"


def _managed() -> EngineChoice | None:
    folder = managed_folder()
    python = environment_python(folder)
    if python is None or not (folder / READY).is_file():
        return None
    return EngineChoice("managed", str(python), ("-m", "geoalign_core", *SERVE), str(folder))


def _environment() -> EngineChoice | None:
    named = os.environ.get(VARIABLE, "")
    return _quietly(check_command, named, "environment") if named else None


def _quietly(check: Callable[..., EngineChoice], *texts: str) -> EngineChoice | None:
    try:
        return check(*texts) if texts[0] else None
    except EngineFailure:
        return None


def _unusable(message: str) -> EngineFailure:
    remedy = tr("Name a Python that has GeoAlign, a geoalign command, or the folder of an environment.")
    return EngineFailure(EngineError("no_engine", message, remedy))
