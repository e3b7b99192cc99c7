"""The plugin's life in QGIS: menu, toolbar, shortcut, panel, Processing provider, locator filter.

Nothing of the panel is imported before it is opened for the first time, so QGIS starts as quickly as without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication, Qt, QUrl
from qgis.PyQt.QtGui import QDesktopServices, QIcon
from qgis.PyQt.QtWidgets import QAction

from .words import tr

if TYPE_CHECKING:
    from qgis.gui import QgisInterface

    from .gui.controller import AskController

ICON = str(Path(__file__).parent / "resources" / "icon.svg")
HELP_URL = "https://github.com/geoalign/geoalign/blob/main/docs/plugin.md"
MENU = "GeoAlign"
SHORTCUT = "Ctrl+Alt+Q"


class GeoAlignPlugin:
    """What QGIS loads, and unloads without a trace."""

    def __init__(self, iface: QgisInterface) -> None:
        self.iface = iface
        self.provider = None
        self.locator = None
        self.controller: AskController | None = None
        self.open_action: QAction | None = None
        self.help_action: QAction | None = None

    def initProcessing(self) -> None:
        """Register the algorithms; all that ``qgis_process`` needs."""
        from .processing.provider import GeoAlignProvider

        self.provider = GeoAlignProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        """Add the entries to QGIS. The panel itself stays closed until somebody asks for it."""
        from .locator import AskLocatorFilter

        self.initProcessing()
        window = self.iface.mainWindow()
        self.open_action = QAction(QIcon(ICON), tr("Ask the Map"), window)
        self.open_action.setObjectName("geoalignAskTheMap")
        self.open_action.setCheckable(True)
        self.open_action.setToolTip(tr("Type what you are looking for and see where it is"))
        self.open_action.triggered.connect(self.show_panel)
        self.iface.registerMainWindowAction(self.open_action, SHORTCUT)
        self.iface.addRasterToolBarIcon(self.open_action)
        self.iface.addPluginToRasterMenu(MENU, self.open_action)
        self.help_action = QAction(QIcon(ICON), tr("Ask the Map"), window)
        self.help_action.setObjectName("geoalignHelp")
        self.help_action.triggered.connect(open_help)
        self.iface.pluginHelpMenu().addAction(self.help_action)
        self.locator = AskLocatorFilter(on_ask=self.ask)
        self.iface.registerLocatorFilter(self.locator)
        QCoreApplication.instance().aboutToQuit.connect(self.stop_engine)

    def show_panel(self, visible: bool = True) -> None:
        """Open or close the panel; the first time makes it."""
        if self.controller is None:
            if not visible:
                return
            from .gui.controller import AskController

            self.controller = AskController(self.iface)
            dock = self.controller.dock
            self.iface.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
            # QGIS shares the width out among all panels and would cut the words of a new one.
            self.iface.mainWindow().resizeDocks([dock], [dock.sizeHint().width()], Qt.Orientation.Horizontal)
            dock.setToggleVisibilityAction(self.open_action)
            dock.helpRequested.connect(open_help)
        self.controller.dock.setUserVisible(visible)
        if visible:
            self.controller.dock.focus_question()

    def ask(self, question: str) -> None:
        """Open the panel and ask: what the locator bar calls."""
        self.show_panel()
        if self.controller is not None:
            self.controller.dock.set_question(question)
            self.controller.ask()

    def stop_engine(self) -> None:
        """End the engine before QGIS goes."""
        if self.controller is not None:
            self.controller.client.stop()

    def unload(self) -> None:
        """Take everything out of QGIS again."""
        if self.locator is not None:
            # QGIS crashes on the next keystroke when a filter of an unloaded plugin stays registered.
            self.iface.deregisterLocatorFilter(self.locator)
            self.locator = None
        if self.controller is not None:
            self.controller.close()
            self.iface.removeDockWidget(self.controller.dock)
            self.controller.dock.deleteLater()
            self.controller.deleteLater()
            self.controller = None
        if self.open_action is not None:
            QCoreApplication.instance().aboutToQuit.disconnect(self.stop_engine)
            self.iface.unregisterMainWindowAction(self.open_action)
            self.iface.removeRasterToolBarIcon(self.open_action)
            self.iface.removePluginRasterMenu(MENU, self.open_action)
            self.open_action.deleteLater()
            self.open_action = None
        if self.help_action is not None:
            self.iface.pluginHelpMenu().removeAction(self.help_action)
            self.help_action.deleteLater()
            self.help_action = None
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None


def open_help() -> None:
    """Open the guide in the browser."""
    QDesktopServices.openUrl(QUrl(HELP_URL))
