"""The engine's manners: hello, cancel, garbage, the end of the input, limits."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoalign_core.engine.command import MAX_WINDOWS
from geoalign_core.engine.job import Eta
from geoalign_core.engine.jobs import Jobs
from geoalign_core.engine.memory import parse_size
from geoalign_core.engine.places import SamePlaces
from geoalign_core.engine.protocol import LINE_BYTES, Failure, LineSplitter, Request, encode, parse
from geoalign_core.engine.server import Engine
from tests.engine_tools import REPO, EngineProcess
from tiling.errors import UsageError

ODD_STEM = b'{"v":1,"id":5,"op":"ask","args":{"query":"x","source":{"path":"a"},"out":"o","stem":"%s"}}'
FAR_AREA = (
    b'{"v":1,"id":5,"op":"describe","args":{"source":{"path":"a"},"area":'
    b'{"type":"Polygon","coordinates":[[[far,0],[-far,1],[1,far],[far,0]]]}}}'
)


@pytest.fixture(scope="module")
def engine():
    with EngineProcess() as process:
        yield process


@pytest.fixture
def slow_raster(make_raster):
    rng = np.random.default_rng(0)
    return make_raster(rng.integers(0, 255, (3, 2600, 2600), dtype=np.uint8), res=0.5)


def test_hello_comes_first_and_before_torch(engine):
    with EngineProcess() as fresh:
        assert fresh.hello["type"] == "hello" and fresh.hello["id"] == 0
        assert fresh.hello["protocol"] == [1, 1] and fresh.hello["pid"] == fresh.process.pid
        assert fresh.hello["limits"]["max_windows"] == MAX_WINDOWS
        assert fresh.hello["models"][0]["name"] == "geoalign-s"
        assert fresh.call("ping")["result"] == {}
        maps = Path(f"/proc/{fresh.process.pid}/maps")
        assert not maps.exists() or "libtorch" not in maps.read_text()


def test_the_limit_is_the_one_of_the_settings():
    from geoalign_core import settings as own

    assert own.MAX_WINDOWS == MAX_WINDOWS


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"garbage", "bad_json"),
        (b"\xff\xfe\x00", "bad_json"),
        (b'{"v":1,"id":5,"op":"ping","args":{"x":NaN}}', "bad_json"),
        (b"[" * 100_000, "bad_json"),
        (b'{"a":' * 100_000, "bad_json"),
        (b'{"v":1,"id":' + b"9" * 5000 + b',"op":"ping"}', "bad_json"),
        (b"[1,2]", "bad_request"),
        (b"null", "bad_request"),
        (b'{"v":1,"id":0,"op":"ping"}', "bad_request"),
        (b'{"v":1,"id":true,"op":"ping"}', "bad_request"),
        (b'{"v":1,"id":1.5,"op":"ping"}', "bad_request"),
        (b'{"v":1,"id":5,"op":7}', "bad_request"),
        (b'{"v":1,"id":5,"op":"ping","args":[]}', "bad_request"),
        (b'{"v":2,"id":5,"op":"ping"}', "wrong_version"),
        (b'{"id":5,"op":"ping"}', "wrong_version"),
        (b'{"v":1,"id":5,"op":"fly"}', "unknown_op"),
        (b'{"v":1,"id":5,"op":"cancel","args":{"target":"x"}}', "bad_request"),
        (b'{"v":1,"id":5,"op":"ask","args":{"query":"x","source":7}}', "bad_request"),
        (b'{"v":1,"id":5,"op":"ask","args":{"query":"x","source":{"path":"a\\u0000b"},"stem":"s"}}', "bad_request"),
        (b'{"v":1,"id":5,"op":"ask","args":{"query":"\\ud800","source":{"path":"a"},"stem":"s"}}', "bad_request"),
        (b'{"v":1,"id":5,"op":"ask","args":{"query":"x","source":{"path":"a"},"stem":"../s"}}', "bad_request"),
        (b'{"v":1,"id":5,"op":"ask","args":{"query":"x","source":{"path":"a"},"stem":"s","top":1e999}}', "bad_request"),
        *((ODD_STEM % stem, "bad_request") for stem in (b"con", b"LPT1.old", b"-x", b" ", b".hidden", b"com\xc2\xb9")),
        *((FAR_AREA.replace(b"far", far), "bad_request") for far in (b"1e308", b"1e200", b"1e13")),
        (b'{"v":1,"id":5,"op":"ask","args":{"source":{"path":"a"},"stem":"s"}}', "query"),
        (b'{"v":1,"id":5,"op":"describe","args":{"source":{"path":"/nowhere.tif"}}}', "raster"),
        (b'{"v":1,"id":5,"op":"describe","args":{"source":{"path":"a"},"area":{"type":"Point"}}}', "bad_request"),
        (
            b'{"v":1,"id":5,"op":"describe","args":{"source":{"path":"a"},"look":{"stretch":"/etc/passwd"}}}',
            "bad_request",
        ),
    ],
)
def test_nonsense_is_answered_and_survived(engine, line, code):
    engine.raw(line + b"\n")
    _, message = engine.next()
    while message["type"] not in ("error", "result"):
        _, message = engine.next()
    assert message["code"] == code and message["message"]
    assert message["id"] in (0, 5)
    engine.last = max(engine.last, 5)
    assert engine.call("ping")["type"] == "result"


def test_a_line_of_20_mb_is_refused_and_forgotten(engine):
    engine.raw(b'{"v":1,"id":9,"op":"ping","args":{"x":"' + b"x" * 20_000_000 + b'"}}\n')
    assert engine.next()[1]["code"] == "line_too_long"
    assert engine.call("ping")["type"] == "result"


def test_half_lines_wait_for_their_other_half(engine):
    engine.raw(b'{"v":1,"id":77,"op":"pi')
    time.sleep(0.1)
    engine.raw(b'ng"}\r\n\n  \n')
    assert engine.next()[1] == {"v": 1, "id": 77, "type": "result", "result": {}}
    engine.last = 77


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_parse_raises_nothing_else(data):
    try:
        assert isinstance(parse(data), Request)
    except Failure as failure:
        assert failure.code and failure.message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
_NAMES = ("source", "look", "area", "query", "include", "rungs", "out", "stem", "heatmap", "tile", "path", "stretch")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["ask", "index", "describe", "regions", "tile", "landcover", "cancel", "warm "]),
    st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=6),
)
def test_random_requests_never_end_the_process(engine, op, args):
    message = engine.call(op, **args)
    assert message["type"] == "result" or (message["code"] != "internal" and message["message"])


@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(1, 7))
def test_lines_do_not_depend_on_how_they_arrive(lines, step):
    data = b"".join(line.replace(b"\n", b"") + b"\n" for line in lines)
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    splitter = LineSplitter(limit=30)
    found = [line for piece in pieces for line in splitter.feed(piece)]
    clean = [line.replace(b"\n", b"") for line in lines]
    assert found == [None if len(line) >= 30 else line for line in clean if len(line) >= 30 or line.strip()]


def test_an_answer_that_is_too_long_is_refused():
    with pytest.raises(Failure):
        encode(1, "result", {"result": "x" * LINE_BYTES})


def test_cancel_answers_at_once_even_while_the_model_loads(sample_path, tmp_path):
    with EngineProcess() as engine:
        target = engine.send("ask", source={"path": str(sample_path)}, query="water", out=str(tmp_path), stem="a")
        engine.until(target, kinds=("progress",))
        begun = time.monotonic()
        cancel = engine.send("cancel", target=target)
        found = {}
        while len(found) < 2:
            at, message = engine.next()
            if message["id"] in (target, cancel) and message["type"] in ("result", "error"):
                found[message["id"]] = at - begun, message
        assert found[cancel][1]["result"] == {"cancelled": True}
        assert found[target][1]["code"] == "cancelled"
        assert max(at for at, _ in found.values()) < 0.2
        assert engine.result("cancel", target=target) == {"cancelled": False}
        assert engine.result("warm")["seconds"] >= 0
        assert not any(message["id"] == target for _, message in list(engine.lines.queue) if message)
    assert not (tmp_path / "a.tif").exists()


def test_cancel_while_embedding_and_heartbeats(slow_raster, tmp_path):
    with EngineProcess() as engine:
        engine.result("warm")
        job = engine.send("index", source={"path": str(slow_raster)})
        waiting = engine.send("index", source={"path": str(slow_raster)})
        first, seen = (engine.until(job, kinds=("heartbeat",)) for _ in range(2))
        assert 0 <= first[-1][1]["seconds"] < seen[-1][1]["seconds"]  # the first may come as the job begins
        while seen[-1][1].get("stage") != "embedding":
            seen = engine.until(job, kinds=("progress",))
        engine.raw(json.dumps({"v": 1, "id": job, "op": "index", "args": {}}).encode() + b"\n")
        begun = time.monotonic()
        engine.last = waiting
        assert engine.result("cancel", target=waiting) == {"cancelled": True}
        assert engine.result("cancel", target=job) == {"cancelled": True}
        assert time.monotonic() - begun < 3
        seconds, code = engine.close_input()
        assert code == 0 and seconds < 2


def test_an_id_in_use_is_refused_without_ending_its_job(slow_raster):
    with EngineProcess() as engine:
        job = engine.send("status")
        engine.raw(json.dumps({"v": 1, "id": job, "op": "status", "args": {}}).encode() + b"\n")
        found = []
        while not found or found[-1]["id"] != job or found[-1]["type"] != "result":
            found.append(engine.next()[1])
        assert [message["code"] for message in found if message["type"] == "error"] == ["bad_request"]
        assert all(message["id"] == 0 for message in found if message["type"] == "error")
        assert found[-1]["result"]["devices"][0]["name"] == "cpu"


@pytest.mark.parametrize("busy", [False, True])
def test_the_end_of_the_input_ends_the_process(busy, sample_path, tmp_path):
    with EngineProcess() as engine:
        if busy:
            number = engine.send("ask", source={"path": str(sample_path)}, query="a", out=str(tmp_path), stem="a")
            engine.until(number, kinds=("progress",))
        seconds, code = engine.close_input()
    assert code == 0
    assert seconds < 2


@pytest.mark.parametrize("ended_by", ["input", "signal"])
def test_a_client_that_reads_nothing_does_not_keep_the_engine(ended_by, slow_raster):
    command = [sys.executable, "-m", "geoalign_core", "engine", "--stdio"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPO) as process:
        args = json.dumps({"source": {"path": str(slow_raster)}})
        process.stdin.write(b'{"v":1,"id":1,"op":"index","args":%b}\n' % args.encode())
        for number in range(2, 2000):
            process.stdin.write(b'{"v":1,"id":%d,"op":"ping"}\n' % number)
        process.stdin.flush()
        try:
            time.sleep(1.0)
            begun = time.monotonic()
            if ended_by == "input":
                process.stdin.close()
            else:
                process.send_signal(signal.SIGTERM)
            assert process.wait(6) == 0
            assert time.monotonic() - begun < 2.2
        finally:
            process.kill()


def test_sigterm_and_shutdown_end_the_process():
    with EngineProcess() as engine:
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(20) == 0
    with EngineProcess() as engine:
        assert engine.call("shutdown")["result"] == {}
        assert engine.process.wait(20) == 0


def test_what_libraries_print_stays_out_of_the_protocol(tmp_path):
    go = tmp_path / "go"
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, threading, time
def chatter():
    while not os.path.exists({str(go)!r}):
        time.sleep(0.05)
    os.write(1, b'noise\\n')
    print('more noise', flush=True)
    os.rename({str(go)!r}, {str(tmp_path / "gone")!r})
threading.Thread(target=chatter, daemon=True).start()
""")
    with EngineProcess(PYTHONPATH=f"{tmp_path}") as engine:
        go.touch()  # the engine has said hello
        while go.exists():
            time.sleep(0.05)
        assert engine.call("ping")["type"] == "result"
        engine.close_input()
    assert b"noise" in engine.stderr and b"more noise" in engine.stderr


