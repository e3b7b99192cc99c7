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


@pytest.mark.parametrize("path", sorted((REPO / "training/evaluation").rglob("*.py")), ids=lambda path: path.name)
def test_measuring_knows_no_model_of_ours(path):
    """The embedded model's code measures with ``training.evaluation``, never the other way round."""
    assert "training.embedded" not in path.read_text(encoding="utf-8")


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


@pytest.mark.parametrize("module", ["tiling.cli", "geoalign_core.cli", "training.cli", "training.evaluation.command"])
def test_help_loads_nothing_heavy(module):
    code = (
        f"import sys, {module}; "
        "heavy = {'torch', 'geopandas', 'matplotlib', 'sklearn', 'timm', 'open_clip'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


CONSENTED = {"training/evaluation/layouts/rrsisd.py"}
"""Modules that read a published pickle: with the user's consent, by a reader that finds no class."""


def test_the_project_does_not_pickle():
    using = {
        path.relative_to(REPO).as_posix()
        for path in SOURCES
        if imported(path) & {"pickle", "joblib", "dill", "cloudpickle"}
    }
    assert using == CONSENTED


@pytest.mark.parametrize("name", sorted(CONSENTED))
def test_a_pickle_is_read_with_consent_and_makes_plain_values(name):
    """The module has a reader whose lookups do nothing but raise, and who calls it takes ``trust_pickle``."""
    nodes = list(ast.walk(ast.parse((REPO / name).read_text(encoding="utf-8"))))
    assert not any(isinstance(node, ast.ImportFrom) and node.module == "pickle" for node in nodes)
    named = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)]
    assert {text for text in named if text.startswith("pickle.")} == {"pickle.Unpickler", "pickle.UnpicklingError"}
    readers = [
        node
        for node in nodes
        if isinstance(node, ast.ClassDef) and "Unpickler" in " ".join(map(ast.unparse, node.bases))
    ]
    assert named.count("pickle.Unpickler") == len(readers) == 1
    lookups = {item.name: item.body for item in readers[0].body if isinstance(item, ast.FunctionDef)}
    assert set(lookups) == {"find_class", "persistent_load"}
    assert all(len(body) == 1 and isinstance(body[0], ast.Raise) for body in lookups.values())
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    callers = [node for node in functions if f"{readers[0].name}(" in ast.unparse(node)]
    assert callers and all("trust_pickle" in {arg.arg for arg in node.args.kwonlyargs} for node in callers)
