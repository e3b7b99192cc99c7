"""The engine over HTTP: who is let in, files up and down, what a client may name."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from geoalign_core.engine.http import HttpOptions, is_loopback
from geoalign_core.engine.protocol import Failure
from geoalign_core.engine.storage import Storage
from tests.engine_tools import REPO
from tiling.errors import UsageError

TOKEN = "a-token-for-the-tests"
KEY = "0123-abcd"


class Server:
    def __init__(self, folder, root):
        token = folder / "token"
        token.write_text(TOKEN + "\n")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "geoalign_core", "engine", "--http", "127.0.0.1:0", "--token-file", str(token),
             "--files", str(folder / "store"), "--root", str(root), "--max-upload", "256MB"],
            cwd=REPO, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.port = int(self.process.stderr.readline().rsplit(":", 1)[1])

    def open(self, method, path, body=None, *, authorization=f"Bearer {TOKEN}", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        if authorization:
            headers["Authorization"] = authorization
        connection.request(method, path, body, headers)
        return connection, connection.getresponse()

    def ask(self, *args, **options):
        connection, response = self.open(*args, **options)
        data = response.read()
        connection.close()
        return response.status, data

    def message(self, number, op, **args):
        body = json.dumps({"v": 1, "id": number, "op": op, "args": args})
        status, data = self.ask("POST", "/v1/messages", body)
        assert status == 200, data
        return [json.loads(line) for line in data.splitlines()]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def server(tmp_path_factory, root):
    found = Server(tmp_path_factory.mktemp("server"), root)
    yield found
    found.process.terminate()
    assert found.process.wait(10) == 0
    found.process.stderr.close()


@pytest.fixture
def picture(make_raster):
    return make_raster(np.random.default_rng(3).integers(1, 255, (3, 300, 300), dtype=np.uint8))


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "HEAD"])
def test_nobody_gets_in_without_the_token(server, method):
    basic = base64.b64encode(b"me:wrong").decode()
    for header in ("", "Bearer wrong", f"Basic {basic}", "Basic !!", "Digest x", f"Bearer {TOKEN}x", "Bearer "):
        status, data = server.ask(method, "/v1/files/abcdefgh/a.tif", authorization=header)
        assert status == 401
        assert method == "HEAD" or json.loads(data)["code"] == "unauthorized"


def test_hello_by_bearer_and_by_password(server):
    basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    for header in (f"Bearer {TOKEN}", f"Basic {basic}"):
        status, data = server.ask("GET", "/v1/hello", authorization=header)
        assert status == 200 and json.loads(data)["protocol"] == [1, 1]


def test_another_host_name_is_refused(server):
    assert server.ask("GET", "/v1/hello", Host="evil.example")[0] == 421
    assert server.ask("GET", "/v1/hello", Host=f"localhost:{server.port}")[0] == 200


def test_upload_ask_download(server, picture, tmp_path, tiny_model, root):
    address = f"/v1/files/{KEY}/image.tif"
    assert server.ask("HEAD", address)[0] == 404
    status, data = server.ask("PUT", address, picture.read_bytes())
    assert (status, json.loads(data)) == (201, {"path": address})
    _, response = server.open("HEAD", address)
    assert response.status == 200 and int(response.headers["content-length"]) == picture.stat().st_size
    messages = server.message(1, "ask", source={"path": address}, query="x", out="/somewhere/else", stem="s")
    assert messages[-1]["type"] == "result", messages[-1]
    files = messages[-1]["result"]["files"]
    assert files["heatmap"].startswith("/v1/files/job-")
    status, data = server.ask("GET", files["heatmap"])
    assert status == 200 and data[:4] in (b"II*\0", b"MM\0*", b"II+\0")
    again = server.message(2, "regions", heatmap=files["heatmap"], threshold=0.3, out=str(root / "out"), stem="r")
    assert again[-1]["result"]["files"] == {"regions": str(root / "out" / "r.gpkg")}
    assert {message["id"] for message in again} == {2}


def test_paths_outside_the_roots_are_refused(server, picture, root, tiny_model):
    (root / "link.tif").symlink_to(picture)
    for path in (str(picture), "/etc/passwd", f"{root}/../x.tif", str(root / "link.tif"), "relative.tif"):
        assert server.message(1, "describe", source={"path": path})[-1]["code"] == "raster"
    for path in ("/v1/files/abcdefgh/../../x", "/v1/files/ABC/x.tif", "/v1/files/abcdefgh/.x"):
        assert server.message(1, "describe", source={"path": path})[-1]["code"] == "bad_request"
    look = {"model": str(tiny_model)}
    assert server.message(1, "warm", look=look)[-1]["code"] == "model"


def test_a_virtual_raster_leads_nowhere(server, picture):
    bands = f"<VRTRasterBand dataType='Byte' band='1'><SimpleSource><SourceFilename>{picture}</SourceFilename>"
    text = f"<VRTDataset rasterXSize='300' rasterYSize='300'>{bands}</SimpleSource></VRTRasterBand></VRTDataset>"
    assert server.ask("PUT", f"/v1/files/{KEY}/v.tif", text)[0] == 201
    for allowed in (False, True):
        source = {"path": f"/v1/files/{KEY}/v.tif", "allow_vrt": allowed}
        for op, args in (("tile", {"tile": "64px"}), ("ask", {"query": "x", "stem": "s"}), ("describe", {})):
            failure = server.message(1, op, source=source, **args)[-1]
            assert failure["code"] == "raster" and "--" not in failure["remedy"], failure


def test_breaking_off_a_request_leaves_no_traceback(tmp_path, root):
    fresh = Server(tmp_path, root)
    for head in ("PUT /v1/files/abcdefgh/a.tif", "POST /v1/messages"):
        with socket.create_connection(("127.0.0.1", fresh.port)) as client:
            lines = (f"{head} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {TOKEN}", "Content-Length: 999")
            client.sendall("\r\n".join((*lines, "", "II*")).encode())
            time.sleep(0.2)
    assert fresh.ask("GET", "/v1/hello")[0] == 200
    fresh.process.terminate()
    assert fresh.process.wait(10) == 0
    assert fresh.process.stderr.read() == ""
    fresh.process.stderr.close()
    assert not (tmp_path / "store" / "abcdefgh" / "a.tif").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_folder_of_its_own_goes_with_the_engine(number, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "geoalign_core", "engine", "--http", "127.0.0.1:0"], cwd=REPO, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "TMPDIR": str(tmp_path), "GEOALIGN_TOKEN": TOKEN},
    )  # fmt: skip
    port = int(process.stderr.readline().rsplit(":", 1)[1])
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    client.request("PUT", f"/v1/files/{KEY}/a.tif", b"II*", {"Authorization": f"Bearer {TOKEN}"})
    assert client.getresponse().status == 201
    assert len(list(tmp_path.glob("geoalign-engine-*/*/a.tif"))) == 1
    process.send_signal(number)
    assert process.wait(10) == 0
    client.close()
    process.stderr.close()
    assert not list(tmp_path.glob("geoalign-engine-*"))


def test_bad_messages_and_addresses(server):
    for body, code in ((b"garbage", "bad_json"), (b"x" * 2**20, "line_too_long"), (b'{"v":9,"id":1}', "wrong_version")):
        status, data = server.ask("POST", "/v1/messages", body)
        assert status in (400, 413) and json.loads(data)["code"] == code
    assert server.ask("GET", "/v1/nothing")[0] == 404
    assert server.ask("PUT", "/v1/files/abcdefgh/program.exe", b"x")[0] == 400
    assert server.ask("PUT", "/v1/files/abcdefgh/..%2f..%2fx.tif", b"x")[0] in (400, 404, 405)
    status, _ = server.ask("PUT", "/v1/files/abcdefgh/a.tif", b"", **{"Content-Length": str(2**40)})
    assert status == 400
    assert server.message(1, "shutdown")[-1]["type"] == "result"
    assert server.ask("GET", "/v1/hello")[0] == 200


def test_cancel_by_message_and_by_hanging_up(server, root, make_raster):
    image = np.random.default_rng(4).integers(1, 255, (3, 2000, 2000), dtype=np.uint8)
    path = root / "large.tif"
    make_raster(image, "large.tif").rename(path)
    body = json.dumps({"v": 1, "id": 50, "op": "index", "args": {"source": {"path": str(path)}}})
    _, response = server.open("POST", "/v1/messages", body)
    assert json.loads(response.readline())["type"] in ("progress", "heartbeat")
    begun = time.monotonic()
    assert server.message(51, "cancel", target=50)[-1]["result"] == {"cancelled": True}
    last = json.loads(response.read().splitlines()[-1])
    assert last["code"] == "cancelled" and time.monotonic() - begun < 5
    connection, response = server.open("POST", "/v1/messages", body.replace("50", "52"))
    response.readline()
    response.close()
    connection.close()
    time.sleep(0.5)
    assert server.message(53, "cancel", target=52)[-1]["result"] == {"cancelled": False}


def test_addresses_and_tokens(tmp_path, monkeypatch):
    monkeypatch.delenv("GEOALIGN_TOKEN", raising=False)
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("gpu.example")
    made_up = HttpOptions.read("127.0.0.1:80", files=tmp_path)
    assert made_up.made_up and len(made_up.token) > 20
    monkeypatch.setenv("GEOALIGN_TOKEN", TOKEN)
    assert HttpOptions.read("[::1]:80", files=tmp_path).host == "::1"
    assert HttpOptions.read("0.0.0.0:80", files=tmp_path).token == TOKEN
    for address in ("localhost", "localhost:x", ":80", "localhost:99999"):
        with pytest.raises(UsageError):
            HttpOptions.read(address, files=tmp_path)
    for options in ({"certfile": tmp_path}, {"roots": (tmp_path / "no",)}, {"token_file": tmp_path / "no"}):
        with pytest.raises(UsageError):
            HttpOptions.read("localhost:80", files=tmp_path, **options)
    monkeypatch.setenv("GEOALIGN_TOKEN", "short")
    with pytest.raises(UsageError):
        HttpOptions.read("localhost:80", files=tmp_path)


def test_places_of_a_server(tmp_path):
    storage = Storage(tmp_path / "base", (tmp_path / "root",), 100)
    assert storage.told(tmp_path / "base" / KEY / "a.tif") == f"/v1/files/{KEY}/a.tif"
    assert storage.readable(f"/v1/files/{KEY}/a.tif") == str(tmp_path / "base" / KEY / "a.tif")
    assert storage.folder(str(tmp_path / "root" / "x")) == tmp_path / "root" / "x"
    assert storage.folder(None).parent == storage.folder("/etc").parent == tmp_path / "base"
    assert storage.model("geoalign-s") == "geoalign-s" and storage.model(None) is None
    for key, name in (("short", "a.tif"), (KEY, ".."), (KEY, "a/b"), (KEY, "a\\b"), (KEY, ""), (KEY, "a.")):
        with pytest.raises(Failure):
            storage.place(key, name)


def test_what_nobody_uses_goes(tmp_path):
    storage = Storage(tmp_path, (), 10**6, keep_hours=24)

    async def stream():
        yield b"II*"

    with contextlib.suppress(StopIteration):
        storage.receive(KEY, "a.tif", stream()).send(None)
    theirs, job = tmp_path / "important", tmp_path / f"job-{'0' * 16}"
    for file in (theirs / "x", job / "a.tif", job / "a.gpkg", tmp_path / KEY / "a.tif.geoalign" / "b" / "shard"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    now = time.time()

    def left(hours):
        storage.sweep(now + hours * 3600)
        return sorted(folder.name for folder in tmp_path.iterdir())

    assert left(0.9) == [KEY, "important", job.name]
    storage.use(job.name, "a.tif")
    assert job.name in left(0.2)
    storage.use(job.name, "a.gpkg")
    assert left(0.2) == [KEY, "important"]
    assert left(23.9) == [KEY, "important"]
    assert left(24.1) == ["important"]


def test_results_that_nobody_fetches_go_after_an_hour(tmp_path):
    storage = Storage(tmp_path, (), 10**6)
    job = storage.folder(None)
    job.mkdir()
    (job / "a.tif").touch()
    storage.sweep(time.time() + 3500)
    assert job.is_dir()
    storage.sweep(time.time() + 3700)
    assert not job.exists()
