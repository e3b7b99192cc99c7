"""The four ways to an engine."""

from __future__ import annotations

import shutil

import pytest
from qgis.PyQt.QtCore import QObject, Qt, pyqtSignal
from qgis.PyQt.QtWidgets import QApplication

from qgis_plugin.engine.client import EngineClient
from qgis_plugin.engine.command import READY, managed_folder
from qgis_plugin.engine.protocol import EngineError
from qgis_plugin.engine.release import release
from qgis_plugin.engine.shared import shared
from qgis_plugin.gui import install_box
from qgis_plugin.gui.engine_dialog import EngineDialog
from qgis_plugin.settings import Settings
from tests.qgis.test_engine_client import alive


@pytest.fixture
def client(qgis_app):
    client = EngineClient(Settings())
    yield client
    client.stop()


@pytest.fixture
def dialog(qtbot, client):
    dialog = EngineDialog(Settings(), client)
    qtbot.addWidget(dialog)
    dialog.show()
    return dialog


class ScriptedInstaller(QObject):
    """Stands in for the minutes a real installation takes; test_engine_install.py runs the real one."""

    stage = pyqtSignal(str)
    progress = pyqtSignal(float)
    line = pyqtSignal(str)
    done = pyqtSignal()
    failed = pyqtSignal(object)

    def __init__(self, plan, parent):
        super().__init__(parent)
        self.plan = plan

    def start(self):
        self.stage.emit("Installing PyTorch")
        self.progress.emit(0.4)
        self.line.emit("Downloading torch")

    def cancel(self):
        self.failed.emit(EngineError("cancelled", "Stopped.", "Install again to go on."))


def test_closing_leaves_a_running_engine_alone(dialog, client, qtbot, engine_python):
    settings = Settings()
    settings.engine_command = engine_python
    client.configure(settings)
    client.start()
    qtbot.waitUntil(lambda: client.state == "ready", timeout=30000)
    pid = client.pid
    for close in (EngineDialog.reject, EngineDialog.accept):
        again = EngineDialog(Settings(), client)
        qtbot.addWidget(again)
        close(again)
        assert client.state == "ready" and client.pid == pid


def test_another_engine_is_taken_once(dialog, client, monkeypatch):
    configured = []
    monkeypatch.setattr(client, "configure", configured.append)
    dialog.set_mode("address")
    dialog.address.setText("gpu:8765")
    dialog.accept()
    assert len(configured) == 1


@pytest.mark.parametrize("address", ["not an address", "ftp://x", ""])
def test_an_address_that_is_none_is_told_at_once(dialog, client, address):
    dialog.set_mode("address")
    dialog.address.setText(address)
    for press in (dialog.check_address_button.click, dialog.accept):
        dialog.status.clear()
        press()
        assert "Write it like http://" in dialog.status.text()
        assert dialog.isVisible() and Settings().engine_mode == "auto"


@pytest.fixture
def managed(engine_python):
    """An engine that counts as installed beside QGIS."""
    folder = managed_folder()
    (folder / "bin").mkdir(parents=True)
    script = folder / "bin" / "python3"
    script.write_text(f'#!/bin/sh\nexec "{engine_python}" "$@"\n')
    script.chmod(0o755)
    (folder / READY).write_text("{}")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("end", ["done", "cancelled", "closed"])
def test_an_installation_stops_its_engine_first_and_looks_again_after(managed, qtbot, qgis_app, monkeypatch, end):
    monkeypatch.setattr(install_box, "Installer", ScriptedInstaller)
    client = EngineClient(Settings())
    client.start()
    qtbot.waitUntil(lambda: client.state == "ready", timeout=30000)
    pid, alive_at_start = client.pid, []
    monkeypatch.setattr(ScriptedInstaller, "start", lambda _installer: alive_at_start.append(alive(pid)))
    dialog = EngineDialog(Settings(), client)
    qtbot.addWidget(dialog)
    dialog.show_install()
    dialog.install_box.start()
    installer = dialog.install_box._installer
    assert not alive_at_start and client.state == "none"
    if end == "cancelled":
        dialog.install_box.cancel()
        assert not dialog.install_box.running() and client.state == "idle"
    elif end == "closed":
        dialog.reject()
        assert client.state == "idle"
    else:
        qtbot.waitUntil(lambda: alive_at_start == [False], timeout=5000)
        installer.done.emit()
        qtbot.waitUntil(lambda: client.state == "ready", timeout=30000)
    qtbot.waitUntil(lambda: not alive(pid), timeout=5000)
    assert end == "done" or not alive_at_start
    client.stop()


