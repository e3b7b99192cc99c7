"""The engine as Processing uses it: in a background task and in the main thread."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from qgis.core import QgsApplication, QgsProcessingFeedback, QgsTask

from qgis_plugin.engine.blocking import BlockingEngine, EngineFailure
from qgis_plugin.settings import Settings

FAKE = Path(__file__).with_name("fake_engine.py")


class Heard(QgsProcessingFeedback):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__(False)
        self.infos, self.parts = [], []
        self.progressChanged.connect(self.parts.append)

    def pushInfo(self, info):  # noqa: N802 - QGIS's name
        self.infos.append(info)


class Job(QgsTask):
    """Runs a function in a task's thread."""

    def __init__(self, function):
        super().__init__("job", QgsTask.Flag.CanCancel)
        self.function, self.value, self.error, self.thread = function, None, None, None

    def run(self):
        self.thread = threading.current_thread()
        try:
            self.value = self.function()
        except EngineFailure as failure:
            self.error = failure.error
        return True


@pytest.fixture
def settings(tmp_path, monkeypatch):
    script = tmp_path / "geoalign"
    script.write_text(f'#!/bin/sh\nexec "{shutil.which("python3", path="/usr/bin")}" "{FAKE}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("FAKE_ENGINE", "ok")
    settings = Settings()
    settings.engine_command = str(script)
    return settings


def in_task(qtbot, function) -> Job:
    job = Job(function)
    with qtbot.waitSignal(job.taskCompleted, timeout=20000):
        QgsApplication.taskManager().addTask(job)
    assert job.thread is not threading.main_thread()
    return job


def test_a_task_gets_its_answer_with_progress_and_notes(qtbot, settings):
    heard = Heard()

    def work():
        with BlockingEngine(settings) as engine:
            return [engine.call("ask", {"query": text}, heard)["query"] for text in ("a", "b")]

    assert in_task(qtbot, work).value == ["a", "b"]
    assert heard.infos == ["embedding", "a note"] * 2
    assert 80 in [round(part) for part in heard.parts]


def test_the_main_thread_works_too(qtbot, settings):
    with BlockingEngine(settings) as engine:
        assert engine.call("ask", {"query": "a"})["query"] == "a"
        pid = engine.client.pid
    assert not Path(f"/proc/{pid}").exists()


def test_cancel_in_a_task(qtbot, settings, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "5")
    heard = Heard()
    heard.progressChanged.connect(lambda part: heard.cancel())

    def work():
        with BlockingEngine(settings) as engine:
            return engine.call("ask", {}, heard)

    assert in_task(qtbot, work).error.code == "cancelled"


def test_a_cancelled_feedback_starts_nothing(qtbot, settings):
    heard = Heard()
    heard.cancel()
    with BlockingEngine(settings) as engine:
        with pytest.raises(EngineFailure):
            engine.call("ask", {}, heard)
        assert engine.client.pid == 0


@pytest.mark.parametrize(
    ("mode", "code"), [("crash", "engine_stopped"), ("disk-full", "disk_full"), ("wrong", "wrong_version")]
)
def test_failures_are_raised(qtbot, settings, monkeypatch, mode, code):
    monkeypatch.setenv("FAKE_ENGINE", mode)

    def work():
        with BlockingEngine(settings) as engine:
            return engine.call("ask", {})

    assert in_task(qtbot, work).error.code == code


def test_no_engine_is_one_sentence(qtbot, settings):
    settings.engine_mode, settings.engine_command = "command", "/nowhere/geoalign"
    with BlockingEngine(settings) as engine, pytest.raises(EngineFailure, match="/nowhere/geoalign"):
        engine.call("status", {})
