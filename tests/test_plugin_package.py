"""The plugin as the plugin site gets it: the ZIP's contents, its metadata, and the site's scans without a finding."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
SOURCES = sorted((REPO / "qgis_plugin").rglob("*.py"))
REQUIRED = (
    "name",
    "description",
    "version",
    "qgisMinimumVersion",
    "author",
    "email",
    "about",
    "tracker",
    "repository",
    "homepage",
    "icon",
    "license",
)
PLUGIN_SITE_SKIPS = "B404"  # the one rule that the site has switched off


def run(*command: str, cwd: Path = REPO) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(command), cwd=cwd, capture_output=True, text=True, check=False)


def build(folder: Path) -> Path:
    done = run(sys.executable, ".ci/plugin", "--out", str(folder), "build")
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("*.zip")
    return archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def unpacked(archive, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(archive) as files:
        files.extractall(folder)
    return folder


def test_the_zip_holds_the_plugin_and_nothing_else(archive):
    with zipfile.ZipFile(archive) as files:
        names = files.namelist()
    assert archive.stat().st_size < 1_000_000
    assert {name.split("/")[0] for name in names} == {"geoalign"}
    assert {"geoalign/__init__.py", "geoalign/metadata.txt", "geoalign/LICENSE", "geoalign/plugin.py"} <= set(names)
    in_sources = {f"geoalign/{path.relative_to(REPO / 'qgis_plugin').as_posix()}" for path in SOURCES}
    assert in_sources <= set(names)
    for name in names:
        assert Path(name).suffix in {".py", ".svg", ".png", ".ts", ".qml", ".txt", ".md", ""}, name
        assert "__pycache__" not in name
        assert not any(part.startswith(".") for part in name.split("/")), name


def test_the_same_sources_give_the_same_bytes(archive, tmp_path):
    assert build(tmp_path).read_bytes() == archive.read_bytes()


def test_metadata_has_what_the_site_asks_for(unpacked):
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(unpacked / "geoalign" / "metadata.txt", encoding="utf-8")
    general = parser["general"]
    assert all(general.get(key) for key in REQUIRED)
    assert (general["qgisMinimumVersion"], general["qgisMaximumVersion"]) == ("3.22", "4.99")
    assert general.getboolean("hasProcessingProvider")
    assert "supportsQt6" not in general
    assert "plugin" not in general["name"].lower()
    assert (unpacked / "geoalign" / general["icon"]).is_file()
    project = (REPO / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{general["version"]}"' in project
    assert "process of its own" in general["about"]  # the site wants external dependencies stated


@pytest.mark.skipif(importlib.util.find_spec("bandit") is None, reason="bandit is not installed")
def test_bandit_finds_nothing(unpacked):
    done = run(
        sys.executable, "-m", "bandit", "-q", "-r", "geoalign", "-s", PLUGIN_SITE_SKIPS, "-f", "json", cwd=unpacked
    )
    report = json.loads(done.stdout)
    assert [(hit["filename"], hit["line_number"], hit["test_id"]) for hit in report["results"]] == []
    assert report["errors"] == []
    assert report["metrics"]["_totals"]["nosec"] == 0, "the site sees what is suppressed: write it without"


@pytest.mark.skipif(importlib.util.find_spec("detect_secrets") is None, reason="detect-secrets is not installed")
def test_detect_secrets_finds_nothing(unpacked):
    done = run(sys.executable, "-m", "detect_secrets", "scan", "--all-files", ".", cwd=unpacked)
    found = json.loads(done.stdout)["results"]
    assert {name: [hit["line_number"] for hit in hits] for name, hits in found.items()} == {}
    marked = [str(path) for path in unpacked.rglob("*.py") if "allowlist secret" in path.read_text(encoding="utf-8")]
    assert marked == []


@pytest.mark.skipif(importlib.util.find_spec("flake8_qgis") is None, reason="flake8-qgis is not installed")
def test_flake8_finds_nothing_that_qt6_breaks(unpacked):
    done = run(sys.executable, "-m", "flake8", "--isolated", "--select=QGS4", "geoalign", cwd=unpacked)
    assert done.stdout + done.stderr == ""


def each_source(function):
    return pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO)))(function)


@each_source
def test_only_the_standard_library_and_qgis_are_imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        for name in names:
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or top in {"qgis", "processing"}, f"{name} in line {node.lineno}"


@each_source
def test_the_syntax_is_that_of_python_39(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 9))
    if tree.body[1:]:
        assert "from __future__ import annotations" in text
    for node in evaluated(tree):
        line = f"line {getattr(node, 'lineno', '?')}"
        assert not isinstance(node, ast.Match), f"match statement, {line}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            sides = {ast.unparse(node.left), ast.unparse(node.right)}
            assert not sides & {"None", "str", "int", "float", "bool", "bytes", "dict", "list", "tuple"}, (
                f"union, {line}"
            )
        if isinstance(node, ast.Call):
            given = {keyword.arg for keyword in node.keywords}
            is_dataclass = ast.unparse(node.func).endswith("dataclass")
            assert not (is_dataclass and given & {"slots", "kw_only"}), f"dataclass of Python 3.10, {line}"
            assert not (ast.unparse(node.func) == "zip" and "strict" in given), f"zip(strict=), {line}"


def evaluated(node):
    """Every node that Python runs when it imports and calls: all but annotations."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from evaluated(child)


