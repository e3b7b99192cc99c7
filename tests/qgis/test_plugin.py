"""The plugin in QGIS: it comes in light, shows its panel when asked, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication, QEvent
from qgis.PyQt.QtWidgets import QAction, QApplication, QDialog, QMenu, QToolBar, QWidget

import qgis_plugin
from qgis_plugin.engine.protocol import EngineError
from qgis_plugin.gui.engine_dialog import EngineDialog
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
def places(qgis_iface, monkeypatch):
    """Where QGIS keeps what a plugin adds: real menus and a toolbar, and the locator filters."""
    window = qgis_iface.mainWindow()
    toolbar, raster, help_menu, filters = QToolBar(window), QMenu(window), QMenu(window), []
    for name, function in {
        "addRasterToolBarIcon": toolbar.addAction, "removeRasterToolBarIcon": toolbar.removeAction,
        "addPluginToRasterMenu": lambda _menu, action: raster.addAction(action),
        "removePluginRasterMenu": lambda _menu, action: raster.removeAction(action),
        "pluginHelpMenu": lambda: help_menu,
        "registerLocatorFilter": filters.append, "deregisterLocatorFilter": filters.remove,
        "registerMainWindowAction": MagicMock(), "unregisterMainWindowAction": MagicMock(),
    }.items():  # fmt: skip
        monkeypatch.setattr(qgis_iface, name, function, raising=False)
    yield SimpleNamespace(window=window, toolbar=toolbar, raster=raster, help=help_menu, filters=filters)
    for widget in (toolbar, raster, help_menu):
        widget.deleteLater()


@pytest.fixture
def plugin(qgis_iface, places):
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


def own_actions(window) -> list[str]:
    return sorted(a.objectName() for a in window.findChildren(QAction) if a.objectName().startswith("geoalign"))


def test_everything_in_the_window_comes_and_goes(plugin, places, qgis_iface):
    assert own_actions(places.window) == ["geoalignAskTheMap", "geoalignHelp"]
    assert places.toolbar.actions() == places.raster.actions() == [plugin.open_action]
    assert places.help.actions() == [plugin.help_action]
    assert places.filters == [plugin.locator]
    registered = plugin.open_action
    plugin.unload()
    qgis_iface.unregisterMainWindowAction.assert_called_once_with(registered)
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert own_actions(places.window) == []
    assert not (places.toolbar.actions() or places.raster.actions() or places.help.actions() or places.filters)


@pytest.mark.parametrize("answer", [QDialog.DialogCode.Accepted, QDialog.DialogCode.Rejected])
def test_engine_settings_leave_neither_a_dialog_nor_a_dead_engine(plugin, places, qtbot, monkeypatch, answer):
    plugin.show_panel()
    controller = plugin.controller
    qtbot.addWidget(controller.dock)
    configured = []
    monkeypatch.setattr(controller.client, "configure", configured.append)
    monkeypatch.setattr(EngineDialog, "exec", lambda dialog: dialog.done(answer) or answer)
    for _ in range(3):
        controller._set_up_engine()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert not [one for one in places.window.findChildren(QWidget) if one.objectName() == "GeoAlignEngineDialog"]
    assert not configured


def test_copied_details_name_neither_sign_ins_nor_home(plugin, qtbot):
    plugin.show_panel()
    controller = plugin.controller
    qtbot.addWidget(controller.dock)
    details = f"opened {Path.home()}/maps/a.tif with token=very-private"
    controller.runner.fail(EngineError("raster", "The image cannot be read.", "", details))
    controller._copy_details()
    text = QApplication.clipboard().text()
    assert "a.tif" in text and "very-private" not in text and str(Path.home()) not in text


def test_loading_imports_neither_the_panel_nor_anything_from_outside():
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=REPO, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "qgis_plugin.plugin" in loaded
    assert not {name for name in loaded if name.startswith(("qgis_plugin.gui", "numpy", "torch"))}