def test_the_memory_limit_ends_the_job_and_not_the_process():
    with EngineProcess("--max-memory", "256MB") as engine:
        assert engine.hello["limits"]["memory_bytes"] == 2**28
        assert engine.failure("warm")["code"] == "out_of_memory"
        assert engine.call("ping")["type"] == "result"


def test_a_missing_torch_is_told(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('DLL load failed while importing _C')\n")
    with EngineProcess(PYTHONPATH=f"{tmp_path}") as engine:
        message = engine.failure("status")
        assert message["code"] == "torch_load_failed" and "DLL" in message["details"] and message["remedy"]


def test_a_broken_library_ends_neither_the_answer_nor_the_engine(tmp_path, tiny_model, make_raster):
    (tmp_path / "sklearn.py").write_text("raise ImportError('DLL load failed while importing _arrays')\n")
    image = np.random.default_rng(5).integers(1, 255, (3, 300, 300), dtype=np.uint8)
    where = {"source": {"path": str(make_raster(image, res=0.5))}, "look": {"model": str(tiny_model)}}
    with EngineProcess(PYTHONPATH=f"{tmp_path}") as engine:
        assert engine.result("ask", **where, query="cars", out=str(tmp_path), stem="a")["files"]
        assert engine.result("describe", **where)["indexed"]


def test_an_engine_that_cannot_load_its_operations_says_so_each_time(monkeypatch):
    def broken(_):
        raise ImportError("DLL load failed while importing _multiarray_umath")

    monkeypatch.setattr(Engine, "_make", broken)
    engine, said = Engine(max_windows=10, places=SamePlaces()), queue.Queue()
    engine.start()
    for number in (1, 2):
        engine.submit(Request(number, "status", {}), lambda *message: said.put(message))
        id_, kind, fields = said.get(timeout=10)
        assert (id_, kind, fields["code"]) == (number, "error", "internal") and "DLL" in fields["message"]
    engine.stop(5)


@pytest.mark.parametrize("result", [{"x": float("nan")}, {"x": "x" * LINE_BYTES}, {"x": object()}])
def test_a_result_that_fits_in_no_line_ends_with_an_error(monkeypatch, result):
    monkeypatch.setattr(Jobs, "run", lambda *_: result)
    engine, lines = Engine(max_windows=10, places=SamePlaces()), queue.Queue()
    engine.start()
    engine.submit(Request(1, "describe", {}), lambda *message: lines.put(encode(*message)))
    assert b'"code":"internal"' in lines.get(timeout=10)
    engine.stop(5)
    assert lines.empty()


def test_sizes():
    assert parse_size("4GB") == 4 * 2**30 == parse_size("4 GiB") == parse_size(str(2**32))
    for text in ("", "4 parsecs", "1KB", "-4GB", "nan"):
        with pytest.raises(UsageError):
            parse_size(text)


def test_the_time_left_does_not_jump():
    eta = Eta()
    assert eta.left(0, 100, "embedding") is None
    time.sleep(0.05)
    assert 0 < eta.left(10, 100, "embedding") < 5
    assert eta.left(0, 5, "writing") is None


def test_the_command_wants_one_way(geoalign):
    assert geoalign("engine")[0] == 2
    assert geoalign("engine", "--stdio", "--http", "127.0.0.1:0")[0] == 2
    code, _, err = geoalign("engine", "--http", "0.0.0.0:8765")
    assert code == 2 and "token" in err
