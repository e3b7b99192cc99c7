"""``geoalign-eval`` as a user runs it: every task on a small set in each of its layouts, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from geoalign_core.models.clip_encoder import ClipEncoder
from geoalign_core.models.registry import load_encoder
from tests import test_eval_detection, test_eval_referring, test_eval_regions
from tests.eval_pictures import lines, picture
from tests.test_eval_choice import tree  # noqa: F401 - a fixture, as the following
from tests.test_eval_classify import folders, skyscript  # noqa: F401
from tests.test_eval_negatives import fgovd  # noqa: F401
from tests.test_eval_pointing import coco  # noqa: F401
from tests.test_eval_retrieval import karpathy  # noqa: F401
from tests.test_eval_segment import loveda  # noqa: F401
from tests.test_eval_selo import airslt  # noqa: F401
from tiling.clikit import run_cli
from training.evaluation import command, sliding
from training.evaluation.command import main
from training.evaluation.departures import departures
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.registry import TITLES
from training.evaluation.result import read_result

REPO = Path(__file__).resolve().parents[1]
SMALL = ("-s", "side_px=96", "-s", "window_px=64", "-s", "stride_px=32")


@pytest.fixture
def run(capsys, tiny_model, tmp_path):
    """Give (exit code, stdout, stderr) of a command; a task gets the small model and a cache."""

    def call(name, *args, model=tiny_model):
        given = [str(arg) for arg in args]
        if name in TITLES and "--help" not in given:
            given += ["--model", str(model), "--cache", str(tmp_path / "cache"), "--device", "cpu"]
        code = run_cli(main, [name, *given], name="geoalign-eval")
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def calls(monkeypatch):
    """Count what the model is asked."""
    counts = {"images": 0, "texts": 0}

    def count(name, kind):
        real = getattr(ClipEncoder, name)

        def counted(self, given, *args, **more):
            counts[kind] += len(given)
            return real(self, given, *args, **more)

        monkeypatch.setattr(ClipEncoder, name, counted)

    count("encode_text", "texts")
    for name in ("encode_raw", "encode_image", "encode_dense", "dense_tensor", "image_tensor"):
        count(name, "images")
    real = sliding.patches_and_token

    def windows(encoder, images, **more):
        counts["images"] += len(images)
        return real(encoder, images, **more)

    monkeypatch.setattr(sliding, "patches_and_token", windows)
    return counts


# Every layout -----------------------------------------------------------------------------------------------------


def long(folder):
    for number in range(2):
        picture(folder / f"{number}.png", number)
    return lines(folder / "long.jsonl", [{"image": "0.png", "long": "a sea."}, {"image": "1.png", "long": "a fort."}])


def table(folder):
    rows = ["filepath,title_multi_objects"]
    for number in range(2):
        picture(folder / "images2" / f"{number}.png", number)
        rows.append(f"images2/{number}.png,a sea of {number} ships")
    (folder / "SkyScript_test.csv").write_text("\n".join(rows))
    return folder / "SkyScript_test.csv"


def dota(folder):
    picture(folder / "images" / "P1.png")
    (folder / "labelTxt").mkdir()
    (folder / "labelTxt" / "P1.txt").write_text("20 0 40 20 20 40 0 20 ship 0\n1 1 15 1 15 15 1 15 large-vehicle 0\n")
    return folder


def records(folder):
    picture(folder / "0.png")
    region = {"bbox": [0.1, 0.1, 0.6, 0.8], "phrase": "a red roof", "hard_negatives": [{"text": "a blue roof"}]}
    return lines(folder / "records.jsonl", [{
        "image": "0.png", "width": 48, "height": 40, "captions": ["roofs"], "detailed_caption": "a red roof",
        "regions": [region | {"category": "roof"}],
    }])  # fmt: skip


def boxed(folder):
    """Twelve images with a box each: enough to hold some out."""
    names = [f"{number}.png" for number in range(12)]
    for number, name in enumerate(names):
        picture(folder / name, number, size=(128, 128))
    whole = {
        "images": [{"id": n, "file_name": name, "width": 128, "height": 128} for n, name in enumerate(names)],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [8 * n, 16, 40, 60]} for n in range(12)],
    }
    (folder / "annotations.json").write_text(json.dumps(whole))
    return folder


def found(folder):
    """Detections of DIOR's layout beside it."""
    folder.mkdir()
    return "-s", f"detections={test_eval_detection.results(folder / 'found.json')}"