def test_the_engine_of_processing_makes_room_too(dialog, qtbot, engine_python):
    settings, ends = Settings(), []
    settings.engine_command = engine_python
    errand = shared.submit(settings, "ping", {})
    qtbot.waitUntil(lambda: bool(shared.pids()), timeout=10000)
    pid = shared.pids()[0]
    release(dialog._client, lambda: ends.append(alive(pid)))
    assert not ends  # it did not wait for the end of the process
    qtbot.waitUntil(lambda: ends == [False], timeout=10000)
    assert not shared.serves(errand) or not errand.heard.empty()


@pytest.mark.parametrize("mode", ["auto", "managed", "command", "address"])
def test_each_way_shows_its_own_fields_and_is_kept(dialog, client, mode):
    dialog.radios[mode].click()
    shown = [name for name, part in dialog._parts.items() if part.isVisible()]
    assert dialog.mode() == mode and shown == [mode]
    dialog.command.setFilePath("/opt/engine/bin/python3")
    dialog.address.setText("http://gpu:8765")
    dialog.accept()
    settings = Settings()
    assert settings.engine_mode == mode
    assert settings.engine_command == "/opt/engine/bin/python3" and settings.engine_address == "http://gpu:8765"


def test_cancel_keeps_the_settings(dialog):
    dialog.radios["address"].click()
    dialog.address.setText("http://127.0.0.1:1")
    dialog.check_address_button.click()
    assert Settings().engine_mode == "address"
    dialog.reject()
    assert Settings().engine_mode == "auto" and Settings().engine_address == ""


def test_dialog_fits_a_small_screen(dialog, qtbot):
    for mode in dialog.radios:
        dialog.set_mode(mode)
        QApplication.processEvents()
        assert dialog.sizeHint().height() <= 580
        assert dialog.sizeHint().width() <= 1000


def test_a_wrong_command_is_told_at_once(dialog):
    dialog.set_mode("command")
    dialog.command.setFilePath("/no/such/python3")
    dialog.check_command_button.click()
    assert "/no/such/python3" in dialog.status.text()


def test_check_starts_the_real_engine(dialog, client, qtbot, engine_python):
    dialog.set_mode("command")
    dialog.command.setFilePath(engine_python)
    dialog.check_command_button.click()
    qtbot.waitUntil(lambda: client.state == "ready", timeout=30000)
    assert "ready" in dialog.status.text() and "0.1.0" in dialog.status.text()


def test_install_shows_size_and_folder_before_anything_happens(dialog):
    dialog.show_install()
    box = dialog.install_box
    assert "Download: about" in box.summary.text() and "are free" in box.summary.text()
    assert "engine-0.1.0" in box.folder.text()
    small = box.summary.text()
    box.device.setCurrentIndex(1)
    assert box.summary.text() != small


def test_an_installation_is_followed_and_cancelled(dialog, monkeypatch, qtbot):
    monkeypatch.setattr(install_box, "Installer", ScriptedInstaller)
    dialog.show_install()
    box = dialog.install_box
    box.install_button.setEnabled(True)
    box.install_button.click()
    assert box.running() and box.stage.text() == "Installing PyTorch" and box.bar.value() == 400
    assert box.log.toPlainText() == "Downloading torch"
    assert box.install_button.text() == "Cancel Installation"
    dialog.accept()
    assert dialog.isVisible()
    box.install_button.click()
    assert not box.running() and "Install again" in box.stage.text()


def test_after_an_installation_the_engine_is_tried(dialog, monkeypatch, qtbot):
    monkeypatch.setattr(install_box, "Installer", ScriptedInstaller)
    dialog.show_install()
    dialog.install_box.start()
    with qtbot.waitSignal(dialog.install_box.finished):
        dialog.install_box._installer.done.emit()
    assert not dialog.install_box.running() and Settings().engine_mode == "managed"


def test_environment_variable_is_shown(qtbot, client, monkeypatch):
    monkeypatch.setenv("GEOALIGN_PYTHON", "/opt/gpu/bin/python3")
    dialog = EngineDialog(Settings(), client)
    qtbot.addWidget(dialog)
    assert "/opt/gpu/bin/python3" in dialog.auto_note.text()


def test_report_goes_to_the_clipboard(dialog, qtbot):
    QApplication.clipboard().clear()
    qtbot.mouseClick(dialog.report_button, Qt.MouseButton.LeftButton)
    assert "QGIS" in QApplication.clipboard().text()
