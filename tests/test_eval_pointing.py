"""Patches against boxes: labels, figures against scikit-learn and the model card, and the task on real scenes."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tiling.errors import UsageError
from tiling.progress import CancelToken, silent
from training.data.errors import DataError
from training.evaluation.layouts.boxes import read_boxes, words_for
from training.evaluation.metrics.pointing import Curve, near_boxes, patch_figures, patch_labels
from training.evaluation.protocols import PROTOCOLS


def test_labels_by_hand():
    # Centres at 5, 15, 25; the box holds the centre of one patch and touches its right and lower neighbours.
    labels = patch_labels([[2, 2, 12, 12]], 3, 3, 10)
    assert labels.tolist() == [[1, -1, 0], [-1, -1, 0], [0, 0, 0]]
    assert patch_labels([[5, 5, 15, 15]], 2, 2, 10).tolist() == [[1, -1], [-1, -1]]  # lower edges out, upper in
    assert not patch_labels([[10, 10, 10, 30]], 3, 3, 10).any()  # no area
    assert patch_labels([], 2, 2, 10).tolist() == [[0, 0], [0, 0]]
    # A rim never takes away what another box holds.
    assert patch_labels([[0, 0, 10, 10], [9, 0, 20, 10]], 1, 2, 10).tolist() == [[1, 1]]


def random_samples(seed, *, ties=False, scenes=4):
    rng = np.random.default_rng(seed)
    labels = [rng.choice(np.array([-1, 0, 1], np.int8), (5, 6), p=[0.1, 0.75, 0.15]) for _ in range(9)]
    odds = [(rng.normal(size=(5, 6)) + (label == 1)).astype(np.float32) for label in labels]
    odds = [np.round(value) if ties else value for value in odds]
    return odds, labels, [f"scene {rng.integers(scenes)}" for _ in range(9)]


@pytest.mark.parametrize(("seed", "ties"), [(0, False), (1, True), (2, False), (3, True)])
def test_figures_against_scikit_learn(seed, ties):
    from scipy.special import expit
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    odds, labels, groups = random_samples(seed, ties=ties)
    found, clear = patch_figures(odds, labels, groups), patch_figures(odds, labels, groups, rim="ignore")
    values, flat = np.concatenate([item.ravel() for item in odds]), np.concatenate([item.ravel() for item in labels])
    precision, recall, thresholds = precision_recall_curve(flat == 1, values)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert found.average_precision == pytest.approx(average_precision_score(flat == 1, values))
    assert clear.average_precision == pytest.approx(average_precision_score(flat[flat >= 0] == 1, values[flat >= 0]))
    assert found.roc_auc == pytest.approx(roc_auc_score(flat == 1, values))
    assert (found.f1_best, found.best_threshold) == pytest.approx(
        (f1.max(), expit(thresholds[np.argmax(f1[:-1])])), rel=1e-12
    )
    assert found.base_rate == pytest.approx((flat == 1).mean())


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
@settings(max_examples=30, deadline=None)
def test_curve_against_scikit_learn(pairs):
    from sklearn.metrics import average_precision_score, roc_auc_score

    values, truth = np.array([pair[0] for pair in pairs], np.float32), np.array([pair[1] for pair in pairs])
    curve = Curve.of(values, truth)
    if not truth.any():
        assert math.isnan(curve.average_precision()) and math.isnan(curve.roc_auc()) and math.isnan(curve.best_f1()[0])
        return
    assert curve.average_precision() == pytest.approx(average_precision_score(truth, values))
    if truth.all():
        assert math.isnan(curve.roc_auc())
    else:
        assert curve.roc_auc() == pytest.approx(roc_auc_score(truth, values))


def test_rims_by_hand():
    odds = [np.array([[3.0, 2.0, 1.0, -1.0]], np.float32)]
    labels = [np.array([[-1, 1, 0, 0]], np.int8)]
    outside = patch_figures(odds, labels, ["a"])
    assert (outside.average_precision, outside.base_rate, outside.pointing_hits) == (0.5, 0.25, 0)
    ignored = patch_figures(odds, labels, ["a"], rim="ignore")
    assert (ignored.average_precision, ignored.base_rate, ignored.pointing_hits) == (1.0, pytest.approx(1 / 3), 1)
    inside = patch_figures(odds, labels, ["a"], rim="inside")
    assert (inside.average_precision, inside.base_rate, inside.pointing_hits) == (1.0, 0.5, 1)
    assert outside.precision_at_half == pytest.approx(1 / 3) and outside.recall_at_half == 1
    with pytest.raises(UsageError, match="rule for rims"):
        patch_figures(odds, labels, ["a"], rim="both")


def test_no_image_no_positive_and_no_patch():
    odds = [np.array([[np.nan, 2.0]], np.float32), np.array([[5.0, -4.0]], np.float32)]
    labels = [np.array([[1, 0]], np.int8), np.array([[0, 1]], np.int8)]
    found = patch_figures(odds, labels, ["a", "b"])
    assert (found.base_rate, found.pointing_scenes) == (pytest.approx(1 / 3), 1)
    empty = patch_figures(odds, [np.zeros((1, 2), np.int8)] * 2, ["a", "b"])
    assert math.isnan(empty.average_precision) and math.isnan(empty.pointing) and empty.f1_at_half == 0
    assert math.isnan(patch_figures([], [], []).base_rate)


def test_pointing_with_the_tolerance_of_the_literature():
    centres = np.array([[[7.0, 7.0], [21.0, 7.0], [35.0, 7.0]]])
    boxes = [[40, 0, 60, 14]]
    assert near_boxes(centres, boxes, 0).tolist() == [[False, False, False]]
    assert near_boxes(centres, boxes, 15).tolist() == [[False, False, True]]
    assert near_boxes(centres, boxes, 19).tolist() == [[False, True, True]]
    assert near_boxes(np.array([[28.0, -9.0]]), boxes, 15).tolist() == [True]  # 12 and 9: 15 along the diagonal
    labels = [patch_labels(boxes, 1, 3, 14)]
    odds = [np.array([[0.0, 1.0, 2.0]], np.float32)]
    assert patch_figures(odds, labels, ["a"]).pointing_scenes == 0
    near = [near_boxes(centres, boxes, 15)]
    assert patch_figures(odds, labels, ["a"], near=near).pointing == 1


@pytest.mark.parametrize("protocol", ["point-windows", "point-program"])
def test_a_patch_at_the_protocol_s_threshold_is_said_to_be_inside(protocol):
    from scipy.special import logit

    level = logit(np.float32(PROTOCOLS[protocol].numbers["threshold"]))
    odds = [np.array([[level, np.nextafter(level, np.float32(-1)), level - 1, level + 1]], np.float32)]
    found = patch_figures(odds, [np.array([[1, 1, 0, 0]], np.int8)], ["a"])
    assert (found.precision_at_half, found.recall_at_half) == (0.5, 0.5)


@pytest.mark.parametrize("place", range(4))
def test_a_map_of_one_score_is_no_hit_wherever_the_object_lies(place):
    labels = np.zeros(4, np.int8)
    labels[place] = 1
    assert patch_figures([np.zeros((2, 2), np.float32)], [labels.reshape(2, 2)], ["a"]).pointing == 0


def test_equal_best_patches_are_a_hit_only_together():
    odds = [np.array([[2.0, 1.0, 2.0]], np.float32), np.array([[0.0, 2.0, np.nan]], np.float32)]
    labels = [np.array([[1, 0, 1]], np.int8), np.array([[0, 1, 0]], np.int8)]
    assert patch_figures(odds, labels, ["a", "a"]).pointing_hits == 1  # three best patches in two windows
    labels[1] = np.array([[0, -1, 0]], np.int8)
    assert patch_figures(odds, labels, ["a", "a"]).pointing_hits == 0
    assert patch_figures(odds, labels, ["a", "a"], rim="ignore").pointing_hits == 1
    assert patch_figures(odds, labels, ["a", "a"], rim="inside").pointing_hits == 1
    near = [np.array([[True, False, False]]), np.array([[False, True, False]])]
    assert patch_figures(odds, labels, ["a", "a"], near=near).pointing_hits == 0


@given(st.integers(0, 2**31), st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_pointing_game_knows_no_order_of_patches_windows_and_scenes(seed, rng):
    shuffle = np.random.default_rng(rng.randrange(2**31))
    odds, labels, groups = random_samples(seed, ties=True)
    windows = shuffle.permutation(len(odds))
    patches = [shuffle.permutation(odds[0].size) for _ in odds]
    names = dict(zip(sorted(set(groups)), shuffle.permutation(sorted(set(groups))).tolist(), strict=True))
    mixed = patch_figures(
        [odds[window].ravel()[patches[window]] for window in windows],
        [labels[window].ravel()[patches[window]] for window in windows],
        [names[groups[window]] for window in windows],
    )
    found = patch_figures(odds, labels, groups)
    assert (mixed.pointing_hits, mixed.pointing_scenes) == (found.pointing_hits, found.pointing_scenes)


# The task.


@pytest.fixture
def coco(tmp_path):
    """Two images with boxes of two categories, and a third without any."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "boxes"
    folder.mkdir()
    sizes = {"b.png": (160, 300), "a.png": (100, 90), "c.png": (128, 128)}
    for name, (height, width) in sizes.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8)).save(folder / name)
    boxes = [(1, 1, [10, 20, 60, 50]), (1, 2, [200, 30, 40, 40]), (2, 1, [5, 5, 30, 60])]
    write = {
        "images": [
            {"id": number, "file_name": name, "width": size[1], "height": size[0]}
            for number, (name, size) in enumerate(sizes.items(), 1)
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "bbox": box}
            for number, (image, category, box) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "Storage_Tank"}, {"id": 2, "name": "plane"}],
    }
    (folder / "annotations.coco.json").write_text(json.dumps(write))
    return folder