def oriented(folder):
    """Detections in DOTA's form, a file for each class."""
    folder.mkdir()
    (folder / "Task1_ship.txt").write_text("P1 0.9 20 0 40 20 20 40 0 20\nP1 0.4 0 0 9 0 9 9 0 9\n")
    (folder / "Task1_large-vehicle.txt").write_text("P1 0.8 1 1 15 1 15 15 1 15\n")
    return "-s", f"detections={folder}"


def answered(folder):
    path = lines(folder / "answers.jsonl", [{"image": "00001.jpg", "text": "the ship above", "bbox": [0, 0, 20, 18]}])
    return "-s", f"answers={path}"


LAYOUTS = [
    ("retrieval", "karpathy", ()),
    ("retrieval", "karpathy", ("--protocol", "retrieval-unique")),
    ("retrieval", table, ("--protocol", "retrieval-unique")),
    ("retrieval", long, ("--protocol", "retrieval-long")),
    ("retrieval", records, ()),
    ("classify", "skyscript", ()),
    ("classify", "folders", ("--protocol", "zsc-folders", "--templates", "a {}")),
    ("presence", "folders", ("-s", "questions=bare land=BareLand;harbour=port|storage_tanks")),
    ("regions", test_eval_regions.vhr10, ("--templates", "a {}")),
    ("regions", test_eval_regions.vhr10, ("--protocol", "region-both", "--templates", "a {}")),
    ("regions", test_eval_regions.rrsisd, ("--protocol", "region-crop", "--trust-pickle", "--templates", "a {}")),
    ("regions", "coco", ("--templates", "a {}")),
    ("regions", dota, ("--templates", "a {}")),
    ("regions", records, ("--templates", "a {}")),
    ("negatives", "fgovd", ()),
    ("negatives", records, ("-s", "view=both")),
    ("choice", "tree", ()),
    ("selo", "airslt", ()),
    ("selo", "airslt", ("--protocol", "selo-airslt-plain")),
    ("segment", "loveda", (*SMALL, "--templates", "a {}")),
    ("segment", "loveda", (*SMALL, "--templates", "a {}", "--protocol", "ovss-segearth", "--cls-bias", "-0.1")),
    ("detect", test_eval_detection.voc, found),
    ("detect", dota, oriented),
    ("detect", test_eval_detection.voc, ("--protocol", "text-boxes", "--limit", "2")),
    ("refer", test_eval_referring.rsvg, answered),
    ("refer", test_eval_referring.rsvg, ()),
    ("refer", test_eval_referring.vrsbench, ()),
    ("refer", test_eval_regions.rrsisd, ("--trust-pickle",)),
    ("point", "coco", ()),
    ("point", "coco", ("--protocol", "point-program", "--dense-mode", "maskclip")),
    ("calibrate", boxed, ()),
]


def made(layout, request, tmp_path):
    if callable(layout):
        return layout(tmp_path / layout.__name__)
    given = request.getfixturevalue(layout)
    return given[0] if isinstance(given, tuple) else given


@pytest.mark.parametrize(
    ("task", "layout", "options"), LAYOUTS,
    ids=[f"{task}-{number}-{getattr(layout, '__name__', layout)}" for number, (task, layout, _) in enumerate(LAYOUTS)],
)  # fmt: skip
def test_every_task_on_every_layout(task, layout, options, run, calls, request, tmp_path):
    data, out = made(layout, request, tmp_path), tmp_path / "result.json"
    options = options(tmp_path / "beside") if callable(options) else options
    code, said, err = run(task, "--data", data, "-o", out, *options)
    assert (code, err) == (0, "")
    result, asked = read_result(out), dict(calls)
    assert str(tmp_path) not in out.read_text(encoding="utf-8")  # where files lie is told to nobody
    assert result.task == task and PROTOCOLS[result.protocol].task == task
    assert f"{task} · {result.protocol}" in said and all(name in said for name in result.metrics)
    for name in result.metrics:
        line = next(line for line in said.splitlines() if line.startswith(f"  {name} "))
        assert len({len(part) for part in re.findall(r"\d\.(\d+)", line.removeprefix(f"  {name}"))}) <= 1, line
    assert len(result.dataset.digest) == 64 and result.dataset.name and max(result.dataset.counts.values()) > 0
    assert any(np.isfinite(item.value) for item in result.metrics.values())
    of_file = any(text.startswith(("detections=", "answers=")) for text in options)
    assert (result.model is None) == of_file == (sum(asked.values()) == 0)
    if result.model:
        assert len(result.model.key) == 64 and result.model.precision == "float32" and result.model.device == "cpu"
        assert all(isinstance(value, (int, float)) and value >= 0 for value in result.seconds.values())
        assert result.seconds
    again = tmp_path / "again.json"
    assert run(task, "--data", data, "-o", again, *options)[0] == 0
    second = read_result(again)
    assert second.dataset == result.dataset and list(second.metrics) == list(result.metrics)
    assert [item.value for item in second.metrics.values()] == pytest.approx(
        [item.value for item in result.metrics.values()], rel=1e-6, nan_ok=True
    )
    seen = {kind: number - asked[kind] for kind, number in calls.items()}
    assert seen["images"] == 0
    assert seen["texts"] == 0 or task in ("presence", "detect", "refer", "point", "calibrate")


