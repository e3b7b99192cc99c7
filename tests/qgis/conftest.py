"""Shared by the tests that run inside QGIS: the engine's Python, a private profile, and the sample image."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from qgis.core import QgsProject, QgsRasterLayer, QgsSettings
from qgis.PyQt.QtCore import QSettings

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def _private_settings(tmp_path_factory, qgis_app):
    """Keep the machine's own QGIS profile and GeoAlign folders out of the tests, and the tests out of them."""
    folder = tmp_path_factory.mktemp("profile")
    os.environ["XDG_DATA_HOME"] = str(folder / "data")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.environ["GEOALIGN_CACHE"] = str(folder / "cache" / "geoalign")
    os.environ.pop("GEOALIGN_PYTHON", None)
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(folder))


@pytest.fixture(autouse=True)
def _clean_settings(qgis_app):
    """Start every test without settings of GeoAlign and with an empty project."""
    QgsSettings().remove("geoalign")
    QgsProject.instance().clear()
    yield
    QgsSettings().remove("geoalign")


@pytest.fixture(scope="session")
def engine_python() -> str:
    """The Python of the real engine, or skip."""
    for python in (os.environ.get("GEOALIGN_TEST_PYTHON"), str(REPO / ".venv" / "bin" / "python")):
        if python and Path(python).is_file():
            return python
    pytest.skip("no Python with the engine: set GEOALIGN_TEST_PYTHON")


@pytest.fixture(scope="session")
def indexed_sample(tmp_path_factory) -> Path:
    """The repository's sample image in a folder of its own; what one test indexes serves the next."""
    return Path(shutil.copy(REPO / "samples" / "canal.tif", tmp_path_factory.mktemp("sample")))


@pytest.fixture
def sample(tmp_path) -> Path:
    """A fresh copy of the sample image, without an index."""
    return Path(shutil.copy(REPO / "samples" / "canal.tif", tmp_path))


@pytest.fixture
def sample_layer(sample) -> QgsRasterLayer:
    """The sample image as a layer of the project."""
    layer = QgsRasterLayer(str(sample), "aerial_2023")
    QgsProject.instance().addMapLayer(layer)
    return layer
