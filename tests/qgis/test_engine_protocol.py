"""Lines to and from the engine."""

from __future__ import annotations

import json

import pytest

from qgis_plugin.engine.protocol import LINE_BYTES, EngineError, LineReader, Progress, encode


def line(**fields) -> bytes:
    return json.dumps({"v": 1, **fields}).encode() + b"\n"


def test_lines_in_any_cut():
    stream = line(id=1, type="note", text="Straße") + b"\r\n" + line(id=2, type="result", result={})
    for size in (1, 2, 7, len(stream)):
        reader = LineReader()
        got = [m for k in range(0, len(stream), size) for m in reader.feed(stream[k : k + size])]
        assert [m["id"] for m in got] == [1, 2]
        assert reader.garbage == 0
        assert not reader.mid_line


def test_half_a_line():
    reader = LineReader()
    assert reader.feed(b'{"v":1,') == []
    assert reader.mid_line


def test_garbage_is_counted():
    reader = LineReader()
    stream = b"hi\n" + b"\xff\xfe\n" + b"[]\n" + b"[" * 200_000 + b"\n" + b'{"type":1}\n' + line(id=1, type="note")
    assert len(reader.feed(stream)) == 1
    assert reader.garbage == 5


def test_a_runaway_line_is_not_kept():
    reader = LineReader()
    for _ in range(40):
        assert reader.feed(b"x" * 500_000) == []
        assert sum(map(len, reader._parts)) <= LINE_BYTES
    assert reader.feed(b"\n" + line(id=1, type="note"))
    assert (reader.oversized, reader.garbage) == (1, 0)


def test_encode():
    assert json.loads(encode(7, "ask", {"query": "x"})) == {"v": 1, "id": 7, "op": "ask", "args": {"query": "x"}}
    for args in ({"query": "x" * LINE_BYTES}, {"x": float("inf")}, {"x": object()}):
        with pytest.raises(ValueError):
            encode(1, "ask", args)


def test_what_the_engine_sends_may_be_odd():
    assert Progress.from_message({"done": "3", "total": None, "eta_s": "soon"}) == Progress("", 0, 0, None)
    assert Progress.from_message({"done": float("nan"), "total": 5}).fraction == 0
    assert Progress("", 7, 5).fraction == 1
    assert EngineError.from_message({}).code == "internal"
