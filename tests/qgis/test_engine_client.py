"""The engine client in real QGIS, against an engine that does what it is told to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from qgis.core import QgsSettings

from qgis_plugin.engine import client as client_module
from qgis_plugin.engine.client import EngineClient
from qgis_plugin.settings import Settings

FAKE = Path(__file__).with_name("fake_engine.py")
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def command(tmp_path) -> str:
    """An executable that starts the scripted engine."""
    script = tmp_path / "geoalign"
    script.write_text(f'#!/bin/sh\nexec "{shutil.which("python3", path="/usr/bin")}" "{FAKE}" "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def make(command, monkeypatch, tmp_path):
    """Makes clients of an engine in the given mode."""
    clients = []

    def build(mode: str = "ok", **environ: str) -> EngineClient:
        monkeypatch.setenv("FAKE_ENGINE", mode)
        monkeypatch.setenv("FAKE_MARKER", str(tmp_path / "once"))
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        settings = Settings()
        settings.engine_command = command
        client = EngineClient(settings)
        client.states = [client.state]
        client.stateChanged.connect(client.states.append)
        clients.append(client)
        return client

    yield build
    for client in clients:
        client.stop()


class Outcome:
    """Collects what a request emits."""

    def __init__(self, request):
        self.results, self.errors, self.progress, self.partials, self.notes = [], [], [], [], []
        request.finished.connect(self.results.append)
        request.failed.connect(self.errors.append)
        request.progress.connect(self.progress.append)
        request.partial.connect(self.partials.append)
        request.note.connect(self.notes.append)

    @property
    def over(self) -> bool:
        return bool(self.results or self.errors)


def ended(qtbot, request, seconds: float = 15) -> Outcome:
    outcome = Outcome(request)
    qtbot.waitUntil(lambda: outcome.over, timeout=int(seconds * 1000))
    qtbot.wait(50)
    assert len(outcome.results) + len(outcome.errors) == 1
    return outcome


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"


def gone(pid: int, seconds: float = 3) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def test_a_request_starts_the_engine_and_is_answered(qtbot, make):
    client = make(FAKE_RESULT='{"counts": {"50": 3}}')
    assert client.state == "idle"
    request = client.request("ask", {"query": "Straße 道"})
    outcome = Outcome(request)
    assert client.state == "idle"
    assert not outcome.over
    qtbot.waitUntil(lambda: outcome.over)
    assert outcome.results[0]["query"] == "Straße 道"
    assert outcome.results[0]["counts"] == {"50": 3}
    assert outcome.partials == [{"counts": {"50": 3}}]
    assert outcome.notes == ["a note"]
    assert [round(progress.fraction, 1) for progress in outcome.progress] == [0, 0.2, 0.4, 0.6, 0.8]
    assert outcome.progress[0].eta_s == 5
    assert client.states == ["idle", "starting", "ready", "busy", "ready"]


def test_the_engine_stays_warm(qtbot, make):
    client = make()
    first = ended(qtbot, client.request("ask", {"query": "a"})).results[0]["pid"]
    assert ended(qtbot, client.request("ask", {"query": "b"})).results[0]["pid"] == first == client.pid


def test_many_requests_are_answered_each(qtbot, make):
    client = make()
    outcomes = [Outcome(client.request("ask", {"query": str(k)})) for k in range(5)]
    qtbot.waitUntil(lambda: all(outcome.over for outcome in outcomes))
    assert [outcome.results[0]["query"] for outcome in outcomes] == list("01234")


def test_no_engine(qtbot, make, tmp_path):
    client = make()
    settings = Settings()
    settings.engine_mode, settings.engine_command = "command", str(tmp_path / "nothing")
    client.configure(settings)
    assert client.state == "none"
    assert not client.available()
    assert "nothing" in client.problem.message
    error = ended(qtbot, client.request("ping", {})).errors[0]
    assert error.code == "no_engine"


def test_the_device_is_known_after_a_status(qtbot, make):
    client = make()
    ended(qtbot, client.request("status", {}))
    assert client.device_title == "NVIDIA Fake"
    client.configure()
    settings = Settings()
    settings.device = "cpu"
    ended(qtbot, client.request("status", {}))
    assert client.device_title == "CPU"


def test_a_crash_is_mended_once_and_the_question_asked_again(qtbot, make):
    client = make("crash-once")
    outcome = ended(qtbot, client.request("ask", {"query": "cars"}))
    assert outcome.results[0]["query"] == "cars"
    assert client.states == ["idle", "starting", "ready", "busy", "idle", "starting", "ready", "busy", "ready"]


def test_the_second_crash_is_told_with_the_last_lines(qtbot, make):
    client = make("crash")
    error = ended(qtbot, client.request("ask", {"query": "cars"})).errors[0]
    assert error.code == "engine_stopped"
    assert "the sky is falling" in error.details
    assert client.state == "stopped"
    assert client.problem == error
    assert "the sky is falling" in client.log.path.read_text()


def test_a_stopped_engine_can_be_started_again(qtbot, make, monkeypatch):
    client = make("crash")
    ended(qtbot, client.request("ask", {}))
    monkeypatch.setenv("FAKE_ENGINE", "ok")
    client.restart()
    qtbot.waitUntil(lambda: client.state == "ready")
    assert client.problem is None
    assert ended(qtbot, client.request("ask", {})).results


def test_killed_in_the_middle_of_a_line_means_memory(qtbot, make):
    error = ended(qtbot, make("half").request("ask", {})).errors[0]
    assert error.code == "engine_stopped"
    assert "out of memory" in error.message


def test_killed_while_idle_is_no_drama(qtbot, make):
    client = make()
    ended(qtbot, client.request("ask", {}))
    os.kill(client.pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: client.state == "idle")
    assert "out of memory" in client.problem.message
    assert ended(qtbot, client.request("ask", {})).results


def test_an_engine_that_ends_on_start(qtbot, make):
    client = make("exit")
    error = ended(qtbot, client.request("ask", {})).errors[0]
    assert error.code == "engine_stopped"
    assert "code 3" in error.message
    assert "libnothing" in error.details
    assert client.state == "stopped"


def test_a_program_that_cannot_be_started(qtbot, make, command):
    client = make()
    Path(command).write_bytes(b"\x7fELF nonsense")
    error = ended(qtbot, client.request("ask", {})).errors[0]
    assert error.code == "engine_stopped"
    assert "could not be started" in error.message
    assert client.state == "stopped"


def test_an_engine_without_a_hello(qtbot, make, monkeypatch):
    monkeypatch.setattr(client_module, "HELLO_S", 1.0)
    client = make("mute")
    error = ended(qtbot, client.request("ask", {})).errors[0]
    assert "did not answer" in error.message
    assert client.state == "stopped"


def test_another_protocol(qtbot, make):
    client = make("wrong")
    error = ended(qtbot, client.request("ask", {})).errors[0]
    assert error.code == "wrong_version"
    assert client.state == "wrong"
    assert client.problem == error


def test_silence_is_seen_and_ends_with_the_next_word(qtbot, make, monkeypatch):
    monkeypatch.setattr(client_module, "SILENCE_S", 0.5)
    client = make("silent", FAKE_SECONDS="6")
    outcome = ended(qtbot, client.request("ask", {}))
    assert outcome.results
    assert "silent" in client.states
    first = client.states.index("silent")
    assert client.states[first + 1] == "busy"


def test_heartbeats_keep_a_slow_engine_from_looking_silent(qtbot, make, monkeypatch):
    monkeypatch.setattr(client_module, "SILENCE_S", 3.0)
    client = make("slow", FAKE_SECONDS="20")
    request = client.request("ask", {})
    qtbot.waitUntil(lambda: client.state == "busy")
    qtbot.wait(4000)
    assert client.state == "busy"
    request.cancel()
    assert ended(qtbot, request).errors[0].code == "cancelled"


def test_cancel_is_quick_and_the_engine_stays(qtbot, make):
    client = make("slow", FAKE_SECONDS="30")
    request = client.request("ask", {})
    qtbot.waitUntil(lambda: client.state == "busy")
    qtbot.wait(200)
    pid = client.pid
    request.cancel()
    request.cancel()
    assert ended(qtbot, request).errors[0].code == "cancelled"
    assert client.state == "ready"
    assert client.pid == pid


def test_cancel_before_it_was_sent(qtbot, make):
    client = make()
    request = client.request("ask", {})
    request.cancel()
    assert ended(qtbot, request).errors[0].code == "cancelled"


def test_an_engine_deaf_to_cancel_is_replaced_and_others_are_answered(qtbot, make, monkeypatch):
    monkeypatch.setattr(client_module, "CANCEL_MS", 300)
    client = make("deaf", FAKE_SECONDS="3")
    request = client.request("ask", {"query": "a"})
    other = Outcome(client.request("ask", {"query": "b"}))
    qtbot.waitUntil(lambda: client.state == "busy")
    pid = client.pid
    request.cancel()
    assert ended(qtbot, request).errors[0].code == "cancelled"
    qtbot.waitUntil(lambda: other.over, timeout=15000)
    assert other.results[0]["query"] == "b"
    assert gone(pid)


def test_an_engine_deaf_to_two_cancellations_is_not_asked_again(qtbot, make, monkeypatch):
    monkeypatch.setattr(client_module, "CANCEL_MS", 300)
    client = make("deaf", FAKE_SECONDS="3")
    outcomes = [Outcome(client.request("ask", {"query": query})) for query in "ab"]
    requests = list(client._queue)
    qtbot.waitUntil(lambda: client.state == "busy")
    for request in requests:
        request.cancel()
    qtbot.waitUntil(lambda: all(outcome.over for outcome in outcomes), timeout=15000)
    assert [outcome.errors[0].code for outcome in outcomes] == ["cancelled"] * 2
    assert client.states.count("starting") == 1
    assert client.state == "idle" and client.has_run


def test_a_crash_after_cancel_is_not_tried_again(qtbot, make):
    client = make("deaf,crash", FAKE_SECONDS="1")
    request = client.request("ask", {})
    qtbot.waitUntil(lambda: client.state == "busy")
    request.cancel()
    assert ended(qtbot, request).errors[0].code == "cancelled"
    assert client.state == "idle"
    assert client.states.count("starting") == 1


def test_garbage_between_the_lines(qtbot, make):
    client = make("garbage")
    assert ended(qtbot, client.request("ask", {})).results
    assert client.garbage == 5


def test_wrong_shapes(qtbot, make):
    outcome = ended(qtbot, make("bad-shapes").request("ask", {}))
    assert outcome.errors[0].code == "internal"
    assert outcome.progress[0].fraction is None
    assert not outcome.partials


def test_a_line_of_20_mb_is_dropped(qtbot, make):
    client = make("huge")
    error = ended(qtbot, client.request("ask", {})).errors[0]
    assert error.code == "line_too_long"
    assert client.state == "ready"
    assert ended(qtbot, client.request("ping", {})).results == [{}]


def test_a_request_that_is_too_long(qtbot, make):
    client = make()
    assert ended(qtbot, client.request("ask", {"query": "x" * 2_000_000})).errors[0].code == "bad_request"
    assert ended(qtbot, client.request("ask", {"query": float("nan")})).errors[0].code == "bad_request"
    assert client.state == "idle"


def test_an_error_of_the_engine_arrives_as_it_is(qtbot, make):
    error = ended(qtbot, make("disk-full").request("ask", {})).errors[0]
    assert (error.code, error.message, error.remedy) == ("disk_full", "The disk is full.", "Free some space.")
    assert error.retryable


def test_a_flood_of_errors_does_not_block_nor_fill_the_disk(qtbot, make):
    client = make("flood")
    assert ended(qtbot, client.request("ask", {}), 30).results
    assert client.log.path.stat().st_size <= 1_100_000


def test_stop_leaves_no_process(qtbot, make):
    client = make()
    ended(qtbot, client.request("ask", {}))
    pid, start = client.pid, time.monotonic()
    client.stop()
    assert time.monotonic() - start < 3
    assert not alive(pid)
    assert client.state == "idle"


def test_stop_ends_a_stubborn_engine_in_the_middle_of_a_request(qtbot, make):
    client = make("stubborn,slow", FAKE_SECONDS="60")
    outcome = Outcome(client.request("ask", {}))
    qtbot.waitUntil(lambda: client.state == "busy")
    pid, start = client.pid, time.monotonic()
    client.stop()
    assert time.monotonic() - start < 3
    assert gone(pid)
    assert [error.code for error in outcome.errors] == ["cancelled"]


def test_configure_does_not_wait_for_the_old_engine(qtbot, make):
    client = make("stubborn")
    ended(qtbot, client.request("ask", {}))
    pid = client.pid
    client.configure()
    assert alive(pid)
    qtbot.waitUntil(lambda: not alive(pid), timeout=4000)


@pytest.mark.parametrize("mode", ["ok", "stubborn"])
def test_a_dismissed_engine_is_gone_when_told_so(qtbot, make, mode):
    client, gone_pids = make(mode), []
    ended(qtbot, client.request("ask", {}))
    pid = client.pid
    client.dismiss(lambda: gone_pids.append(alive(pid)))
    assert client.state == "none" and not client.available() and not gone_pids
    qtbot.waitUntil(lambda: gone_pids == [False], timeout=4000)
    client.configure()
    assert client.state == "idle"


def test_nothing_to_dismiss(qtbot, make):
    client, told = make(), []
    client.dismiss(lambda: told.append(1))
    qtbot.waitUntil(lambda: told == [1], timeout=1000)


def test_a_dismissed_engine_comes_back_with_the_next_request(qtbot, make):
    client = make()
    client.dismiss(lambda: None)
    assert not client.available()
    assert ended(qtbot, client.request("ask", {})).results


def test_a_locked_cache_is_told_in_one_sentence(qtbot, make, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEOALIGN_CACHE", str(tmp_path / "file" / "cache"))
    error = ended(qtbot, make().request("ask", {})).errors[0]
    assert error.code == "engine_stopped" and str(tmp_path / "file") in error.message


def test_two_clients_at_once(qtbot, make):
    one, two = make(), make()
    outcomes = [Outcome(client.request("ask", {})) for client in (one, two)]
    qtbot.waitUntil(lambda: all(outcome.over for outcome in outcomes))
    assert outcomes[0].results[0]["pid"] != outcomes[1].results[0]["pid"]


def test_the_child_gets_a_clean_environment(qtbot, make, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere/of/qgis")
    monkeypatch.setenv("PROJ_LIB", "/somewhere/of/qgis")
    environ = ended(qtbot, make().request("describe", {})).results[0]["environ"]
    assert "PYTHONPATH" not in environ
    assert "PROJ_LIB" not in environ
    assert environ["PYTHONSAFEPATH"] == "1"


OWNER = """
import sys
sys.path.insert(0, {repo!r})
from qgis.PyQt.QtCore import QCoreApplication, QTimer
from qgis.core import QgsApplication
application = QgsApplication([], False)
from qgis_plugin.engine.client import EngineClient
from qgis_plugin.settings import Settings
settings = Settings()
settings.engine_command = {command!r}
client = EngineClient(settings)
client.stateChanged.connect(lambda state: state == "busy" and (print(client.pid, flush=True), {then}))
client.request("ask", {{}})
application.exec()
"""


@pytest.mark.parametrize("then", ["None", "QTimer.singleShot(0, application.quit)"])
def test_no_orphan_when_qgis_is_killed_or_quits(command, tmp_path, then):
    environ = {
        **os.environ, "FAKE_ENGINE": "slow", "FAKE_SECONDS": "60", "QT_QPA_PLATFORM": "offscreen",
        "QGIS_CUSTOM_CONFIG_PATH": str(tmp_path / "profile"),
    }  # fmt: skip
    code = OWNER.format(repo=str(REPO), command=command, then=then)
    qgis = subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True)
    pid = int(qgis.stdout.readline())
    if then == "None":
        assert alive(pid)
        qgis.kill()
    qgis.wait(10)
    assert gone(pid)


@pytest.mark.engine
def test_the_real_engine(qtbot, engine_python, sample, tmp_path):
    settings = Settings()
    settings.engine_command = engine_python
    client = EngineClient(settings)
    try:
        start = time.monotonic()
        client.start()
        qtbot.waitUntil(lambda: client.state == "ready", timeout=20000)
        assert time.monotonic() - start < 5
        args = {"source": {"path": str(sample)}, "query": "water", "out": str(tmp_path), "stem": "w"}
        outcome = ended(qtbot, client.request("ask", args), 180)
        assert outcome.errors == []
        assert Path(outcome.results[0]["files"]["heatmap"]).is_file()
        pid = client.pid
        client.stop()
        assert gone(pid)
    finally:
        client.stop()
        QgsSettings().remove("geoalign")
