"""A Python that can make the engine's environment. `sys.executable` is never asked: inside QGIS it is often QGIS."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

VERSIONS = ("3.12", "3.13", "3.11", "3.14")
"""Versions the engine runs on, the one with the most ready-made packages first."""
PROBE = (
    "import sys, venv, ensurepip; "
    "print('python', sys.version_info[0], sys.version_info[1], sys.maxsize > 2**32, sep=' ')"
)
FOUND = re.compile(r"^python (\d+) (\d+) (True|False)\s*$", re.MULTILINE)


def candidates(platform: str = sys.platform) -> list[list[str]]:
    """Commands that may start a suitable Python, the best ones first; nothing is started here."""
    found: list[list[str]] = []
    if platform == "win32":
        launcher = shutil.which("py")
        found += [[launcher, f"-{version}"] for version in VERSIONS if launcher]
        found += [[str(path)] for path in _bundled()]
    else:
        names = [f"python{version}" for version in VERSIONS] + ["python3"]
        folders = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"]
        paths = [shutil.which(name) for name in names]
        paths += [f"{folder}/{name}" for name in names for folder in folders]
        found += [[path] for path in paths if path and os.path.isfile(path)]
        found += [[str(path)] for path in _bundled()]
    unique: list[list[str]] = []
    for command in found:
        if command not in unique:
            unique.append(command)
    return unique


def fits(output: str) -> bool:
    """Whether what `PROBE` printed is a Python that will do."""
    match = FOUND.search(output)
    return bool(match) and (int(match[1]), int(match[2])) >= (3, 11) and match[3] == "True"


def _bundled() -> list[Path]:
    """The Python that comes with QGIS, whose folder `sys.base_prefix` names."""
    prefix = Path(sys.base_prefix)
    names = ("python.exe", "python3.exe") if sys.platform == "win32" else ("bin/python3",)
    return [prefix / name for name in names if (prefix / name).is_file()]
