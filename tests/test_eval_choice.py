"""Multiple choice: accuracy by hand and against scikit-learn, options out of questions, CHOICE's tree."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eval_pictures import encoder, job, picture, whole
from tiling.errors import UsageError
from training.data.errors import DataError
from training.evaluation.layouts.choice import Question, parse_options, read_choice
from training.evaluation.metrics.choice import answer
from training.evaluation.tasks.choice import CHOICE, TASK, sentences


def rows(*values):
    return [np.array(row, np.float32) for row in values]


# Metric -----------------------------------------------------------------------------------------------------------


def test_by_hand():
    """Right; wrong; tied for the best, which is no answer; right among two."""
    found = answer(rows([0.1, 0.9, 0.3], [0.5, 0.2], [0.4, 0.4, 0.1, 0.0], [0.6, 0.2]), [1, 1, 0, 0])
    assert found.correct.tolist() == [True, False, False, True] and found.tied.tolist() == [False, False, True, False]
    assert found.accuracy == 50 and found.chance == pytest.approx(100 * (1 / 3 + 1 / 2 + 1 / 4 + 1 / 2) / 4)
    assert found.by(["x", "y", "x", "x"]) == {"x": (pytest.approx(200 / 3), 3), "y": (0, 1)}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_agrees_with_scikit_learn_and_ignores_order(seed):
    from sklearn.metrics import accuracy_score

    rng = np.random.default_rng(seed)
    values, right = rng.normal(size=(25, 4)).astype(np.float32), rng.integers(4, size=25)
    found = answer(list(values), right.tolist())
    assert found.accuracy == pytest.approx(100 * accuracy_score(right, values.argmax(axis=1)))
    other = rng.permutation(4)
    moved = answer(list(values[:, np.argsort(other)]), other[right].tolist())
    assert (moved.correct == found.correct).all() and not found.tied.any()


def test_no_questions_have_no_accuracy():
    assert np.isnan(answer([], []).accuracy) and np.isnan(answer([], []).chance)


# Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Which?\nA.No\nB.can't judge\nC.Yes", ("No", "can't judge", "Yes")),
        ("Which?\nA. one \n B) two\n(C) three", ("one", "two", "three")),
        ("A long\nstem?\nA.one\nmore\nB.two", ("one more", "two")),
        ("Which?\nA.U.S.A. B. C.\nB.other", ("U.S.A. B. C.", "other")),
        ("Give the box of the plane.", None),
        ("Which?\nA.only one", None),
        ("Which?\nA.one\nC.three", None),
        ("Which?\nA.one\nB.", None),
    ],
)
def test_options(question, options):
    found = parse_options(question)
    assert (found and found[1]) == options


def test_the_stem_may_go_into_the_text():
    question = Question("1", "a.png", "What is it?", ("a {dock}", "sea"), 0, "task")
    assert sentences(question, "{option}") == ["a {dock}", "sea"]
    assert sentences(question, "{stem} It is {option}.") == ["What is it? It is a {dock}.", "What is it? It is sea."]


# Layout, end to end -----------------------------------------------------------------------------------------------


def entry(number, answer="A", question="Which?\nA.a sea\nB.a road\nC.a port", image=None):
    name = f"perception/image_level/scene/images/{number}.png" if image is None else image
    return {"id": f"id-{number}", "image_path": name, "question": question, "answer": answer}


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "CHOICE"
    for number in range(3):
        picture(top / "perception" / "image_level" / "scene" / "images" / f"{number}.png", number)
    scenes = [entry(0), entry(1, "B"), entry(2, "C"), entry(0, "D"), entry(1, question="Draw a box.")]
    two = [entry(2, image=["a.png", "b.png"]), entry(2, "B", "Is it?\nA.Yes\nB.No")]
    for name, items in (("scene", scenes), ("change", two)):
        file = top / "perception" / "image_level" / name / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(items))
    (top / "about.json").write_text('{"licence": "none"}')
    return top


def test_end_to_end_as_by_hand(tree, tiny_model, tmp_path):
    result = TASK.run(job(tree, tiny_model, tmp_path / "cache", CHOICE))
    model, right = encoder(tiny_model), []
    asked = [(0, ["a sea", "a road", "a port"], 0), (1, ["a sea", "a road", "a port"], 1),
             (2, ["a sea", "a road", "a port"], 2), (2, ["Yes", "No"], 1)]  # fmt: skip
    for number, options, place in asked:
        seen = whole(model, tree / "perception" / "image_level" / "scene" / "images" / f"{number}.png")
        right.append(int((model.encode_text(options) @ seen).argmax()) == place)
    assert result.metrics["accuracy"].value == pytest.approx(100 * np.mean(right))
    assert result.metrics["chance"].value == pytest.approx(100 * (3 / 3 + 1 / 2) / 4)
    assert (result.dataset.counts["questions"], result.dataset.counts["unparsed"]) == (4, 3)
    reasons = {"id-0": "the answer is none of the options", "id-1": "no options", "id-2": "not one image"}
    assert dict(result.details["unparsed"]) == reasons
    assert {row["name"]: row["count"] for row in result.details["per_class"][0]["rows"]} == {"change": 1, "scene": 3}


def test_parts_of_the_tree(tree, tiny_model, tmp_path):
    assert len(read_choice(tree, only=["change"]).questions) == 1
    assert len(read_choice(tree, only=["image_level"]).questions) == 4
    file = tree / "perception" / "image_level" / "scene" / "scene.json"
    assert read_choice(file).root == tree.resolve() and len(read_choice(file).questions) == 3
    result = TASK.run(job(tree, tiny_model, tmp_path / "cache", CHOICE, only="scene", template="it is {option}"))
    assert result.dataset.counts["questions"] == 3 and result.settings["only"] == ["scene"]
    with pytest.raises(DataError, match=r"no part 'water' \(.*scene"):
        read_choice(tree, only=["water"])


def test_near_ties_are_answered_as_the_model_does(tree, tiny_model, tmp_path):
    """Two options whose cosines are nearer to each other than float16 can tell."""
    model, folder = encoder(tiny_model), tree / "perception" / "image_level" / "scene"
    seen = whole(model, folder / "images" / "1.png").astype(np.float64)
    words = [f"a {colour} {thing} near {number} houses" for colour in ("red", "old") for thing in ("roof", "ship")
             for number in range(150)]  # fmt: skip
    values = np.asarray(model.encode_text(words), np.float64) @ seen
    order = np.argsort(-values)
    near = [pair for pair in itertools.pairwise(order) if 1e-6 < values[pair[0]] - values[pair[1]] < 3e-5]
    assert len(near) > 9
    questions = [entry(1, question=f"Which?\nA. {words[one]}\nB. {words[other]}") for one, other in near]
    (folder / "scene.json").write_text(json.dumps(questions))
    result = TASK.run(job(tree, tiny_model, tmp_path / "cache", CHOICE, only="scene"))
    assert result.dataset.counts["questions"] == len(near) and result.metrics["accuracy"].value == 100


def test_wrong_trees(tree, tiny_model, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no multiple-choice questions"):
        read_choice(tmp_path / "empty")
    with pytest.raises(DataError, match="is missing"):
        read_choice(tmp_path / "nowhere")
    (tree / "perception" / "image_level" / "scene" / "images" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png: an image is missing"):
        TASK.run(job(tree, tiny_model, tmp_path / "cache", CHOICE))
    result = TASK.run(job(tree, tiny_model, tmp_path / "cache", CHOICE, unreadable="skip"))
    assert result.dataset.counts["skipped_questions"] == 1 and result.dataset.counts["questions"] == 3
    (tree / "bad.json").write_text('[{"question": "x",]')
    with pytest.raises(DataError, match=r"bad\.json:1: is not JSON"):
        read_choice(tree)
    for wrong in ({"template": "no option"}, {"template": "{option} {other}"}, {"split": "test"}):
        with pytest.raises(UsageError):
            TASK.run(job(tree, tiny_model, tmp_path / "cache", CHOICE, **wrong))
