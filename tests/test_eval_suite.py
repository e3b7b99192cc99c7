"""Suites: many measurements in one command, continued, strict, and not stopped by one that fails."""

from __future__ import annotations

import json

import pytest

from tests.eval_pictures import job, lines, picture
from tiling.clikit import run_cli
from tiling.errors import UsageError
from training.data.errors import DataError
from training.evaluation.command import main
from training.evaluation.result import read_result
from training.evaluation.suite import read_suite
from training.evaluation.tasks import presence, retrieval

KINDS = ("beach", "forest", "port")


@pytest.fixture
def parts(tmp_path):
    """A folder with records of pictures in three classes, and a suite of three measurements, the second broken."""
    folder = tmp_path / "parts"
    for number in range(6):
        picture(folder / "data" / f"{number}.png", number)
    lines(
        folder / "data" / "scenes.jsonl",
        [
            {"image": f"{number}.png", "label": KINDS[number % 3], "captions": [f"text {number}", "a shared text"]}
            for number in range(6)
        ],
    )
    (folder / "words.json").write_text(json.dumps({"port": "boats in a harbour"}))
    write(folder, [
        {"name": "captions", "task": "retrieval", "data": "data/scenes.jsonl", "protocol": "retrieval-own"},
        {"name": "broken", "task": "point", "data": "nowhere"},
        {
            "name": "names", "task": "classify", "data": "data/scenes.jsonl", "protocol": "zsc-folders", "limit": 5,
            "settings": {"words": {"file": "words.json"}, "templates": "{}"},
        },
    ])  # fmt: skip
    return folder


def write(folder, measurements, **more):
    (folder / "suite.json").write_text(json.dumps({"title": "All", "measurements": measurements, **more}))


@pytest.fixture
def run(parts, tiny_model, tmp_path, capsys):
    """Run the suite; give (exit code, lines of stdout, stderr)."""

    def call(*args, model=tiny_model):
        told = ["suite", parts / "suite.json", "--model", model, "-o", tmp_path / "results", "--device", "cpu",
                "--cache", tmp_path / "cache", *args]  # fmt: skip
        code = run_cli(main, [str(item) for item in told], name="geoalign-eval")
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return call


def test_one_that_fails_stops_no_other_and_all_goes_on(parts, run, tmp_path):
    code, out, err = run()
    assert code == 1
    assert out == ["1/3 captions: measured", "2/3 broken: failed", "3/3 names: measured"]
    assert err.splitlines()[-1].startswith("failed: broken: ") and "nowhere: is missing" in err
    names = read_result(tmp_path / "results" / "names.json")
    assert names.details["words"]["port"] == "boats in a harbour"
    assert names.dataset.counts["images"] == 5 and names.protocol == "zsc-folders"
    assert run()[1] == ["1/3 captions: there already", "2/3 broken: failed", "3/3 names: there already"]
    assert run("--again")[1][2] == "3/3 names: measured"


def test_results_are_kept_for_the_same_question_only(parts, run, tiny_model, tmp_path):
    write(parts, json.loads((parts / "suite.json").read_text())["measurements"][::2])
    assert run()[0] == 0
    kept = ["1/2 captions: there already", "2/2 names: there already"]
    assert run()[1] == kept
    (parts / "words.json").write_text(json.dumps({"port": "ships"}))
    assert run()[1] == [kept[0], "2/2 names: measured"]
    picture(parts / "data" / "4.png", 9, (88, 88))
    assert run()[1] == ["1/2 captions: measured", "2/2 names: measured"]
    assert run("--precision", "bfloat16")[1] == ["1/2 captions: measured", "2/2 names: measured"]  # another key
    (tmp_path / "results" / "names.json").write_text("{}")
    assert run("--precision", "bfloat16")[1] == [kept[0], "2/2 names: measured"]


GOOD = {"name": "a", "task": "retrieval", "data": "data/scenes.jsonl"}