SHIM = """
import importlib, importlib.abc, importlib.machinery, pkgutil, sys, types

class Anything(type):
    # A class whose every attribute is such a class: stands for all of QGIS.
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = Anything(name, (), {})
        setattr(cls, name, made)
        return made
    def __or__(cls, other):
        return cls
    def __call__(cls, *arguments, **named):
        return super().__call__() if cls.__dict__.get("__init__") is None else super().__call__(*arguments, **named)
    def __index__(cls):
        return 0

class Fake(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = Anything(name, (), {})
        setattr(self, name, made)
        return made

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name == "processing" or name == "qgis" or name.startswith("qgis."):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        if spec.name.startswith("qgis.PyQt."):
            return importlib.import_module("PyQt6." + spec.name.split(".")[-1])
        return Fake(spec.name)
    def exec_module(self, module):
        module.__path__ = []

sys.meta_path.insert(0, Finder())
import PyQt6.QtGui, PyQt6.QtWidgets
PyQt6.QtWidgets.QAction = PyQt6.QtGui.QAction      # as QGIS does
PyQt6.QtWidgets.QShortcut = PyQt6.QtGui.QShortcut
names = [found.name for found in pkgutil.walk_packages(["geoalign"], "geoalign.")]
failed = []
for name in ["geoalign", *names]:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed.append(f"{name}: {type(error).__name__}: {error}")
print(len(names), *failed, sep="\\n")
sys.exit(bool(failed))
"""


def test_every_module_imports_under_qt6(unpacked):
    widgets = run(sys.executable, "-c", "import PyQt6.QtWidgets")
    if widgets.returncode:
        pytest.skip(f"PyQt6 does not load here: {widgets.stderr.strip().splitlines()[-1]}")
    done = run(sys.executable, "-B", "-c", SHIM, cwd=unpacked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) >= len(SOURCES) // 2


def test_translations_are_complete():
    done = run(sys.executable, ".ci/translations", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plugin_paints_heat_in_the_engines_colours():
    """The plugin may not import the engine, so it states the ramp again."""
    from geoalign_core.export.colors import HEAT_STOPS

    tree = ast.parse((REPO / "qgis_plugin" / "layers" / "style.py").read_text(encoding="utf-8"))
    stated = [node.value for node in tree.body if isinstance(node, ast.AnnAssign) and node.target.id == "HEAT_STOPS"]
    assert ast.literal_eval(stated[0]) == HEAT_STOPS
