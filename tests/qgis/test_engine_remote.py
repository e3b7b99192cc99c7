"""The engine at an address: sign-in, files there and back, cancelling, and a server that goes away."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from qgis.core import QgsApplication, QgsAuthMethodConfig, QgsRasterLayer, QgsVectorLayer

from qgis_plugin.engine.blocking import BlockingEngine
from qgis_plugin.engine.client import EngineClient
from qgis_plugin.engine.command import check_address
from qgis_plugin.gui import cards
from qgis_plugin.settings import Settings
from tests.qgis.test_engine_client import Outcome, ended

ANSWER = "/v1/files/answer-0001/cars.tif"


class Handler(BaseHTTPRequestHandler):
    """A small engine over HTTP; the server object holds what it does and what it saw."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status: int, body: bytes = b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def refused(self) -> bool:
        token = self.server.token
        given = base64.b64encode(f"qgis:{token}".encode()).decode()
        if not token or self.headers.get("Authorization") == f"Basic {given}":
            return False
        self.reply(401, b'{"v":1,"id":0,"type":"error","code":"unauthorized","message":"No."}\n')
        return True

    def do_GET(self):
        self.server.gets.append(self.path)
        if self.refused():
            return
        if self.path == "/v1/hello":
            hello = {"v": 1, "id": 0, "type": "hello", "protocol": [1, 1], "engine": "0.1.0"}
            self.reply(200, json.dumps(hello).encode() + b"\n")
        elif self.path == ANSWER:
            self.reply(200, b"tif" * 1000)
        else:
            self.reply(404, b"")

    def do_HEAD(self):
        self.server.heads.append(self.path)
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path
        if path.endswith(".xml"):
            self.reply(400, b'{"v":1,"id":0,"type":"error","code":"bad_request","message":"No raster."}')
            return
        self.server.files[path] = body
        self.reply(201, json.dumps({"path": path}).encode())

    def do_POST(self):
        if self.refused():
            return
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.messages.append(message)
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.server.drop > 0:
            self.server.drop -= 1
            self.close_connection = True
            return
        try:
            self.answer(message)
        except OSError:
            self.server.cancelled.append(message["id"])
        self.close_connection = True

    def say(self, id_, kind, **fields):
        self.wfile.write(json.dumps({"v": 1, "id": id_, "type": kind, **fields}).encode() + b"\n")
        self.wfile.flush()

    def answer(self, message):
        id_, path = message["id"], message["args"].get("source", {}).get("path")
        if path is not None and path not in self.server.files and not self.server.sees:
            self.say(id_, "error", code="raster", message="There is no such file.")
            return
        for k in range(int(self.server.seconds * 20)):
            self.say(id_, "progress", stage="embedding", done=k, total=100, eta_s=None)
            time.sleep(0.05)
        files = {"heatmap": ANSWER, "regions": None} if not self.server.sees else {"heatmap": "/here/cars.tif"}
        self.say(id_, "partial", result={"files": files})
        self.say(id_, "result", result={"files": files})


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.token, server.seconds, server.sees, server.drop = "", 0.2, False, 0
    server.messages, server.gets, server.heads, server.files, server.cancelled = [], [], [], {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(server):
    client = EngineClient(at(server))
    yield client
    client.stop()


def at(server) -> Settings:
    settings = Settings()
    settings.engine_mode, settings.engine_address = "address", f"http://127.0.0.1:{server.server_port}/"
    return settings


def arguments(sample: Path, out: Path) -> dict:
    return {"source": {"path": str(sample)}, "query": "cars", "out": str(out), "stem": "cars"}


def test_an_engine_on_this_machine_gets_the_path(qtbot, server, client, sample, tmp_path):
    server.sees = True
    outcome = ended(qtbot, client.request("ask", arguments(sample, tmp_path)))
    assert outcome.results == [{"files": {"heatmap": "/here/cars.tif"}}]
    assert not server.heads
    assert client.state == "ready"


def test_a_file_it_cannot_see_is_sent_once_and_results_come_back(qtbot, server, client, sample, tmp_path):
    sample.with_suffix(".tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    out = tmp_path / "results"
    outcome = ended(qtbot, client.request("ask", arguments(sample, out)))
    assert outcome.errors == []
    assert outcome.results[0]["files"] == {"heatmap": str(out / "cars.tif"), "regions": None}
    assert outcome.partials == outcome.results
    assert (out / "cars.tif").read_bytes() == b"tif" * 1000
    assert [path.name for path in out.iterdir()] == ["cars.tif"]
    assert "uploading" in [progress.stage for progress in outcome.progress]
    assert {Path(path).name: len(body) for path, body in server.files.items()} == {
        "canal.tif": sample.stat().st_size, "canal.tfw": 13,
    }  # fmt: skip
    ended(qtbot, client.request("ask", arguments(sample, out)))
    assert len(server.heads) == 2


def test_a_changed_file_is_sent_again(qtbot, server, client, sample, tmp_path):
    ended(qtbot, client.request("ask", arguments(sample, tmp_path / "out")))
    sample.write_bytes(sample.read_bytes() + b"x")
    ended(qtbot, client.request("ask", arguments(sample, tmp_path / "out")))
    assert sorted(len(body) for body in server.files.values()) == [sample.stat().st_size - 1, sample.stat().st_size]


def test_a_file_of_the_wrong_kind_beside_the_image_does_no_harm(qtbot, server, client, sample, tmp_path):
    Path(f"{sample}.aux.xml").write_text("<x/>")
    assert ended(qtbot, client.request("ask", arguments(sample, tmp_path / "out"))).errors == []


def test_cancel_closes_the_connection(qtbot, server, client, sample, tmp_path):
    server.sees, server.seconds = True, 30
    request = client.request("ask", arguments(sample, tmp_path))
    outcome = Outcome(request)
    qtbot.waitUntil(lambda: len(outcome.progress) > 2)
    request.cancel()
    qtbot.waitUntil(lambda: outcome.over)
    assert outcome.errors[0].code == "cancelled"
    qtbot.waitUntil(lambda: server.cancelled == [request.id])
    assert client.state == "ready"


def test_a_broken_connection_is_tried_once_more(qtbot, server, client, sample, tmp_path):
    server.sees, server.drop = True, 1
    assert ended(qtbot, client.request("ask", arguments(sample, tmp_path))).results
    server.drop = 2
    error = ended(qtbot, client.request("ask", arguments(sample, tmp_path))).errors[0]
    assert error.code == "unreachable"
    assert client.state == "stopped"


def test_nobody_there(qtbot):
    settings = Settings()
    settings.engine_mode, settings.engine_address = "address", "127.0.0.1:9"
    client = EngineClient(settings)
    error = ended(qtbot, client.request("ping", {})).errors[0]
    assert error.code == "unreachable"
    assert "127.0.0.1:9" in error.message
    client.stop()


@pytest.mark.parametrize(
    "address", ["", "ftp://x", "http://", "not an address", "http://h:port", "http://[", "http://h:99999"]
)
def test_no_address(qtbot, address):
    settings = Settings()
    settings.engine_mode, settings.engine_address = "address", address
    client = EngineClient(settings)
    assert client.state == "none"
    assert "Write it like http://" in client.problem.remedy
    card = cards.engine_view(client, settings).card
    assert card.title == client.problem.message.rstrip(".")
    assert [action.key for action in card.actions][-1] == "engine_settings"


@pytest.mark.parametrize("address", ["gpu:8765", "https://gpu.corp/engine/", "10.0.0.7", "http://[::1]:8765", "ä.de"])
def test_addresses(address):
    assert check_address(address).kind == "address"


def test_a_sign_in_that_is_gone_is_told_and_nothing_goes_out_unsigned(qtbot, server):
    settings = at(server)
    settings.authcfg = "gone123"
    client = EngineClient(settings)
    error = ended(qtbot, client.request("ping", {})).errors[0]
    assert error.code == "unauthorized" and "gone123" in error.message
    assert not server.gets and not server.messages
    client.stop()


def test_a_result_that_cannot_be_put_in_place_ends_the_job_once(qtbot, server, client, sample, tmp_path, monkeypatch):
    out = tmp_path / "out"
    outcome = ended(qtbot, client.request("ask", arguments(sample, out)))
    name = Path(outcome.results[0]["files"]["heatmap"])
    name.unlink()
    name.mkdir()  # a folder is in the way
    fetched = server.gets.count(ANSWER)
    outcome = ended(qtbot, client.request("ask", arguments(sample, out)))
    assert [error.code for error in outcome.errors] == ["output"] and not outcome.results
    assert server.gets.count(ANSWER) == fetched + 1 and not list(out.glob("*.part"))


@pytest.fixture
def sign_in():
    manager = QgsApplication.authManager()
    if manager.isDisabled() or not manager.setMasterPassword("master", True):
        pytest.skip("QGIS's authentication is off here")
    made = []

    def store(token: str) -> str:
        config = QgsAuthMethodConfig("Basic")
        config.setName("engine")
        config.setConfig("username", "qgis")
        config.setConfig("password", token)
        answer = manager.storeAuthenticationConfig(config)
        made.append((answer[1] if isinstance(answer, tuple) else config).id())
        return made[-1]

    yield store
    for id_ in made:
        manager.removeAuthenticationConfig(id_)


def test_sign_in_through_qgis(qtbot, server, sign_in):
    server.token, server.sees = "word", True
    settings = at(server)
    client = EngineClient(settings)
    error = ended(qtbot, client.request("ask", {})).errors[0]
    assert error.code == "unauthorized"
    settings.authcfg = sign_in("word")
    client.configure(settings)
    assert ended(qtbot, client.request("ask", {})).results
    client.stop()


def test_a_blocking_engine_at_an_address(qtbot, server, sample, tmp_path):
    results = []

    def work():
        with BlockingEngine(at(server)) as engine:
            results.append(engine.call("ask", arguments(sample, tmp_path / "out")))

    thread = threading.Thread(target=work)
    thread.start()
    qtbot.waitUntil(lambda: not thread.is_alive(), timeout=10000)
    assert Path(results[0]["files"]["heatmap"]).is_file()


@pytest.mark.engine
def test_the_real_engine_over_http(qtbot, engine_python, sample, tmp_path, sign_in):
    command = [engine_python, "-m", "geoalign_core", "engine", "--http", "127.0.0.1:0"]
    environ = {**os.environ, "GEOALIGN_TOKEN": "a-token-of-the-test"}  # pragma: allowlist secret
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ, cwd=tmp_path)
    client = None
    try:
        first = process.stderr.readline()
        if "engine at" not in first:
            pytest.skip(f"no HTTP engine here: {first}")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        settings = Settings()
        settings.engine_mode, settings.engine_address = "address", first.split()[-1]
        settings.authcfg = sign_in(environ["GEOALIGN_TOKEN"])
        client = EngineClient(settings)
        out = tmp_path / "out"
        args = {"source": {"path": str(sample)}, "query": "water", "out": str(out), "stem": "water"}
        outcome = ended(qtbot, client.request("ask", args), 200)
        assert outcome.errors == []
        assert outcome.results[0]["files"] == {
            "heatmap": str(out / "water.tif"), "regions": str(out / "water.gpkg"),
        }  # fmt: skip
        assert QgsRasterLayer(str(out / "water.tif"), "heat").isValid()
        assert QgsVectorLayer(f"{out / 'water.gpkg'}|layername=boxes", "boxes", "ogr").isValid()
        assert {"uploading", "embedding"} <= {progress.stage for progress in outcome.progress}
        request = client.request("ask", {**args, "query": "trees", "stem": "trees"})
        request.cancel()
        assert ended(qtbot, request).errors[0].code == "cancelled"
        again = ended(qtbot, client.request("ask", {**args, "query": "roof", "stem": "roof"}), 60)
        assert again.errors == []
    finally:
        if client is not None:
            client.stop()
        process.kill()
        process.wait()
