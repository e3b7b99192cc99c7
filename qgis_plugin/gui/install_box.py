"""Installing the engine beside QGIS: what it takes, how far it is, and what it says."""

from __future__ import annotations

from typing import Any, Callable

from qgis.gui import QgsFileWidget
from qgis.PyQt.QtCore import QCoreApplication, Qt, pyqtSignal
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ..engine.install import Installer, plan_install
from ..engine.protocol import EngineError, EngineFailure
from ..words import tr
from . import look
from .states import size_text

LOG_LINES = 2000


class InstallBox(QWidget):
    """Asks first, with size and folder, then installs; cancel and come back at any time."""

    finished = pyqtSignal()
    failed = pyqtSignal()

    def __init__(self, settings: Any, free: Callable[[Callable[[], None]], None] = lambda then: then()) -> None:
        """Make the box.

        Args:
            settings: Keep the choices.
            free: Calls what it is given once no engine runs from the folder: Windows locks the files of one that does.
        """
        super().__init__()
        self._settings = settings
        self._free = free
        self._plan: Any = None
        self._installer: Any = None
        self._began = False
        self._build()
        self._lay_out()
        self.device.currentIndexChanged.connect(lambda _index: self.plan())
        self.wheels.fileChanged.connect(lambda _path: self.plan())
        self.install_button.clicked.connect(self._on_button)

    def running(self) -> bool:
        """Say whether an installation is under way."""
        return self._installer is not None

    def store(self) -> None:
        """Keep the choices."""
        self._settings.engine_cuda = bool(self.device.currentData())
        self._settings.wheels_folder = self.wheels.filePath()

    def plan(self) -> None:
        """Work out what an installation would take, and say so."""
        if self.running():
            return
        try:
            self._plan = plan_install(
                self._settings, cuda=bool(self.device.currentData()), wheels=self.wheels.filePath()
            )
        except EngineFailure as failure:
            self._plan = None
            self.summary.setText(f"{failure.error.message} {failure.error.remedy}".strip())
        else:
            self.summary.setText(plan_text(self._plan))
            self.folder.setText(str(self._plan.folder))
        self.install_button.setEnabled(self._plan is not None and self._plan.fits)

    def start(self) -> None:
        """Install."""
        self.store()
        self.log.clear()
        self.log.show()
        self.bar.setRange(0, 0)
        self.bar.show()
        self._installer = Installer(self._plan, self)
        self._installer.stage.connect(self.stage.setText)
        self._installer.progress.connect(self._on_progress)
        self._installer.line.connect(self.log.appendPlainText)
        self._installer.done.connect(self._on_done)
        self._installer.failed.connect(self._on_failed)
        self._began = False
        self._set_running(True)
        self.stage.setText(tr("Stopping the engine"))
        self._free(self._begin)

    def cancel(self) -> None:
        """Stop; what has been installed is kept for the next time."""
        if self.running() and self._began:
            self._installer.cancel()
        elif self.running():
            self._on_failed(EngineError("cancelled", tr("Stopped.")))

    def leave(self) -> None:
        """Stop and go: the installer ends its tools by itself, also when this box is no more."""
        installer = self._installer
        if installer is not None:
            installer.setParent(QCoreApplication.instance())
            installer.done.connect(installer.deleteLater)
            installer.failed.connect(installer.deleteLater)
            self.cancel()

    def _begin(self) -> None:
        if self.running():
            self._began = True
            self._installer.start()

    def _build(self) -> None:
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.summary.setTextFormat(Qt.TextFormat.PlainText)
        self.folder = QLabel()
        self.folder.setWordWrap(True)
        self.folder.setTextFormat(Qt.TextFormat.PlainText)
        self.folder.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.device = QComboBox()
        self.device.addItem(tr("CPU"), False)
        self.device.addItem(tr("NVIDIA GPU"), True)
        self.device.setCurrentIndex(1 if self._settings.engine_cuda else 0)
        self.device.setAccessibleName(tr("Processor"))
        self.wheels = QgsFileWidget()
        self.wheels.setStorageMode(QgsFileWidget.StorageMode.GetDirectory)
        self.wheels.setDialogTitle(tr("Choose a Folder with Wheels"))
        self.wheels.setFilePath(self._settings.wheels_folder)
        self.wheels.lineEdit().setPlaceholderText(tr("only without Internet access"))
        self.wheels.lineEdit().setAccessibleName(tr("Wheel folder"))
        self.install_button = QPushButton(tr("Install"))
        self.install_button.setAutoDefault(False)
        self.stage = QLabel()
        self.stage.setWordWrap(True)
        self.stage.setTextFormat(Qt.TextFormat.PlainText)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(10)
        self.bar.setAccessibleName(tr("Progress of the installation"))
        self.bar.hide()
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.log.setTabChangesFocus(True)
        self.log.setMaximumBlockCount(LOG_LINES)
        self.log.setFont(look.small(self.log.font()))
        self.log.setMinimumHeight(110)
        self.log.setAccessibleName(tr("Log of the installation"))
        self.log.hide()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow(tr("Folder"), self.folder)
        form.addRow(tr("Processor"), self.device)
        form.addRow(tr("Wheel folder"), self.wheels)
        line = QHBoxLayout()
        line.addWidget(self.stage, 1)
        line.addWidget(self.install_button, 0, Qt.AlignmentFlag.AlignTop)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(6)
        rows.addWidget(self.summary)
        rows.addLayout(form)
        rows.addLayout(line)
        rows.addWidget(self.bar)
        rows.addWidget(self.log, 1)

    def _on_button(self) -> None:
        if self.running():
            self.stage.setText(tr("Cancelling"))
            self.cancel()
        else:
            self.start()

    def _on_progress(self, fraction: float) -> None:
        self.bar.setRange(0, 1000)
        self.bar.setValue(round(1000 * fraction))

    def _on_done(self) -> None:
        self._set_running(False)
        self.bar.hide()
        self.stage.setText(tr("The engine is installed."))
        self.finished.emit()

    def _on_failed(self, error: EngineError) -> None:
        self._set_running(False)
        self.bar.hide()
        self.stage.setText(f"{error.message} {error.remedy}".strip())
        if error.details:
            self.log.appendPlainText(error.details)
        self.failed.emit()

    def _set_running(self, running: bool) -> None:
        if not running:
            self._installer = None
        self.device.setEnabled(not running)
        self.wheels.setEnabled(not running)
        self.install_button.setText(tr("Cancel Installation") if running else tr("Install"))


def plan_text(plan: Any) -> str:
    """Return size and room in words."""
    if plan.wheels:
        text = tr("Runs beside QGIS in its own folder and does not change the Python of QGIS. Nothing is downloaded.")
    else:
        text = tr(
            "Runs beside QGIS in its own folder and does not change the Python of QGIS. Download: about {size}."
        ).format(size=size_text(plan.size_mb * 1e6))
    needed, free = size_text(plan.disk_mb * 1e6), size_text(plan.free_mb * 1e6)
    text += " " + tr("Needs {needed} of disk, {free} are free.").format(needed=needed, free=free)
    if not plan.fits:
        text += " " + tr("Make room first.")
    return text
