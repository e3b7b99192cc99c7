"""Engine settings: where the search engine comes from, and installing it."""

from __future__ import annotations

import os
from typing import Any, Callable

from qgis.gui import QgsAuthConfigSelect, QgsFileWidget
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import (
    QApplication,
    QButtonGroup,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from ..engine.command import VARIABLE, EngineChoice, check_address, check_command, find_engine
from ..engine.protocol import EngineError, EngineFailure
from ..engine.release import release
from ..words import tr
from . import look
from .install_box import InstallBox

INDENT = 22
KEPT = ("engine_mode", "engine_command", "engine_address", "authcfg", "engine_cuda", "wheels_folder")


class EngineDialog(QDialog):
    """Four ways to an engine: found by itself, installed beside QGIS, an existing one, or one at an address."""

    def __init__(self, settings: Any, client: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("GeoAlignEngineDialog")
        self.setWindowTitle(tr("Engine Settings"))
        self._settings = settings
        self._client = client
        self._build()
        self._lay_out()
        self._load()
        self._before = self._values()
        self._known = client.choice, settings.authcfg
        self._connect()
        self._show_state(client.state)
        self._on_mode()

    def mode(self) -> str:
        """Return "auto", "managed", "command" or "address"."""
        return self._group.checkedButton().property("mode")

    def set_mode(self, mode: str) -> None:
        """Choose a way."""
        for button in self._group.buttons():
            button.setChecked(button.property("mode") == mode)
        self._on_mode()

    def show_install(self) -> None:
        """Open at the installation."""
        self.set_mode("managed")

    def accept(self) -> None:
        """Keep the choice and let the client look again."""
        if self.install_box.running():
            self.status.setText(tr("Wait for the installation, or cancel it."))
            return
        if self.mode() == "address" and not self._takes(check_address, self.address.text()):
            return
        self._store()
        if self._is_new() or self._client.state in ("stopped", "wrong"):
            self._configure()
        super().accept()

    def reject(self) -> None:
        """Closing stops a running installation; it can be resumed later."""
        self.install_box.leave()
        was_tried = self._values() != self._before
        for name, value in self._before.items():
            setattr(self._settings, name, value)
        if (was_tried or not self._client.available()) and self._is_new():
            self._configure()
        super().reject()

    def showEvent(self, event) -> None:  # noqa: ANN001
        """The theme's colours are known now."""
        super().showEvent(event)
        for edit in (self.command.lineEdit(), self.install_box.wheels.lineEdit(), self.address):
            look.clear_placeholder(edit)

    # Building

    def _build(self) -> None:
        self._group = QButtonGroup(self)
        self.radios = {}
        for mode, text in (
            ("auto", tr("Find the engine by itself")),
            ("managed", tr("Install beside QGIS")),
            ("command", tr("Use existing Python or command")),
            ("address", tr("Engine address")),
        ):
            radio = QRadioButton(text)
            radio.setProperty("mode", mode)
            radio.setFont(look.bold(radio.font()))
            self.radios[mode] = radio
            self._group.addButton(radio)
        self.auto_note = _note(tr("Looks for an existing Python, the installed engine, and the command geoalign."))
        named = os.environ.get(VARIABLE, "")
        if named:
            self.auto_note.setText(
                tr("The environment variable {name} names {path}.").format(name=VARIABLE, path=named)
            )
        self.install_box = InstallBox(self._settings, lambda then: release(self._client, then))
        self.command = QgsFileWidget()
        self.command.setStorageMode(QgsFileWidget.StorageMode.GetFile)
        self.command.setDialogTitle(tr("Choose a Python or the Command geoalign"))
        self.command.lineEdit().setAccessibleName(tr("Python, command or folder of an environment"))
        self.command.lineEdit().setPlaceholderText(tr("python3, geoalign, or a folder"))
        self.address = QLineEdit()
        self.address.setPlaceholderText("http://gpu-room:8765")
        self.address.setAccessibleName(tr("Engine address"))
        self.auth = QgsAuthConfigSelect()
        self.check_command_button = QPushButton(tr("Check"))
        self.check_address_button = QPushButton(tr("Check"))
        self.status = _note("")
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        self.report_button = self.buttons.addButton(tr("Copy Report"), QDialogButtonBox.ButtonRole.ResetRole)
        for button in self.buttons.buttons():
            button.setAutoDefault(False)

    def _lay_out(self) -> None:
        self._parts = {
            "auto": self.auto_note,
            "managed": self.install_box,
            "command": _beside(self.command, self.check_command_button),
            "address": QWidget(),
        }
        form = QFormLayout(self._parts["address"])
        form.setContentsMargins(0, 0, 0, 0)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.addRow(tr("Address"), _beside(self.address, self.check_address_button))
        form.addRow(tr("Authentication"), self.auth)
        rows = QVBoxLayout(self)
        rows.setSpacing(8)
        for mode, radio in self.radios.items():
            rows.addWidget(radio)
            part = self._parts[mode]
            line = QHBoxLayout()
            line.setContentsMargins(INDENT, 0, 0, 4)
            line.addWidget(part)
            rows.addLayout(line)
        rows.addStretch(1)
        rows.addSpacing(4)
        rows.addWidget(self.status)
        rows.addWidget(self.buttons)
        self.setMinimumWidth(460)

    def _connect(self) -> None:
        self._group.buttonClicked.connect(lambda _button: self._on_mode())
        self.check_command_button.clicked.connect(self._check_command)
        self.check_address_button.clicked.connect(self._check_address)
        self.report_button.clicked.connect(self._copy_report)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self._client.stateChanged.connect(self._show_state)
        self.install_box.finished.connect(self._on_installed)
        self.install_box.failed.connect(self._on_not_installed)

    # Reading and keeping

    def _load(self) -> None:
        self.command.setFilePath(self._settings.engine_command)
        self.address.setText(self._settings.engine_address)
        self.auth.setConfigId(self._settings.authcfg)
        self.set_mode(self._settings.engine_mode)

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self._settings, name) for name in KEPT}

    def _store(self) -> None:
        self._settings.engine_mode = self.mode()
        self._settings.engine_command = self.command.filePath()
        self._settings.engine_address = self.address.text()
        self._settings.authcfg = self.auth.configId()
        self.install_box.store()

    def _is_new(self) -> bool:
        """Whether the settings name another engine than the client has: one that stays goes on with its search."""
        known = find_engine(self._settings), self._settings.authcfg
        return known != self._known or known[0] != self._client.choice

    def _configure(self) -> None:
        self._client.configure(self._settings)
        self._known = self._client.choice, self._settings.authcfg

    # Reactions

    def _on_mode(self) -> None:
        mode = self.mode()
        for name, part in self._parts.items():
            part.setVisible(name == mode)
        if mode == "managed":
            self.install_box.plan()
        self.adjustSize()

    def _check_command(self) -> None:
        if self._takes(check_command, self.command.filePath()):
            self._check_engine()

    def _check_address(self) -> None:
        if self._takes(check_address, self.address.text()):
            self._check_engine()

    def _takes(self, check: Callable[[str], EngineChoice], text: str) -> bool:
        """Check what was typed, and say what is wrong with it."""
        try:
            check(text)
        except EngineFailure as failure:
            self.status.setText(_sentences(failure.error))
            return False
        return True

    def _check_engine(self) -> None:
        """Start the chosen engine; its state is shown as it comes. One that works on a search is left alone."""
        self._store()
        if self._is_new() or self._client.state != "busy":
            self._configure()
        self._client.start()
        self._show_state(self._client.state)

    def _on_installed(self) -> None:
        """A finished installation is a decision: closing the dialog does not take it back."""
        self._check_engine()
        self._before = self._values()

    def _on_not_installed(self) -> None:
        """What was there before may be there still."""
        if self._is_new():
            self._configure()

    def _show_state(self, state: str) -> None:
        hello = self._client.hello or {}
        texts = {
            "none": tr("No engine has been found yet."),
            "idle": tr("An engine is known; it starts with the first question."),
            "starting": tr("The engine is starting."),
            "ready": tr("The engine is ready."),
            "busy": tr("The engine is working."),
            "silent": tr("The engine does not answer at the moment."),
            "stopped": tr("The engine stopped."),
            "wrong": tr("This engine does not fit this version of the plugin."),
        }
        text = texts.get(state, state)
        problem = self._client.problem
        named = state == "none" and self._settings.engine_mode in ("command", "address")
        if (named or state in ("stopped", "wrong")) and problem is not None:
            text = _sentences(problem)
        elif state == "ready" and hello.get("engine"):
            text = tr("The engine is ready (version {version}).").format(version=hello["engine"])
        self.status.setText(text)

    def _copy_report(self) -> None:
        from ..engine.report import engine_report

        QApplication.clipboard().setText(engine_report(self._client, self._settings))
        self.status.setText(tr("The report is on the clipboard."))


def _sentences(error: EngineError) -> str:
    return f"{error.message} {error.remedy}".strip()


def _note(text: str) -> QLabel:
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setMinimumWidth(380)
    return label


def _beside(field: QWidget, button: QPushButton) -> QWidget:
    box = QWidget()
    line = QHBoxLayout(box)
    line.setContentsMargins(0, 0, 0, 0)
    line.addWidget(field, 1)
    line.addWidget(button)
    button.setAutoDefault(False)
    return box