def test_the_embedded_model_and_what_comes_of_a_result(run, karpathy, tmp_path):  # noqa: F811
    out, page, text = tmp_path / "a.json", tmp_path / "a.html", tmp_path / "a.tex"
    code, said, err = run("retrieval", "--data", karpathy, "--limit", 2, "-o", out, model="geoalign-s")
    assert (code, err) == (0, "") and "note: Only 2 of 3 images" in said
    code, _, err = run("retrieval", "--data", karpathy, "-o", out, model="geoalign-s")
    assert code == 1 and "already there" in err
    result = read_result(out)
    assert result.model.name == "geoalign-s" and result.model.key == load_encoder("geoalign-s", device="cpu").key
    assert run("report", out, "-o", page)[0] == 0 and "data:image" in page.read_text()
    assert run("report", out, "-o", page)[0] != 0
    assert run("report", out, "-o", page, "--overwrite")[0] == 0
    code, said, _ = run("table", out)
    assert code == 0 and "| geoalign-s" in said and "printed" in said and "GeoAlignCLIP" in said
    assert run("table", out, "--latex", "-o", text)[0] == 0 and r"\toprule" in text.read_text()
    assert run("table", out, "--latex", "-o", text)[0] != 0


def test_class_vectors_for_castdet(run, tiny_model, tmp_path):
    (tmp_path / "classes.txt").write_text("ship\nairport\n")
    out = tmp_path / "v.npy"
    code, said, _ = run("castdet", "--model", tiny_model, "--classes", tmp_path / "classes.txt", "-o", out)
    assert code == 0 and "2 classes" in said and np.load(out).shape == (3, 32)


# Data sets --------------------------------------------------------------------------------------------------------


def test_data_sets_are_listed_told_and_checked(run, karpathy):  # noqa: F811
    code, said, _ = run("data")
    assert code == 0 and "rsicd" in said and "nwpu-vhr-10" in said
    code, said, _ = run("data", "RSICD")
    assert code == 0 and "terms" in said and "layout:" in said and "http" in said
    code, said, _ = run("data", "rsicd", karpathy)
    assert code == 1 and "expected" in said
    code, _, err = run("data", "rsicdd")
    assert code == 2 and "did you mean" in err and err.count("\n") == 1
    code, _, err = run("data", "rsicd", karpathy / "no")
    assert code == 1 and "is not a folder" in err


# What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TITLES)
@pytest.mark.parametrize("kind", ["missing", "empty", "other"])
def test_data_that_does_not_fit_is_one_line(task, kind, run, tmp_path):
    folder = tmp_path / "data"
    if kind != "missing":
        folder.mkdir()
    if kind == "other":
        (folder / "notes.txt").write_text("nothing here")
        (folder / "table.csv").write_text("a,b\n1,2\n")
        (folder / "annotations.json").write_text('{"a": []}')
    beside = ("-s", "detections=x.json") if task == "detect" else ()
    code, said, err = run(task, "--data", folder, *beside)
    assert code == 1 and said == "" and err.startswith("error: ") and err.count("\n") == 1
    assert "data" in err and "internal" not in err and (kind != "missing" or "data: is missing" in err)


