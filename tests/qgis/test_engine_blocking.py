"""The engine as Processing uses it: in a background task and in the main thread."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from qgis.core import QgsApplication, QgsProcessingFeedback, QgsTask

from qgis_plugin.engine import shared as module
from qgis_plugin.engine.blocking import BlockingEngine, EngineFailure
from qgis_plugin.engine.client import EngineClient
from qgis_plugin.engine.release import release
from qgis_plugin.engine.shared import shared
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
    yield settings
    shared.stop()
    assert not shared.pids()


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
    assert heard.infos == ["Reading the image", "a note"] * 2
    assert 80 in [round(part) for part in heard.parts]
    assert heard.parts[-1] == 100


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def ask(settings) -> dict:
    with BlockingEngine(settings) as engine:
        return engine.call("ask", {"query": "a"})


def test_the_main_thread_works_too_and_the_engine_stays_warm(qtbot, settings):
    pids = [ask(settings)["pid"], in_task(qtbot, lambda: ask(settings)).value["pid"], ask(settings)["pid"]]
    assert len(set(pids)) == 1
    assert shared.pids() == [pids[0]]
    shared.stop()
    assert not runs(pids[0])
    assert ask(settings)["pid"] != pids[0]


def test_two_at_once_get_their_own_answers(qtbot, settings, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "0.5")
    answers = {}

    def work(text):
        with BlockingEngine(settings) as engine:
            answers[text] = engine.call("ask", {"query": text})

    threads = [threading.Thread(target=work, args=(text,)) for text in "abc"]
    for thread in threads:
        thread.start()
    qtbot.waitUntil(lambda: not any(thread.is_alive() for thread in threads), timeout=15000)
    assert {text: answer["query"] for text, answer in answers.items()} == {"a": "a", "b": "b", "c": "c"}
    assert len({answer["pid"] for answer in answers.values()}) == 1


def test_cancelling_one_leaves_the_other(qtbot, settings, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "1")
    heard = Heard()
    heard.progressChanged.connect(lambda part: heard.cancel())
    codes, answers = [], []

    def cancelled():
        with BlockingEngine(settings) as engine, pytest.raises(EngineFailure) as raised:
            engine.call("ask", {}, heard)
        codes.append(raised.value.error.code)

    threads = [threading.Thread(target=cancelled), threading.Thread(target=lambda: answers.append(ask(settings)))]
    for thread in threads:
        thread.start()
    qtbot.waitUntil(lambda: not any(thread.is_alive() for thread in threads), timeout=15000)
    assert codes == ["cancelled"]
    assert answers[0]["query"] == "a"


def test_without_work_the_engine_ends(qtbot, settings, monkeypatch):
    monkeypatch.setattr(module, "IDLE_MS", 200)
    with BlockingEngine(settings) as engine:
        pid = engine.call("ask", {})["pid"]
        qtbot.wait(600)
        assert runs(pid), "the block is not left yet"
    qtbot.waitUntil(lambda: not runs(pid), timeout=5000)


def test_other_settings_lead_to_another_engine(qtbot, settings, tmp_path):
    first = ask(settings)["pid"]
    settings.engine_command = shutil.copy(settings.engine_command, tmp_path / "geoalign2")
    second = ask(settings)["pid"]
    assert shared.pids() == [second]
    assert not runs(first)


def test_stopping_ends_who_waits(qtbot, settings, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "20")
    heard = Heard()
    heard.progressChanged.connect(lambda part: shared.stop())

    def work():
        with BlockingEngine(settings) as engine:
            return engine.call("ask", {}, heard)

    assert in_task(qtbot, work).error.code == "cancelled"


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
    with BlockingEngine(settings) as engine, pytest.raises(EngineFailure):
        engine.call("ask", {}, heard)
    assert not shared.pids()


@pytest.mark.parametrize(
    ("mode", "code"), [("crash", "engine_stopped"), ("disk-full", "disk_full"), ("wrong", "wrong_version")]
)
def test_failures_are_raised(qtbot, settings, monkeypatch, mode, code):
    monkeypatch.setenv("FAKE_ENGINE", mode)

    def work():
        with BlockingEngine(settings) as engine:
            return engine.call("ask", {})

    assert in_task(qtbot, work).error.code == code


def test_an_engine_that_cannot_even_be_made_ends_the_call(qtbot, settings, monkeypatch):
    def broken(*_):
        raise RuntimeError("no room for a client")

    monkeypatch.setattr(module, "EngineClient", broken)
    assert "no room" in in_task(qtbot, lambda: ask(settings)).error.message


def test_release_waits_for_an_engine_that_is_about_to_start(qtbot, settings):
    client, awake = EngineClient(settings), []
    shared.submit(settings, "ping", {})
    release(client, lambda: awake.append(shared.awake()))
    qtbot.waitUntil(lambda: bool(awake), timeout=10000)
    assert awake == [False]


def test_no_engine_is_one_sentence(qtbot, settings):
    settings.engine_mode, settings.engine_command = "command", "/nowhere/geoalign"
    with BlockingEngine(settings) as engine, pytest.raises(EngineFailure, match="/nowhere/geoalign"):
        engine.call("status", {})
