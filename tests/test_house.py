"""The rules of the house that a program can check: who imports whom, one opener, small modules."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGES = ("tiling", "geoalign_core", "training", "qgis_plugin")
FORBIDDEN = {
    "tiling": {"geoalign_core", "training", "qgis_plugin", "qgis", "torch", "torchvision", "open_clip", "timm"},
    "geoalign_core": {"training", "qgis_plugin", "qgis"},
    "training": {"qgis_plugin", "qgis"},
}
SOURCES = [path for package in PACKAGES for path in sorted((REPO / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Top-level names of every import in a file, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO)))
def test_imports_follow_the_arrows(path):
    package = path.relative_to(REPO).parts[0]
    names = imported(path)
    if package == "qgis_plugin":
        assert names - set(sys.stdlib_module_names) <= {"qgis", "qgis_plugin"}
    else:
        assert not names & FORBIDDEN[package]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO)))
def test_modules_stay_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_only_tiling_opens_rasters():
    """Everything else may write rasters, but reads them through ``open_raster``."""
    strays = []
    for path in SOURCES:
        if path.relative_to(REPO).parts[0] == "tiling":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "rasterio.open":
                mode = [ast.unparse(arg) for arg in node.args[1:2]] + [
                    ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "mode"
                ]
                if mode not in (["'w'"], ["'r+'"]):
                    strays.append(f"{path.relative_to(REPO)}:{node.lineno}")
    assert not strays


@pytest.mark.parametrize("module", ["tiling.cli", "geoalign_core.cli", "training.cli"])
def test_help_loads_nothing_heavy(module):
    code = (
        f"import sys, {module}; "
        "heavy = {'torch', 'geopandas', 'matplotlib', 'sklearn', 'timm', 'open_clip'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_project_does_not_pickle():
    strays = [
        str(path.relative_to(REPO)) for path in SOURCES if imported(path) & {"pickle", "joblib", "dill", "cloudpickle"}
    ]
    assert not strays
