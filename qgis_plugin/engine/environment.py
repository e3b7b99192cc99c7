"""The environment variables of the engine's process: QGIS's own Python, GDAL and PROJ settings must not reach it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Callable

DROPPED = frozenset({
    "PYTHONHOME", "PYTHONPATH", "PYTHONEXECUTABLE", "PYTHONUSERBASE", "PYTHONSTARTUP", "PYTHONINSPECT", "VIRTUAL_ENV",
    "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "QGIS_PREFIX_PATH", "QGIS_PLUGINPATH", "PROJ_DATA", "PROJ_LIB",
    "GDAL_DATA", "GDAL_DRIVER_PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "QT_PLUGIN_PATH", "__PYVENV_LAUNCHER__",
})  # fmt: skip
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
ADDED = {
    "PYTHONIOENCODING": "utf-8",
    "PYTHONUTF8": "1",
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONNOUSERSITE": "1",
}
ROOTS = ("OSGEO4W_ROOT", "QGIS_PREFIX_PATH", "PYTHONHOME")
"""Variables that tell where a bundled QGIS is installed."""


def child_environment(
    base: Mapping[str, str], platform: str, exists: Callable[[str], bool] = os.path.exists
) -> dict[str, str]:
    """The environment a child Python needs to see its own packages and nobody else's.

    Args:
        base: The environment of QGIS.
        platform: As in `sys.platform`.
        exists: Tells whether a path is there.
    """
    windows = platform == "win32"
    bundles = _bundles(base, windows, platform == "darwin")
    kept = {}
    for name, value in base.items():
        key = name.upper() if windows else name
        if key in DROPPED or key.startswith("DYLD_"):
            continue
        if key in CERTIFICATES and (not exists(value) or _inside(value, bundles, windows)):
            continue
        if key == "PATH" and bundles:
            kept[name] = _without(value, bundles, windows)
            continue
        kept[name] = value
    kept.update(ADDED)
    return kept


def _bundles(base: Mapping[str, str], windows: bool, mac: bool) -> list[str]:
    """Folders of a QGIS that brings its own libraries; a QGIS in /usr is part of the system and is none."""
    if not windows and not mac:
        return []
    roots = []
    for name, value in base.items():
        if (name.upper() if windows else name) in ROOTS and value:
            root = _norm(value, windows)
            # apps/qgis and apps/Python39 lie two below the root, QGIS.app/Contents/MacOS inside the bundle
            for mark in ("/apps/",) if windows else ("/contents/", "/Contents/"):
                root = root.split(mark)[0]
            roots.append(root)
    return [root for root in roots if root.count("/") >= 1 and root not in ("/usr", "/usr/local", "/opt/homebrew")]


def _norm(path: str, windows: bool) -> str:
    path = path.strip().strip('"').replace("\\", "/").rstrip("/")
    return path.lower() if windows else path


def _inside(path: str, roots: list[str], windows: bool) -> bool:
    norm = _norm(path, windows)
    return any(norm == root or norm.startswith(root + "/") for root in roots)


def _without(path: str, roots: list[str], windows: bool) -> str:
    separator = ";" if windows else ":"
    return separator.join(part for part in path.split(separator) if not _inside(part, roots, windows))
