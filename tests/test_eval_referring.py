"""Referring grounding: figures by hand and against torchvision and torchmetrics, and every layout end to end."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eval_pictures import job, lines, picture
from tests.test_eval_regions import rrsisd
from tiling.errors import UsageError
from training.data.errors import DataError
from training.evaluation.layouts.regions import read_boxed
from training.evaluation.layouts.rsvg import read_answers, read_referred
from training.evaluation.metrics.referring import figures, overlap
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.tasks.refer import TASK

XML = """<annotation><filename>{stem}.jpg</filename><size><width>48</width><height>40</height></size>{objects}
</annotation>"""
OBJECT = """<object><name>ship</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>
<ymax>{box[3]}</ymax></bndbox><description>{text}</description></object>"""
OBJECTS = [
    ("00001", (0, 0, 20, 20), "the ship above"), ("00001", (20, 20, 40, 40), "the ship below"),
    ("00002", (10, 10, 30, 30), "a ship"), ("00003", (0, 0, 10, 10), "a small ship"),
]  # fmt: skip


def random_boxes(rng, count):
    low = rng.integers(0, 30, (count, 2))
    return np.concatenate([low, low + rng.integers(0, 20, (count, 2))], axis=1).astype(float)


def test_by_hand():
    """Equal; half; none at all; no answer; a box without area."""
    truth = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 5.0]])
    answers = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10], [np.nan] * 4, [5, 5, 5, 5]])
    found = overlap(answers, truth)
    assert found.iou.tolist() == [1, 0.5, 0, 0, 0]
    values = {name: value[0] for name, value in figures(found.table().sum(axis=0, keepdims=True)).items()}
    assert values == {
        "pr@0.5": 40, "pr@0.6": 20, "pr@0.7": 20, "pr@0.8": 20, "pr@0.9": 20,
        "mean_iou": 30, "cum_iou": pytest.approx(100 * 150 / (100 + 100 + 200 + 100)),
    }  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_agrees_with_torch(seed):
    import torch
    from torchvision.ops import box_iou

    rng = np.random.default_rng(seed)
    answers, truth = random_boxes(rng, 20), random_boxes(rng, 20)
    found = overlap(answers, truth)
    expected = np.nan_to_num(box_iou(torch.tensor(answers), torch.tensor(truth)).diagonal().numpy())
    assert np.allclose(found.iou, expected)
    order = rng.permutation(20)
    sums, moved = (overlap(answers[p], truth[p]).table().sum(axis=0, keepdims=True) for p in (np.arange(20), order))
    assert all(np.allclose(value, figures(moved)[name]) for name, value in figures(sums).items())
    assert all(np.allclose(value, figures(2 * sums)[name]) for name, value in figures(sums).items())
    assert (overlap(truth, answers).iou == found.iou).all()


def test_wrong_shapes():
    with pytest.raises(DataError, match="do not pair"):
        overlap(np.zeros((2, 4)), np.zeros((3, 4)))


def rsvg(folder, tests=(0, 1, 3)):
    """DIOR-RSVG: lists number the objects through all files."""
    for seed, stem in enumerate(sorted({stem for stem, _, _ in OBJECTS})):
        picture(folder / "JPEGImages" / f"{stem}.jpg", seed)
        (folder / "Annotations").mkdir(exist_ok=True)
        text = "".join(OBJECT.format(box=box, text=text) for name, box, text in OBJECTS if name == stem)
        (folder / "Annotations" / f"{stem}.xml").write_text(XML.format(stem=stem, objects=text))
    (folder / "test.txt").write_text("\n".join(str(number) for number in tests))
    (folder / "train.txt").write_text("\n".join(str(n) for n in range(4) if n not in tests))
    return folder


def run(data, tmp_path, model=None, **more):
    return TASK.run(job(data, model, tmp_path / "cache", "rsvg", **more))


def test_dior_rsvg_by_hand(tmp_path):
    data = rsvg(tmp_path / "DIOR_RSVG")
    answers = lines(tmp_path / "answers.jsonl", [
        {"image": "00001.jpg", "text": "the ship above", "bbox": [0, 0, 20, 18]},
        {"image": "00003.jpg", "text": "a small ship", "bbox": [0, 0, 10, 6.5]},
        {"image": "00002.jpg", "text": "a ship", "bbox": [0, 0, 1, 1]},
    ])  # fmt: skip
    result = run(data, tmp_path, answers=answers)
    values = {name: item.value for name, item in result.metrics.items()}
    assert values == {
        "pr@0.5": pytest.approx(200 / 3), "pr@0.6": pytest.approx(200 / 3), "pr@0.7": pytest.approx(100 / 3),
        "pr@0.8": pytest.approx(100 / 3), "pr@0.9": pytest.approx(100 / 3),
        "mean_iou": pytest.approx(100 * (0.9 + 0.65 + 0) / 3), "cum_iou": pytest.approx(100 * (360 + 65) / 900),
    }  # fmt: skip
    counts = result.dataset.counts
    assert (counts["images"], counts["sentences"], counts["unanswered"], counts["answers_to_nothing"]) == (2, 3, 1, 1)
    assert result.model is None and any("'test'" in note for note in result.notes)
    assert result.settings["split"] == PROTOCOLS["rsvg"].numbers["split"]["dior-rsvg"] == "test"
    assert len(read_referred(data, split="train").sentences) == 1
    with pytest.raises(DataError, match="has no part 'val'"):
        read_referred(data, split="val")


def test_one_text_for_two_boxes_of_an_image(tmp_path):
    """A file with an answer for each sentence is no mistake: they are taken in order, a single one stands for both."""
    data = rsvg(tmp_path / "DIOR_RSVG")
    path = data / "Annotations" / "00001.xml"
    path.write_text(path.read_text().replace("above", "here").replace("below", "here"))
    item = {"image": "00001.jpg", "text": "the ship here"}
    both = [{**item, "bbox": [0, 0, 20, 20]}, {**item, "bbox": [20, 20, 40, 40]}]
    result = run(data, tmp_path, answers=lines(tmp_path / "a.jsonl", both))
    assert result.metrics["mean_iou"].value == pytest.approx(200 / 3)
    result = run(data, tmp_path, answers=lines(tmp_path / "b.jsonl", both[:1]))
    assert result.metrics["mean_iou"].value == pytest.approx(100 / 3) and result.dataset.counts["unanswered"] == 1
    with pytest.raises(DataError, match="twice"):
        run(data, tmp_path, answers=lines(tmp_path / "c.jsonl", [*both, both[0]]))


def test_its_boxes_are_boxes_of_classes_too(tmp_path):
    """The lists number objects: no list of images, and an image of two parts is one image."""
    data = rsvg(tmp_path / "DIOR_RSVG", tests=(0, 3))
    whole, part = read_boxed(data), read_boxed(data, split="test")
    assert [len(scene.boxes) for scene in whole.scenes] == [2, 1, 1] and whole.classes == ("ship",)
    assert part.count == 2


def vrsbench(folder):
    picture(folder / "Images_val" / "P1_0001.png", size=(200, 80))
    items = [
        {"image_id": "P1_0001.png", "question": "the first", "ground_truth": "{<10><20><30><40>}", "question_id": 4},
        {"image_id": "P1_0001.png", "question": "the second", "ground_truth": "{<50><50><100><100>}", "question_id": 9},
    ]
    folder.joinpath("VRSBench_EVAL_referring.json").write_text(json.dumps(items))
    return folder


def test_vrsbench(tmp_path):
    data = read_referred(vrsbench(tmp_path / "VRSBench"))
    assert data.boxes.tolist() == [[20, 16, 60, 32], [100, 40, 200, 80]]
    answers = lines(tmp_path / "answers.jsonl", [
        {"question_id": 9, "answer": "It is at {<50><50><100><100>}"}, {"question_id": 4, "answer": "nowhere"}
    ])  # fmt: skip
    boxes, lost = read_answers(answers, data)
    assert lost == 0 and boxes[1].tolist() == [100, 40, 200, 80] and np.isnan(boxes[0]).all()
    assert run(tmp_path / "VRSBench", tmp_path, answers=answers).metrics["pr@0.7"].value == 50
    (tmp_path / "VRSBench" / "VRSBench_EVAL_referring.json").write_text(
        json.dumps([{"image_id": "P1_0001.png", "question": "x", "ground_truth": "{<1><2><3>}"}])
    )
    with pytest.raises(DataError, match="no box of VRSBench"):
        read_referred(tmp_path / "VRSBench")


def test_rrsisd(tmp_path):
    data = rrsisd(tmp_path / "data")
    with pytest.raises(DataError, match="is a pickle"):
        read_referred(data)
    found = read_referred(data, trust_pickle=True)
    assert found.split == PROTOCOLS["rsvg"].numbers["split"]["rrsisd"] == "test"
    assert [(item.text, item.box) for item in found.sentences] == [
        ("the 2th thing", (20, 10, 40, 30)), ("the 3th thing", (1, 1, 47, 39))
    ]  # fmt: skip


@pytest.mark.parametrize(("items", "message"), [
    ([{"id": 0, "bbox": [1, 2, 3]}], "4 numbers"),
    ([{"id": 0, "bbox": [0, 0, 1, 1]}, {"id": "0", "bbox": [0, 0, 2, 2]}], "twice"),
    ([{"id": 77, "bbox": [0, 0, 1, 1]}], "answers none"),
    ([7], "is not an answer"),
    ([{"id": 1, "bbox": [0, 0, math.nan, 1]}], r"jsonl:1: a box is not finite"),
    ([{"id": 1, "bbox": [0, 0, math.inf, 1]}], "write null"),
])  # fmt: skip
def test_wrong_answers(tmp_path, items, message):
    data = rsvg(tmp_path / "DIOR_RSVG")
    with pytest.raises(DataError, match=message):
        run(data, tmp_path, answers=lines(tmp_path / "answers.jsonl", items))


def test_answers_without_area_are_told(tmp_path):
    data = rsvg(tmp_path / "DIOR_RSVG")
    boxes = [[20, 0, 0, 18], [3, 3, 3, 9], None]
    items = [{"id": number, "bbox": box} for number, box in enumerate(boxes)]
    result = run(data, tmp_path, answers=lines(tmp_path / "answers.jsonl", items))
    counts = result.dataset.counts
    assert (counts["answers_without_area"], counts["unanswered"], result.metrics["mean_iou"].value) == (2, 1, 0)
    assert any(note.startswith("2 answers have no area") for note in result.notes)


def test_wrong_data_and_settings(tmp_path):
    data = rsvg(tmp_path / "DIOR_RSVG")
    with pytest.raises(DataError, match="cannot be read"):
        run(data, tmp_path, answers=tmp_path / "no.json")
    with pytest.raises(UsageError, match="changes no file"):
        run(data, tmp_path, answers="x", threshold=0.5)
    with pytest.raises(DataError, match="is missing"):
        read_referred(tmp_path / "no")
    (data / "Annotations" / "00002.xml").write_text("<annotation>")
    with pytest.raises(DataError, match="is not XML"):
        run(data, tmp_path, answers="x")


def test_from_our_heatmaps(tmp_path, tiny_model):
    """A blind model answers every sentence, inside the image, the same when it is asked again."""
    data = rsvg(tmp_path / "DIOR_RSVG")
    result = run(data, tmp_path, tiny_model)
    assert result.dataset.counts["unanswered"] == 0 and result.model.dense_mode
    assert 0 <= result.metrics["mean_iou"].value <= result.metrics["pr@0.5"].value / 2 + 50
    for shown in result.details["pictures"]:
        for box in shown["boxes"]:
            x1, y1, x2, y2 = box["box"]
            assert 0 <= x1 < x2 <= 48 and 0 <= y1 < y2 <= 40
    assert run(data, tmp_path, tiny_model).metrics == result.metrics