def run(model, folder, cache, protocol="point-windows", *, limit=None, **settings):
    from geoalign_core.models.registry import load_encoder
    from training.evaluation.task import Job
    from training.evaluation.tasks.point import TASK

    load = functools.cache(lambda: load_encoder(str(model), device="cpu"))
    return TASK.run(Job(folder, protocol, load, cache, silent, CancelToken(), limit=limit, settings=settings))


def test_boxes_and_words(coco):
    data = read_boxes(coco)
    assert [scene.image for scene in data.scenes] == ["a.png", "b.png", "c.png"]
    assert data.scenes[1].boxes_xyxy_px["Storage_Tank"].tolist() == [[10, 20, 70, 70]]
    assert words_for(data.categories, None) == {"Storage_Tank": ("storage tank",), "plane": ("plane",)}
    assert words_for(data.categories, "plane=jet|plane") == {"plane": ("jet", "plane")}
    with pytest.raises(UsageError, match="does not have"):
        words_for(data.categories, "car=car")
    with pytest.raises(UsageError, match="has no words"):
        words_for(data.categories, "plane=jet| ")
    with pytest.raises(DataError, match="no image that was asked for"):
        read_boxes(coco, names=["z.png"])


def test_both_protocols_end_to_end(coco, tiny_model, tmp_path):
    cache = tmp_path / "cache"
    result = run(tiny_model, coco, cache, words="plane=jet|plane;Storage_Tank=tank")
    assert result.dataset.counts["images"] == 3 and result.dataset.counts["boxes"] == 3
    by_word = {item["word"]: item for item in result.details["questions"]}
    planes = (by_word["jet"]["average_precision"] + by_word["plane"]["average_precision"]) / 2
    assert result.metrics["AP"].value == pytest.approx((planes + by_word["tank"]["average_precision"]) / 2)
    assert by_word["tank"]["pointing_scenes"] == 2 and by_word["jet"]["pointing_scenes"] == 1
    rows = [row for row in result.details["scenes"] if np.isfinite(row["average_precision"]) and row["word"] != "plane"]
    pictures = result.details["pictures"]
    assert len(pictures) == len(rows) == 3
    assert max(row["average_precision"] for row in rows) == pytest.approx(
        float(pictures[0]["caption"].rsplit(" ", 1)[1]), abs=5e-4
    )
    for shown in pictures:
        assert shown["boxes"] and shown["heat"] and shown["points"][0]["kind"] in ("hit", "false")
    files = {path: path.stat().st_mtime_ns for path in (cache / "patches").iterdir()}
    one = next(iter(files))
    one.write_bytes(one.read_bytes()[:50])  # damaged: made again
    again = run(tiny_model, coco, cache, words="plane=jet|plane;Storage_Tank=tank")
    assert again.metrics == result.metrics and again.dataset == result.dataset
    assert sum(path.stat().st_mtime_ns != before for path, before in files.items()) == 1
    asked = run(tiny_model, coco, cache, "point-program", source_gsd="0.5", gsd="0.5", tolerance_px="15")
    assert np.isfinite(asked.metrics["AP"].value)
    assert asked.dataset.counts["patches"] == sum(
        math.ceil(height / 16 - 0.5) * math.ceil(width / 16 - 0.5)
        for height, width in ((160, 300), (100, 90), (128, 128))
    )
    exact, inside = (run(tiny_model, coco, cache, tolerance_px=zero).metrics for zero in ("0", "0.0"))
    assert exact == inside
    pixels = run(tiny_model, coco, cache, "point-program")
    assert pixels.metrics["base rate"].value == pytest.approx(asked.metrics["base rate"].value)
    assert not list(coco.glob("*.geoalign"))


