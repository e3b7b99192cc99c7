"""What a bug report needs to know, as Markdown, without who and where the user is."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qgis.core import Qgis
from qgis.PyQt.QtCore import PYQT_VERSION_STR, qVersion

from ..settings import Settings
from .command import ENGINE_VERSION, managed_folder
from .log import LogFile
from .protocol import PROTOCOL
from .redact import redact

if TYPE_CHECKING:
    from .client import EngineClient

LOG_LINES = 40


def engine_report(client: EngineClient, settings: Settings) -> str:
    """Versions, the engine in use, and its last lines; paths and sign-ins are made unreadable."""
    sections = [
        ("GeoAlign", _versions()),
        ("Engine", _engine(client, settings)),
        ("Packages", _packages(client.status or {})),
    ]
    lines = []
    for title, facts in sections:
        if facts:
            lines += [f"## {title}", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    logs = [("Engine log", client.log.tail(LOG_LINES)), ("Installation log", _install_log())]
    for title, text in logs:
        if text.strip():
            lines += [f"## {title}", "", "```", text.replace("```", "'''"), "```", ""]
    return redact("\n".join(lines))


def _versions() -> dict[str, Any]:
    return {
        "Plugin": _plugin_version(),
        "QGIS": f"{Qgis.QGIS_VERSION} (Qt {qVersion()}, PyQt {PYQT_VERSION_STR})",
        "Python of QGIS": platform.python_version(),
        "System": f"{platform.platform()}, {platform.machine()}, {os.cpu_count()} cores",
        "Sandbox": next((name for name in ("FLATPAK_ID", "SNAP", "APPIMAGE") if os.environ.get(name)), "none"),
    }


def _plugin_version() -> str:
    package = Path(__file__).resolve().parents[1]
    for path in (package / "metadata.txt", package.parent / "metadata.txt"):
        if path.is_file():
            found = re.search(r"^version\s*=\s*(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
            if found:
                return found[1]
    return ENGINE_VERSION


def _engine(client: EngineClient, settings: Settings) -> dict[str, Any]:
    choice, hello, status, problem = client.choice, client.hello or {}, client.status or {}, client.problem
    facts: dict[str, Any] = {
        "State": client.state,
        "Way": settings.engine_mode,
        "Choice": f"{choice.kind}: {choice.program} {' '.join(choice.arguments)}".strip() if choice else "none",
        "GEOALIGN_PYTHON": os.environ.get("GEOALIGN_PYTHON") or "not set",
        "Managed folder": f"{managed_folder()} ({'there' if managed_folder().is_dir() else 'not there'})",
        "Protocol": f"{hello.get('protocol', '?')}, the plugin speaks {PROTOCOL}",
        "Version": f"{hello.get('engine', '?')}, the plugin expects {ENGINE_VERSION}",
        "Python": status.get("python") or hello.get("python") or "?",
        "PyTorch": status.get("torch") or "?",
        "Devices": _listed(status.get("devices"), "title"),
        "Models": _listed(_installed(hello.get("models")), "name"),
        "Unreadable lines": client.garbage,
    }
    if problem is not None:
        facts["Problem"] = f"{problem.code}: {problem.message} {problem.remedy}"
        if problem.details:
            facts["Details"] = "\n\n```\n" + problem.details.replace("```", "'''") + "\n```"
    return facts


def _listed(items: Any, key: str) -> str:
    return ", ".join(str(one.get(key)) for one in items or [] if isinstance(one, dict)) or "?"


def _installed(models: Any) -> list[Any]:
    return [one for one in models or [] if isinstance(one, dict) and one.get("installed")]


def _packages(status: dict[str, Any]) -> dict[str, Any]:
    packages = status.get("packages")
    return dict(sorted(packages.items())) if isinstance(packages, dict) else {}


def _install_log() -> str:
    folder = managed_folder()
    log = LogFile(folder.with_name(folder.name + ".log"))
    try:
        text = log.path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-LOG_LINES:])