@pytest.mark.parametrize(
    ("measurements", "said"),
    [
        ([{**GOOD, "colour": "red"}], "unknown key"),
        ([{"name": "a", "task": "retrieval"}], "lacks a key"),
        ([{**GOOD, "task": "retrieve"}], "no task is called"),
        ([{**GOOD, "protocol": "zsc-folders"}], "has no protocol"),
        ([{**GOOD, "settings": {"rim": "inside"}}], "has no setting 'rim'"),
        ([{**GOOD, "settings": {"ties": ["optimistic"]}}], "the setting ties is of another type"),
        ([{**GOOD, "limit": 0}], "at least one"),
        ([{**GOOD, "limit": "4"}], "limit is of another type"),
        ([{**GOOD, "limit": True}], "limit is of another type"),
        ([{**GOOD, "name": "../a"}], "letters, digits"),
        ([GOOD, {**GOOD, "name": "A"}], "a name twice"),
        ([], "no measurements"),
        (["retrieval"], "is no object"),
    ],
)
def test_what_is_wrong_with_a_suite_is_said_before_anything_is_measured(parts, run, tmp_path, measurements, said):
    write(parts, measurements)
    code, _, err = run()
    assert code == 2 and said in err and len(err.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_a_file_that_is_no_suite(parts):
    write(parts, [GOOD], comment="none")
    with pytest.raises(UsageError, match="unknown key"):
        read_suite(parts / "suite.json")
    (parts / "suite.json").write_text("[")
    with pytest.raises(DataError, match="is no suite"):
        read_suite(parts / "suite.json")


def test_own_captions_by_brute_force(parts, tiny_model, tmp_path):
    """Images rank distinct texts; every caption of every image asks for its own image."""
    import numpy as np

    from tests.eval_pictures import encoder, whole

    found = retrieval.TASK.run(job(parts / "data/scenes.jsonl", tiny_model, tmp_path / "cache", "retrieval-own"))
    model = encoder(tiny_model)
    images = np.stack([whole(model, parts / "data" / f"{number}.png") for number in range(6)])
    texts = model.encode_text([*(f"text {number}" for number in range(6)), "a shared text"])
    cosines = images @ texts.T
    i2t = [(cosines[row] > cosines[row, [row, 6]].max()).sum() for row in range(6)]
    t2i = [(cosines[:, text] > cosines[row, text]).sum() for row in range(6) for text in (row, 6)]
    for k in (1, 5):
        assert found.metrics[f"i2t_r@{k}"].value == pytest.approx(100 * np.mean(np.array(i2t) < k))
        assert found.metrics[f"t2i_r@{k}"].value == pytest.approx(100 * np.mean(np.array(t2i) < k))
    assert (found.dataset.counts["texts"], found.dataset.counts["unique_texts"]) == (12, 7)
    assert found.settings["ties"] == "optimistic"


def test_questions_to_whole_images(parts, tiny_model, tmp_path):
    def ask(**settings):
        return presence.TASK.run(
            job(parts / "data/scenes.jsonl", tiny_model, tmp_path / "cache", "presence-quarter", **settings)
        )

    found = ask(questions="water=beach|port;trees=forest")
    rows = {row["word"]: row for row in found.details["questions"]}
    assert (rows["water"]["positives"], rows["water"]["negatives"]) == (4, 2)
    assert found.metrics["ROC AUC"].value == pytest.approx((rows["water"]["roc_auc"] + rows["trees"]["roc_auc"]) / 2)
    assert found.metrics["ROC AUC"].low <= found.metrics["ROC AUC"].value <= found.metrics["ROC AUC"].high
    assert [row["word"] for row in ask().details["questions"]] == list(KINDS)
    listed = tmp_path / "questions.json"
    listed.write_text(json.dumps({"trees": ["forest"]}))
    (row,) = ask(questions=listed).details["questions"]
    assert row == rows["trees"]
    assert ask(limit=3, questions=listed).dataset.counts["images"] == 3
    with pytest.raises(UsageError, match="does not have"):
        ask(questions="trees=wood")