@pytest.mark.parametrize("rim", ["outside", "inside"])
def test_rims_are_what_the_protocol_says(coco, tiny_model, tmp_path, monkeypatch, rim):
    asked = run(tiny_model, coco, tmp_path / "cache", rim=rim, words="plane=plane")
    monkeypatch.setitem(PROTOCOLS["point-windows"].numbers, "rim", rim)
    found = run(tiny_model, coco, tmp_path / "cache", words="plane=plane")
    assert found.notes == asked.notes and rim in found.notes[0] and found.metrics == asked.metrics


def test_objects_of_one_size_and_limits(coco, tiny_model, tmp_path):
    result = run(tiny_model, coco, tmp_path / "cache", object_px="120", limit=2)
    assert result.dataset.counts["images"] == 2 and "2 of 3 images" in " ".join(result.notes)
    assert result.settings["object_px"] == 120 and result.settings["scale"] is None


@pytest.mark.parametrize(
    ("protocol", "options", "said"),
    [
        ("point-windows", {"gsd": "1"}, "setting of point-program"),
        ("point-windows", {"scale": "0"}, "above 0"),
        ("point-windows", {"scale": "1", "object_px": "9"}, "exclude"),
        ("point-windows", {"window_px": "100"}, "whole patches"),
        ("point-windows", {"rim": "half"}, "rim has no value"),
        ("point-windows", {"tolerance_px": "far"}, "tolerance_px"),
        ("point-windows", {"tolerance_px": "-1"}, "0 or more"),
        ("point-windows", {"only": "/nowhere.txt"}, "list of images"),
        ("point-program", {"colour": "red"}, "colour"),
    ],
)
def test_wrong_settings_are_named(coco, tiny_model, tmp_path, protocol, options, said):
    with pytest.raises(UsageError, match=said):
        run(tiny_model, coco, tmp_path / "cache", protocol, **options)


def test_images_of_another_size_are_refused(coco, tiny_model, tmp_path):
    Image.new("RGB", (50, 50)).save(coco / "a.png")
    with pytest.raises(DataError, match="another size"):
        run(tiny_model, coco, tmp_path / "cache")