@pytest.mark.parametrize(("args", "code", "message"), [
    (("retrieval",), 2, "Missing option '--data'"),
    (("retreival", "--data", "x"), 2, "No such command"),
    (("retrieval", "--data", "x", "--protocol", "zsc-folders"), 2, "no protocol 'zsc-folders'.*retrieval-5cap"),
    (("retrieval", "--data", "x", "-s", "tie=x"), 2, "no setting 'tie=x'.*ties"),
    (("retrieval", "--data", "x", "-s", "ties"), 2, "no setting 'ties'.*NAME=VALUE"),
    (("retrieval", "--data", "x", "-s", "ties=a", "-s", "ties=b"), 2, "ties is given twice"),
    (("retrieval", "--data", "x", "--limit", "0"), 2, "--limit"),
    (("retrieval", "--data", "x", "--templates", "plain"), 2, "--templates changes nothing in retrieval"),
    (("classify", "--data", "x", "--cls-bias", "0.1"), 2, "--cls-bias changes nothing in classify"),
    (("selo", "--data", "x", "--dense-mode", "maskclip"), 2, "--dense-mode changes nothing in selo"),
    (("segment", "--data", "x", "--cls-bias", "0", "-s", "cls_bias=0"), 2, "both given"),
    (("detect", "--data", "x", "-o", "."), 2, "is a directory"),
    (("report", "-o", "x.html"), 2, "Missing argument"),
    (("table",), 2, "Missing argument"),
])  # fmt: skip
def test_wrong_usage_is_one_line(args, code, message, run):
    found, said, err = run(*args)
    assert found == code and said == "" and err.count("\n") == 1 and re.search(message, err), err


def test_a_missing_model_is_one_line(run, karpathy):  # noqa: F811
    code, _, err = run("retrieval", "--data", karpathy, model="no-such-model")
    assert code == 1 and err.startswith("error: ") and "no-such-model" in err and err.count("\n") == 1


@pytest.mark.parametrize("text", [
    "", "[]", "{}", "[1", '"format"', '{"format": 7}', None,
    '{"format": 1, "metrics": {"a": {"value": "x", "low": null, "high": null, "unit": "%", "better": "higher"}}}',
])  # fmt: skip
def test_files_that_are_no_results_are_one_line(text, run, tmp_path):
    path = tmp_path / "result.json"
    if text is not None:
        path.write_text(text)
    for args in (("table", path), ("report", path, "-o", tmp_path / "p.html")):
        code, said, err = run(*args)
        assert code == 1 and said == "" and err.count("\n") == 1 and "result.json" in err
    assert not (tmp_path / "p.html").exists()


# Help and progress ------------------------------------------------------------------------------------------------


def test_help_imports_no_torch():
    code = (
        "import sys; from training.evaluation.command import main; from tiling.clikit import run_cli; "
        "assert run_cli(main, ['--help']) == 0; "
        "heavy = {'torch', 'geopandas', 'matplotlib', 'sklearn', 'timm', 'open_clip', 'PIL'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in (*TITLES, "data", "table", "report", "castdet"))


@pytest.mark.parametrize("task", TITLES)
def test_a_tasks_help_tells_protocols_and_settings(task, run):
    from training.evaluation.registry import find_task

    code, said, _ = run(task, "--help")
    assert code == 0 and all(name in said for name in (*find_task(task).protocols, *find_task(task).settings))


def test_progress_is_told_before_anything_is_done(run, karpathy, monkeypatch):  # noqa: F811
    """Reading, loading and each stage show with nothing done yet: a first batch may take a minute."""
    told = []

    @contextlib.contextmanager
    def recorded():
        yield lambda *given: told.append(given)

    monkeypatch.setattr(command, "tqdm_progress", recorded)
    assert run("retrieval", "--data", karpathy)[0] == 0
    assert told[:2] == [(0, 1, "reading the data set"), (1, 1, "reading the data set")]
    for total, stage in ((1, "loading the model"), (3, "embedding images"), (5, "embedding texts")):
        assert next(given for given in told if given[2] == stage) == (0, total, stage)
        assert told.index((0, total, stage)) < told.index((total, total, stage))


def test_what_the_model_was_told_keeps_a_result_from_being_compared(run, tmp_path):
    """Options of the model are no settings of the task; the result has them all the same."""
    data, out = test_eval_regions.vhr10(tmp_path / "NWPU VHR-10 dataset"), tmp_path / "r.json"
    assert run("regions", "--data", data, "--cls-bias", "-0.3", "--templates", "imagenet-80", "-o", out)[0] == 0
    assert departures(read_result(out)) == ("cls_bias",)


def test_a_result_names_all_that_decides_it(run, karpathy, tmp_path):  # noqa: F811
    out = tmp_path / "deep" / "r.json"
    assert run("retrieval", "--data", karpathy, "--protocol", "retrieval-unique", "-o", out)[0] == 0
    item = json.loads(out.read_text())
    assert (item["format"], item["protocol"], item["model"]["precision"]) == (1, "retrieval-unique", "float32")
    assert item["model"]["templates"] == ["a satellite image. {}"] and item["dataset"]["counts"]["texts"] == 5
    assert set(item["seconds"]) == {"images", "texts", "ranks"} and item["settings"]["ties"] == "pessimistic"
