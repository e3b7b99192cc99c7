"""Hard negatives: ranks by both tie rules by hand and against scikit-learn, chance, FG-OVD's lines and records."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eval_pictures import encoder, job, lines, picture, whole
from tiling.errors import UsageError
from training.data.errors import DataError
from training.evaluation.layouts.negatives import read_negatives
from training.evaluation.metrics.negatives import judge
from training.evaluation.tasks.negatives import FGOVD, TASK


def rows(*values):
    return [np.array(row, np.float32) for row in values]


# Metric -----------------------------------------------------------------------------------------------------------


def test_by_hand():
    """True text first: alone at the top; tied with one; below two and tied with one of three; second of two."""
    found = judge(rows([0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.3, 0.4, 0.5, 0.3], [0.1, 0.2]), [1, 1, 1, 1])
    assert found.pessimistic.tolist() == [1, 2, 4, 2] and found.optimistic.tolist() == [1, 1, 3, 2]
    assert found.accuracy(1) == 25 and found.accuracy(1, "optimistic") == 50
    assert found.accuracy(2) == 75 and found.accuracy(3, "optimistic") == 100
    assert found.chance(1) == pytest.approx(100 * (1 / 3 + 1 / 3 + 1 / 4 + 1 / 2) / 4)
    assert found.chance(2) == pytest.approx(100 * (2 / 3 + 2 / 3 + 2 / 4 + 1) / 4) and found.chance(9) == 100


def test_fg_ovd_has_eleven_candidates():
    found = judge([np.arange(11, dtype=np.float32)] * 3, [1] * 3)
    assert found.chance(1) == pytest.approx(9.09, abs=0.01) and found.chance(5) == pytest.approx(45.45, abs=0.01)


def test_the_best_of_several_true_texts_counts():
    found = judge(rows([0.1, 0.8, 0.5, 0.2]), [2])
    assert found.pessimistic.tolist() == [1]
    assert found.chance(1) == 50 and found.chance(2) == pytest.approx(100 * (1 - 1 / 6))


def test_a_model_that_says_nothing_gets_nothing_by_one_rule_and_all_by_the_other():
    found = judge([np.ones(11, np.float32)] * 4, [1] * 4)
    assert found.accuracy(5) == 0 and found.accuracy(1, "optimistic") == 100


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_agrees_with_scikit_learn_and_ignores_order(seed, k):
    from sklearn.metrics import top_k_accuracy_score

    rng = np.random.default_rng(seed)
    values = rng.normal(size=(20, 7)).astype(np.float32)
    found = judge(list(values), [1] * 20)
    labels = np.zeros(20, int)
    assert found.accuracy(k) == pytest.approx(100 * top_k_accuracy_score(labels, values, k=k, labels=range(7)))
    assert (found.pessimistic == found.optimistic).all()
    mixed = values.copy()
    rng.permuted(mixed[:, 1:], axis=1, out=mixed[:, 1:])
    assert (judge(list(mixed), [1] * 20).pessimistic == found.pessimistic).all()
    order = rng.permutation(20)
    assert judge(list(values[order]), [1] * 20).accuracy(k) == found.accuracy(k)
    copied = judge([np.concatenate([row, row[1:]]) for row in values], [1] * 20)
    assert (copied.pessimistic - 1 == 2 * (found.pessimistic - 1)).all()


def test_wrong_scores_are_refused():
    with pytest.raises(DataError, match="no positive text"):
        judge(rows([1.0]), [0])
    with pytest.raises(DataError, match="not finite"):
        judge(rows([1.0, np.inf]), [1])
    assert np.isnan(judge([], []).accuracy(1)) and np.isnan(judge([], []).chance(1))


# Layouts, end to end ----------------------------------------------------------------------------------------------


def item(image, box, positive, *negatives):
    return {"img_path": image, "bbox": box, "pos_expression": [positive], "neg_expression": list(negatives)}


ITEMS = [
    item("a.png", [4, 4, 20, 16], "a red roof", "a blue roof", "a red road"),
    item("b.png", [0, 0, 48, 40], "a ship", "a car"),
    item("a.png", [8, 8, 30, 30], "a tree", "a tree", "a bush", "a pole"),
]


def pixels(path):
    from PIL import Image

    with Image.open(path) as image:
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


@pytest.fixture
def fgovd(tmp_path):
    for number, name in enumerate("ab"):
        picture(tmp_path / "data" / "images" / f"{name}.png", number)
    return lines(tmp_path / "data" / "1_attributes.jsonl", ITEMS)


@pytest.mark.parametrize("view", ["roi", "crop", "both"])
def test_end_to_end_as_by_hand(fgovd, tiny_model, tmp_path, view):
    from geoalign_core.features import region_features

    result = TASK.run(job(fgovd, tiny_model, tmp_path / "cache", FGOVD, view=view, k="1,2"))
    model, ranks = encoder(tiny_model), []
    for entry in ITEMS:
        x, y, width, height = entry["bbox"]
        array = pixels(fgovd.parent / "images" / entry["img_path"])
        box = np.array([[x, y, x + width, y + height]])
        seen = region_features([array], [box], encoder=model, view=view).mean[0]
        values = model.encode_text(entry["pos_expression"] + entry["neg_expression"]) @ seen
        ranks.append(1 + int((values[1:] >= values[0] - 1e-6).sum()))
    assert result.metrics["acc@1"].value == pytest.approx(100 * np.mean(np.array(ranks) == 1))
    assert result.metrics["acc@2"].value == pytest.approx(100 * np.mean(np.array(ranks) <= 2))
    assert result.metrics["chance@1"].value == pytest.approx(100 * (1 / 3 + 1 / 2 + 1 / 4) / 3)
    assert result.metrics["acc@1_optimistic"].value >= result.metrics["acc@1"].value
    counts = result.dataset.counts
    assert (counts["items"], counts["images"], counts["texts"], counts["ties"]) == (3, 2, 9, 1)
    assert (counts["fewest_candidates"], counts["most_candidates"]) == (2, 4)
    assert (result.model.dense_mode is None) == (view == "crop") and len(result.details["pictures"]) == 3


def test_near_ties_are_ranked_as_the_model_does(tiny_model, tmp_path):
    """The texts of an item have cosines that are nearer to each other than float16 can tell."""
    from geoalign_core.features import region_features

    model, array = encoder(tiny_model), pixels(picture(tmp_path / "a.png"))
    seen = region_features([array], [np.array([[0, 0, 30, 30]])], encoder=model, view="roi").mean[0]
    texts = [f"a {colour} {thing} near {number} houses" for colour in ("red", "old") for thing in ("roof", "ship")
             for number in range(150)]  # fmt: skip
    values = np.asarray(model.encode_text(texts), np.float64) @ seen.astype(np.float64)
    order = np.argsort(-values)
    near = [pair for pair in itertools.pairwise(order) if 1e-6 < values[pair[0]] - values[pair[1]] < 3e-5]
    assert len(near) > 9
    entries = [item("a.png", [0, 0, 30, 30], texts[one], texts[other]) for one, other in near]
    data = lines(tmp_path / "items.jsonl", entries)
    assert TASK.run(job(data, tiny_model, tmp_path / "cache", FGOVD)).metrics["acc@1"].value == 100


def test_an_item_without_a_box_is_the_whole_image(tiny_model, tmp_path):
    path = picture(tmp_path / "a.png")
    entry = {"image": "a.png", "positive": "a sea", "negatives": ["a road", "a port"]}
    data = lines(tmp_path / "items.jsonl", [entry])
    result = TASK.run(job(data, tiny_model, tmp_path / "cache", FGOVD, view="crop"))
    model = encoder(tiny_model)
    values = model.encode_text(["a sea", "a road", "a port"]) @ whole(model, path)
    assert (result.metrics["acc@1"].value == 100) == bool(values[0] > values[1:].max())


def test_a_damaged_picture_without_a_box_can_be_left_out(tiny_model, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    entries = [{"image": name, "positive": "a sea", "negatives": ["a road"]} for name in ("a.png", "b.png")]
    data = lines(tmp_path / "items.jsonl", entries)
    result = TASK.run(job(data, tiny_model, tmp_path / "cache", FGOVD, unreadable="skip"))
    assert (result.dataset.counts["items"], result.dataset.counts["skipped_items"]) == (1, 1)
    with pytest.raises(DataError, match=r"b\.png"):
        TASK.run(job(data, tiny_model, tmp_path / "cache", FGOVD))


def test_boxes_by_corners(tmp_path):
    picture(tmp_path / "a.png")
    entry = {"image": "a.png", "box_xyxy": [1, 2, 11, 22], "pos": ["x"], "neg": ["y"]}
    assert read_negatives(lines(tmp_path / "a.jsonl", [entry])).items[0].box_xyxy == (1, 2, 11, 22)
    entry = {"image": "a.png", "bbox": [1, 2, 11, 22], "pos": ["x"], "neg": ["y"]}
    assert read_negatives(lines(tmp_path / "a.jsonl", [entry])).items[0].box_xyxy == (1, 2, 12, 24)


def test_regions_of_records(tiny_model, tmp_path):
    picture(tmp_path / "a.png", size=(40, 40))
    regions = [
        {"bbox": [0.1, 0.2, 0.6, 0.9], "phrase": "a ship", "hard_negatives": [{"text": "a boat"}, {"text": "a car"}]},
        {"bbox": [0.0, 0.0, 0.5, 0.5], "phrase": "a pier"},
        {"bbox": [0.0, 0.0, 0.5, 0.5], "category": "pier"},
    ]
    lines(tmp_path / "records.jsonl", [{"image": "a.png", "regions": regions}])
    found = read_negatives(tmp_path)
    assert found.items[0].box_xyxy == pytest.approx((4, 8, 24, 36)) and found.without == 1 and len(found.items) == 1
    result = TASK.run(job(tmp_path, tiny_model, tmp_path / "cache", FGOVD))
    assert result.dataset.counts["texts"] == 3 and result.dataset.counts["items_without_negatives"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"items\.jsonl:2: a box does not have 4 numbers"),
        ({"bbox": [1, 2, 0, 3]}, r"items\.jsonl:2: a box has no area"),
        ({"bbox": [1, 2, float("nan"), 3]}, r"items\.jsonl:2"),
        ({"pos_expression": []}, r"items\.jsonl:2: has no true text"),
        ({"neg_expression": [3]}, r"items\.jsonl:2: texts are not"),
        ({"img_path": None}, r"items\.jsonl:2: has no image"),
        ({"img_path": "../../secret.png"}, "lies outside"),
    ],
)
def test_wrong_lines(tmp_path, change, message):
    path = lines(tmp_path / "items.jsonl", [ITEMS[0], {**ITEMS[1], **change}])
    with pytest.raises(DataError, match=message):
        read_negatives(path)


def test_wrong_files_and_options(fgovd, tiny_model, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text(fgovd.read_text() + "{no json\n")
    with pytest.raises(DataError, match=r"broken\.jsonl:4"):
        read_negatives(broken)
    with pytest.raises(DataError, match="no regions with negatives"):
        read_negatives(lines(tmp_path / "none.jsonl", [{**ITEMS[0], "neg_expression": []}]))
    (fgovd.parent / "images" / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png: an image is missing \(1 of 3\)"):
        TASK.run(job(fgovd, tiny_model, tmp_path / "cache", FGOVD))
    result = TASK.run(job(fgovd, tiny_model, tmp_path / "cache", FGOVD, unreadable="skip"))
    assert result.dataset.counts["skipped_items"] == 1 and result.dataset.counts["items"] == 2
    for wrong in ({"view": "box"}, {"k": "0"}, {"k": "one"}):
        with pytest.raises(UsageError):
            TASK.run(job(fgovd, tiny_model, tmp_path / "cache", FGOVD, **wrong))
