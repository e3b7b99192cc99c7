"""Why an installation failed, from what pip and Python print: one sentence and one thing to do."""

from __future__ import annotations

import re

from ..words import tr
from .protocol import EngineError


def classify(step: str, output: str) -> EngineError:
    """The failure of a step for the user, with the last lines as details."""
    for code, pattern, message, remedy in _known():
        if re.search(pattern, output, re.IGNORECASE):
            return EngineError(code, message or _not_found(output), remedy, _tail(output), True)
    return EngineError(
        "install", tr("The step “{step}” failed.").format(step=step),
        tr("Copy the report and send it to us, or use an engine that exists already."), _tail(output), True,
    )  # fmt: skip


def _not_found(output: str) -> str:
    """Which package pip looked for in vain, with the version it wanted."""
    found = re.search(r"(?:distribution found for|satisfies the requirement|depends on) +([^\s(]+)", output)
    if found is None:
        return tr("A package that fits this computer was not found.")
    return tr("No version of {package} that fits this computer was found.").format(package=found[1])


def _tail(output: str, lines: int = 20) -> str:
    return "\n".join(output.splitlines()[-lines:])


def _known() -> list[tuple[str, str, str, str]]:
    """Code, pattern, message (empty: made from the output) and remedy; the first that fits counts."""
    return [
        (
            "disk_full", r"no space left|disk (is )?full|Errno 28|WinError 112|disk quota",
            tr("The disk is full."), tr("Free some space and install again: what is done is kept."),
        ),
        (
            "proxy", r"\b407\b|proxy authentication|cannot connect to proxy|ProxyError",
            tr("The proxy did not let the download through."),
            tr("Set the proxy with name and password in the options of QGIS under Network."),
        ),
        (
            "tls",
            r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerification|certificate verify|invalid peer certificate",
            tr("The certificate of the download site was not accepted."),
            tr("Add your organisation's certificate in the options of QGIS under Authentication."),
        ),
        (
            "venv", r"ensurepip is not available|No module named '?(venv|ensurepip)",
            tr("The Python found here cannot make environments."),
            tr("Install the package python3-venv of your system, or Python from python.org."),
        ),
        (
            "network",
            r"NewConnectionError|Temporary failure in name resolution|getaddrinfo failed|Name or service not known|"
            r"Network is unreachable|ConnectTimeout|ReadTimeout|Connection refused|RemoteDisconnected|"
            r"Connection reset|dns error|error sending request",
            tr("The download site cannot be reached."),
            tr("Check the network, or choose a folder with the packages."),
        ),
        (
            "no_wheel", r"No matching distribution|Could not find a version|not a supported wheel|no wheels? with|"
            r"No solution found|ResolutionImpossible",
            "",
            tr("Install Python 3.12, or choose a folder with packages for this system."),
        ),
        (
            "antivirus", r"WinError 225|WinError 4551|virus|blocked by (your )?(administrator|group policy)",
            tr("A protection program stopped the installation."),
            tr("Ask your administrator to allow the folder of the engine."),
        ),
        (
            "permission", r"Permission denied|Access is denied|WinError 5\b|Errno 13|Read-only file system|Errno 30",
            tr("The folder of the engine cannot be written."),
            tr("Close programs that use it, check its rights, and install again."),
        ),
        (
            "torch_load_failed", r"WinError 126|WinError 1114|c10\.dll|DLL load failed|libtorch|GLIBC_",
            tr("PyTorch is installed but does not start on this computer."),
            tr("On Windows install the Microsoft Visual C++ Redistributable, then install again."),
        ),
    ]  # fmt: skip
