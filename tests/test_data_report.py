"""The validator finds every planted problem, and the statistics count what is there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.data_tools import RSFG, picture, put, rsteller, tar
from tiling.clikit import run_cli
from tiling.errors import CancelledError, OutputExistsError
from tiling.progress import CancelToken
from training.builder.command import cli
from training.data.dataset import RsfgDataset
from training.data.errors import DataError
from training.data.statistics import quartiles
from training.data.statistics_page import statistics, write_report
from training.data.validate import validate

REPO = Path(__file__).parent.parent
BOX = [0.1, 0.1, 0.5, 0.5]
LONG = "storage tanks and harbours " * 40


@pytest.fixture
def flawed(tmp_path):
    """A data set with one flaw in each line, and how each is called."""
    lines = [
        ({**RSFG, "image": "good.png"}, None),
        ("{", "is not a line of JSON"),
        ({"image": "a.png", "regions": [{"bbox": [0, 0, float("nan"), 1]}]}, "a box holds a number that is not finite"),
        ({"image": "b.png", "regions": [{"bbox": [0, 0, 1, 1.5]}]}, "a box lies outside of the image"),
        ({"image": "c.png", "regions": [{"bbox": [0.3, 0, 0.3, 1]}]}, "a box has no area"),
        ({"image": "missing.png"}, "an image cannot be read"),
        ({"image": "corrupt.png"}, "an image is damaged"),
        ({"image": "d.png", "width": 41, "height": 20}, "an image has another size"),
        ({"image": "e.png", "md5": "0" * 32}, "an image has another MD5"),
        ({"image": "good.png", "split": "train"}, "an image appears twice"),
        ({"image": "good.png", "split": "test"}, "an image is in two splits"),
        ({"image": "f.png", "id": 7}, None),
        ({"image": "g.png", "id": 7}, "an id appears twice"),
        (
            {
                "image": "h.png",
                "regions": [{"bbox": BOX, "phrase": "A ship.", "hard_negatives": [{"text": "a  ship"}]}],
            },
            "a hard negative equals its positive",
        ),
    ]
    warned = [
        ({"image": "i.png", "breif_caption": "a"}, "an unknown key looks like a known one"),
        ({"image": "j.png", "brief_caption": " "}, "a text is empty"),
        ({"image": "k.png", "brief_caption": LONG}, "a text is longer than 77 tokens"),
        ({"image": "l.png", "detailed_caption": LONG * 3}, "a text is longer than 248 tokens"),
    ]
    for number, name in enumerate("abcdefghijkl"):
        put(tmp_path / f"{name}.png", picture(seed=number))
    put(tmp_path / "good.png", picture(seed=99))
    put(tmp_path / "corrupt.png", picture(200, 200)[:900])
    texts = [item if isinstance(item, str) else json.dumps(item) for item, _ in lines + warned]
    put(tmp_path / "records.jsonl", "\n".join(texts) + "\n")
    return tmp_path, lines, warned


def test_every_planted_problem_is_found_at_its_line(flawed):
    folder, lines, warned = flawed
    report = validate(folder, check_tokens=True)
    expected = {number: kind for number, (_, kind) in enumerate(lines + warned, start=1) if kind}
    assert {int(issue.where.rpartition(":")[2]): issue.kind for issue in report.issues} == expected
    assert report.errors == Counter(kind for _, kind in lines if kind)
    assert report.warnings == Counter(kind for _, kind in warned)
    assert (report.ok, report.records, report.hard_negatives) == (False, len(lines) + len(warned), 2)
    assert all("\n" not in str(issue) for issue in report.issues)
    assert json.loads(json.dumps(report.to_json()))["errors"] == report.errors
    assert "18 records" in str(report)
    assert any("breif_caption, perhaps brief_caption" in str(issue) for issue in report.issues)


def test_pictures_and_tokens_are_checked_only_when_asked(flawed):
    folder, _, _ = flawed
    report = validate(folder, check_images=False)
    assert not {kind for kind in report.errors if kind.startswith("an image") and "splits" not in kind} - {
        "an image appears twice"
    }
    assert not any("tokens" in kind for kind in report.warnings)


def test_all_are_counted_and_the_first_are_listed(tmp_path):
    put(tmp_path / "records.jsonl", [{"image": f"{n}.png"} for n in range(30)])
    report = validate(tmp_path, most=4)
    assert report.errors == {"an image cannot be read": 30}
    assert len(report.issues) == 4


def test_a_good_data_set_and_shards_pass(tmp_path):
    put(tmp_path / "a.png", picture())
    put(tmp_path / "records.jsonl", [RSFG])
    told = []
    report = validate(tmp_path, progress=lambda *values: told.append(values))
    assert report.ok
    assert not report.warnings
    assert told == [(1, 1, "checking records.jsonl")]
    assert validate(tar(tmp_path / "s.tar", rsteller(1))).ok
    bad = validate(tar(tmp_path / "t.tar", [("1.json", b"{"), ("1.png", picture())]))
    assert bad.errors == {"holds JSON that cannot be read": 1}
    assert "at byte" in str(validate(put(tmp_path / "u.tar", (tmp_path / "s.tar").read_bytes()[:700])))
    with pytest.raises(DataError, match="is missing"):
        validate(tmp_path / "none")


def test_a_hundred_thousand_hard_negatives_are_checked_in_one_pass(tmp_path):
    texts = [f"a ship at pier {number}" for number in range(100_000)]
    texts += ["A ship at  pier 7.", "a ship at pier 99999", "the ship"]
    region = {"bbox": BOX, "phrase": "The ship.", "hard_negatives": [{"text": text} for text in texts]}
    put(tmp_path / "records.jsonl", [{"image": "a.png", "regions": [region]}])
    report = validate(tmp_path, check_images=False)
    assert report.hard_negatives == len(texts)
    assert report.warnings == {"a hard negative appears twice": 2}
    assert report.errors == {"a hard negative equals its positive": 1}
    assert [issue.measured.partition("=")[0] for issue in report.issues] == [
        f"regions[0].hard_negatives[{number}] " for number in (100_000, 100_001, 100_002)
    ]


def test_files_without_records_are_errors(tmp_path, capsys):
    empty = put(tmp_path / "empty.jsonl", "\n")
    put(tmp_path / "records.jsonl", [{"image": "a.png"}])
    assert run_cli(cli, ["validate", str(empty), str(tmp_path)]) == 1
    assert f"error: {empty}: holds no records" in capsys.readouterr().out
    assert run_cli(cli, ["stats", str(empty), "-o", str(tmp_path / "page.html")]) == 1
    assert "holds no records" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("step", ["quality", "caption", "negatives", "check", "export"])
def test_a_step_without_records_says_so_and_writes_nothing(step, tmp_path, capsys):
    empty = put(tmp_path / "empty.jsonl", "\n")
    assert run_cli(cli, [step, str(empty), "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.strip() == (f"error: {empty}: holds no records; make some with geoalign-data import")
    assert not (tmp_path / "out").exists()


def test_a_stopped_check_promises_no_state(tmp_path):
    put(tmp_path / "records.jsonl", [RSFG] * 1000)
    start = "from training.builder import command, steps; from training.data import validate; "
    code = f"{start}print('ready', flush=True); command.main()"
    arguments = [sys.executable, "-c", code, "validate", *["records.jsonl"] * 1000]  # for minutes
    where = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(REPO)}}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **where) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == "stopped; the next run begins anew\n"


def test_the_command_is_a_module_too(tmp_path):
    command = [sys.executable, "-m", "training.builder.command", "schema"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    assert "properties" in json.loads(done.stdout)


def test_checking_stops_when_it_is_told_to(tmp_path):
    put(tmp_path / "records.jsonl", [RSFG])
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError):
        validate(tmp_path, cancel=token)


@pytest.fixture
def data(tmp_path):
    put(tmp_path / "a.png", picture())
    put(tmp_path / "b.png", picture(seed=1))
    plain = {"image": "b.png", "brief_caption": "<b>&", "captions": ["one two", "one two three"]}
    put(tmp_path / "records.jsonl", [RSFG, plain, {"image": "missing.png"}, {"image": 3}])
    return RsfgDataset([tmp_path])


def test_statistics_count_what_is_there(data):
    stats = statistics(data)
    assert (stats.records, stats.unreadable, stats.regions, stats.texts, stats.oriented) == (3, 1, 2, 9, 1)
    assert stats.lengths["further caption"] == {4: 1, 2: 1, 3: 1}
    assert stats.lengths["hard negative"] == {6: 1}
    assert stats.regions_per_image == {2: 1, 0: 2}
    assert stats.box_sides == {53: 1, 100: 1}  # √(0.4 · 0.7)
    assert stats.box_sides_px == {15: 1, 28: 1}  # times √(40 · 20)
    assert stats.centres == {(6, 11): 1, (10, 10): 1}
    assert (stats.categories, stats.rules) == ({"ship": 1, "not told": 1}, {"orientation": 1})
    assert statistics(data, tokens=True).lengths["hard negative"] == {8: 1}  # six words and both ends
    assert json.loads(json.dumps(stats.to_json()))["sources"] == {"not told": 2, "VRSBench": 1}


def test_quartiles_are_those_of_the_values():
    assert quartiles(Counter([1, 2, 2, 3, 9])) == {
        "count": 5, "mean": 3.4, "min": 1, "q1": 2, "median": 2, "q3": 3, "max": 9,
    }  # fmt: skip
    assert quartiles(Counter()) == {"count": 0}


def test_the_page_is_whole_in_itself(data, tmp_path):
    path = write_report(statistics(data), data, tmp_path / "page.html")
    page = path.read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 2
    assert "cannot be read" in page  # the missing picture is told, not hidden
    assert "&lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    assert "≠ the white ship on the right (orientation)" in page
    assert page.count("<svg") == page.count("</svg>") >= 8
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "#010203" not in page
    assert write_report(statistics(data), data, tmp_path / "again.html").read_bytes() == path.read_bytes()
    with pytest.raises(OutputExistsError):
        write_report(statistics(data), data, path, overwrite=False)


def test_a_page_of_nothing_is_written(tmp_path):
    data = RsfgDataset([put(tmp_path / "a.jsonl", "")])
    assert "0 images" in Path(write_report(statistics(data), data, tmp_path / "page.html")).read_text(encoding="utf-8")
