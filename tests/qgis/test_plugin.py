"""The plugin in QGIS: it comes in light, shows its panel when asked, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from unittest.mock import MagicMock

import pytest
from qgis.core import QgsApplication

import qgis_plugin
from tests.qgis.conftest import REPO

LOAD = """
import sys
from qgis.core import QgsApplication
import qgis.gui, qgis.utils
before = set(sys.modules)
import qgis_plugin
qgis_plugin.classFactory(None)
import qgis_plugin.processing.provider, qgis_plugin.locator
print(*sorted(set(sys.modules) - before))
"""


@pytest.fixture
def plugin(qgis_iface, monkeypatch):
    monkeypatch.setattr(qgis_iface, "registerLocatorFilter", MagicMock(), raising=False)
    made = qgis_plugin.classFactory(qgis_iface)
    made.initGui()
    yield made
    made.unload()


def test_it_registers_everything_and_opens_nothing(plugin, qgis_iface):
    assert QgsApplication.processingRegistry().providerById("geoalign") is plugin.provider
    assert plugin.open_action.objectName()
    assert plugin.locator.prefix() == "ask"
    assert plugin.controller is None


def test_the_panel_comes_when_asked_and_goes_with_the_plugin(plugin, qgis_iface, qtbot):
    plugin.show_panel()
    dock = plugin.controller.dock
    qtbot.addWidget(dock)
    assert not dock.isHidden()
    plugin.unload()
    assert plugin.controller is None
    assert QgsApplication.processingRegistry().providerById("geoalign") is None
    plugin.unload()


def test_loading_imports_neither_the_panel_nor_anything_from_outside():
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=REPO, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "qgis_plugin.plugin" in loaded
    assert not {name for name in loaded if name.startswith(("qgis_plugin.gui", "numpy", "torch"))}
