"""Fitting scores to precision: figures by hand and against others, known distortions found, the task end to end."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.special import expit
from sklearn import metrics as theirs
from torchmetrics.classification import BinaryCalibrationError

from geoalign_core.errors import ModelError
from geoalign_core.models.calibration import place_of, read_calibration, require_calibration
from geoalign_core.models.registry import load_encoder, locate
from tests.eval_pictures import encoder, job, picture
from tiling.clikit import run_cli
from tiling.errors import UsageError
from training.data.errors import DataError
from training.evaluation.calibration import METHODS, Samples, fit, fit_curve, folds_of
from training.evaluation.calibration_data import labelled
from training.evaluation.metrics.calibration import (
    brier,
    expected_calibration_error,
    log_loss,
    mass_edges,
    reliability,
    width_edges,
)
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.tasks.calibrate import FEWEST, TASK

WINDOWS, PROGRAM = TASK.protocols


# Figures --------------------------------------------------------------------------------------------------------------


def test_errors_by_hand():
    """Two bins of equal width: 0.1 and 0.3, one right of two; 0.6 and 0.8 and 1.0, all right."""
    predicted, truth = [0.1, 0.3, 0.6, 0.8, 1.0], [0, 1, 1, 1, 1]
    found = reliability(predicted, truth, width_edges(2))
    assert found.counts.tolist() == [2, 3] and found.right.tolist() == [1, 3]
    assert found.ece == pytest.approx(2 / 5 * abs(0.5 - 0.2) + 3 / 5 * abs(1 - 0.8))
    assert found.rows()[0] == pytest.approx({"score": 0.2, "precision": 0.5, "count": 2})
    assert brier(predicted, truth) == pytest.approx((0.01 + 0.49 + 0.16 + 0.04) / 5)
    assert expected_calibration_error([0.5] * 4, [1, 0, 1, 0]) == 0
    assert math.isnan(expected_calibration_error([], [])) and math.isnan(brier([], []))


def test_bins_of_equal_mass_keep_equal_predictions_together():
    assert mass_edges(np.arange(10) / 10, 5).tolist() == [0.2, 0.4, 0.6, 0.8]
    predicted = np.array([0.1] * 8 + [0.5, 0.9])
    found = reliability(predicted, predicted > 0.3, mass_edges(predicted, 5))
    assert found.counts[found.counts > 0].tolist() == [8, 2]
    assert found.ece == pytest.approx((8 * 0.1 + 2 * abs(1 - 0.7)) / 10)


@given(st.integers(0, 10**6), st.integers(2, 30))
@settings(max_examples=15, deadline=None)
def test_errors_are_those_of_torchmetrics_and_scikit_learn(seed, bins):
    rng = np.random.default_rng(seed)
    predicted = rng.random(200).astype(np.float32) * np.float32(0.99)
    truth = rng.random(200) < predicted**2
    truth[:2] = True, False
    other = BinaryCalibrationError(n_bins=bins, norm="l1")(torch.from_numpy(predicted), torch.from_numpy(truth).long())
    assert expected_calibration_error(predicted, truth, bins=bins) == pytest.approx(float(other), abs=1e-5)
    assert brier(predicted, truth) == pytest.approx(theirs.brier_score_loss(truth, predicted))
    assert log_loss(predicted, truth, ~truth) == pytest.approx(theirs.log_loss(truth, predicted.astype(np.float64)))


def test_predictions_that_are_none_are_refused():
    with pytest.raises(DataError, match="shares from 0 to 1"):
        brier([0.5, 1.1], [0, 1])
    with pytest.raises(DataError, match="shares from 0 to 1"):
        expected_calibration_error([math.nan], [1])
    with pytest.raises(DataError, match="needs its truth"):
        brier([0.5], [0, 1])


# Fits -----------------------------------------------------------------------------------------------------------------


def drawn(true, count=30_000, scenes=20, seed=0):
    """Draw log-odds and, by a true map of them, what is right."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1.5, 2, count).astype(np.float32)
    truth = rng.random(count) < true(odds.astype(np.float64))
    return Samples(
        odds, truth, rng.integers(0, scenes, count).astype(np.int32), tuple(f"{n}.png" for n in range(scenes))
    )


DISTORTIONS = {
    "platt": lambda x: expit(0.5 * x - 1),
    "beta": lambda x: expit(-2 * np.logaddexp(0, -x) + 0.3 * np.logaddexp(0, x) + 1),
    "isotonic": lambda x: np.where(x < -1, 0.05, np.where(x < 1, 0.3, 0.6)),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_known_distortion_is_found(name):
    true, samples = DISTORTIONS[name], drawn(DISTORTIONS[name])
    found = fit(samples)
    assert found.method == name or found.losses[found.method] <= found.losses[name]
    x = np.array([-5.0, -3, -2, -0.5, 0, 0.5, 2, 3])
    assert np.interp(expit(x), found.scores, found.precisions) == pytest.approx(true(x), abs=0.035)
    before = expected_calibration_error(expit(samples.odds), samples.truth, mass=True)
    after = expected_calibration_error(found.held_out, samples.truth, mass=True)
    assert after < 0.02 < before and found.prior == samples.truth.mean()


@pytest.mark.parametrize("name", METHODS)
def test_what_is_right_already_stays(name):
    found = fit(drawn(expit), methods=(name,))
    scores = np.linspace(0.01, 0.9, 30)
    assert np.abs(np.interp(scores, found.scores, found.precisions) - scores).max() < 0.06
    assert found.method == name and set(found.losses) == {name}


@given(st.integers(0, 10**6), st.sampled_from(METHODS))
@settings(max_examples=15, deadline=None)
def test_maps_never_fall_whatever_the_data(seed, method):
    rng = np.random.default_rng(seed)
    odds = np.round(rng.normal(0, rng.choice([0.1, 3, 40]), 60), rng.integers(0, 3)).astype(np.float32)
    truth = rng.random(60) < rng.choice([expit(-odds), np.full(60, 0.02), expit(odds)])  # some against the score
    truth[:2] = True, False
    found = fit(Samples(odds, truth, rng.integers(0, 4, 60).astype(np.int32), ("a", "b", "c", "d")), (method,))
    assert (np.diff(found.scores) > 0).all() and (np.diff(found.precisions) >= 0).all()
    assert found.scores[0] == 0 and found.scores[-1] == 1
    assert ((found.held_out >= 0) & (found.held_out <= 1)).all()


@given(st.integers(0, 10**6))
@settings(max_examples=3, deadline=None)
def test_order_means_nothing(seed):
    samples = drawn(DISTORTIONS["beta"], 500, 6)
    order, names = np.random.default_rng(seed).permutation(500), np.random.default_rng(seed).permutation(6)
    turned = Samples(
        samples.odds[order], samples.truth[order], np.argsort(names)[samples.groups[order]].astype(np.int32),
        tuple(samples.names[place] for place in names),
    )  # fmt: skip
    one, other = fit(samples), fit(turned)
    assert one.method == other.method and one.precisions == pytest.approx(other.precisions, abs=1e-6)
    assert one.held_out[order] == pytest.approx(other.held_out, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_copies_weigh_as_counts(method):
    odds, yes, no = np.array([-2.0, -1, 0, 1, 2]), np.array([1.0, 1, 4, 3, 8]), np.array([9.0, 5, 6, 1, 2])
    curve = fit_curve(method, odds, yes, no)
    pairs = [np.concatenate([np.repeat(odds, part.astype(int)) for part in (yes, no)])]
    truth = np.repeat([1.0, 0.0], [int(yes.sum()), int(no.sum())])
    copied = fit_curve(method, pairs[0], truth, 1 - truth)
    assert curve(odds) == pytest.approx(copied(odds), abs=2e-3)


def test_a_scene_never_sees_itself():
    """Turning the truth of one scene leaves its own held-out precisions alone, and moves others."""
    samples = drawn(DISTORTIONS["platt"], 2000, 10)
    mine = samples.groups == 3
    turned = Samples(samples.odds, np.where(mine, ~samples.truth, samples.truth), samples.groups, samples.names)
    one, other = fit(samples).held_out, fit(turned).held_out
    assert (one[mine] == other[mine]).all() and (one != other).any()
    folds = folds_of(samples.names, 5)
    assert sorted(np.bincount(folds)) == [2] * 5 and folds_of(samples.names[:2], 5).max() == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"truth": np.zeros(6, bool)}, "nothing is what was asked for"),
        ({"truth": np.ones(6, bool)}, "everything is"),
        ({"groups": np.array([0, 0, 0, 1, 1, 1], np.int32)}, "too few images"),
        ({"odds": np.array([0, 1, 2, 3, 4, np.nan], np.float32)}, "finite"),
    ],
)
def test_what_teaches_nothing_is_refused(change, said):
    values = {
        "odds": np.arange(6, dtype=np.float32), "truth": np.array([0, 1, 0, 1, 1, 1], bool),
        "groups": np.arange(6, dtype=np.int32), "names": tuple("abcdef"),
    }  # fmt: skip
    assert fit(Samples(**values)).prior == pytest.approx(4 / 6)
    with pytest.raises(DataError, match=said):
        fit(Samples(**{**values, **change}))


# The task -------------------------------------------------------------------------------------------------------------


def boxed(folder, count):
    """Make images with two boxes each, of two categories, in COCO's layout."""
    for number in range(count):
        picture(folder / f"{number}.png", number, (128, 128))
    annotations = [
        {
            "id": number,
            "image_id": number // 2 + 1,
            "category_id": number % 2 + 1,
            "bbox": [8 * (number % 8), 10, 40, 50],
        }
        for number in range(2 * count)
    ]
    table = {
        "images": [{"id": n + 1, "file_name": f"{n}.png", "width": 128, "height": 128} for n in range(count)],
        "annotations": annotations, "categories": [{"id": 1, "name": "plane"}, {"id": 2, "name": "ship"}],
    }  # fmt: skip
    (folder / "annotations.coco.json").write_text(json.dumps(table))
    return folder


@pytest.fixture
def boxes(tmp_path):
    return boxed(tmp_path / "boxes", 4)


@pytest.fixture(scope="module")
def enough(tmp_path_factory):
    """As many images as a map that is kept needs."""
    return boxed(tmp_path_factory.mktemp("enough"), FEWEST)


@pytest.fixture
def masks(tmp_path):
    """Four images with masks of three classes; one corner does not count."""
    folder = tmp_path / "masks"
    for number in range(4):
        picture(folder / "images" / f"{number}.png", number, (128, 128))
        labels = np.zeros((128, 128), np.uint8)
        labels[:64, : 40 + 20 * number], labels[80:, 100:] = 1, 2
        labels[-16:, :32] = 255
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(labels).save(folder / "masks" / f"{number}.png")
    (folder / "classes.txt").write_text("ground\nwater,lake\nroof\n")
    return folder


def run(data, model, cache, protocol=WINDOWS, **more):
    return TASK.run(job(data, model, cache, protocol, **more))


def test_boxes_end_to_end(boxes, tiny_model, tmp_path):
    result = run(boxes, tiny_model, tmp_path / "cache")
    counts = result.dataset.counts
    assert counts["images"] == counts["groups"] == 4 and counts["boxes"] == 8 and counts["words"] == 2
    assert counts["places"] == 4 * 2 * 8 * 8
    # 40 × 50 px from (8 n, 10): the centres of 16 px patches in it, by hand.
    inside = sum(sum(8 * n <= 8 + 16 * x < 8 * n + 40 for x in range(8)) * 3 for n in range(8))
    assert counts["right"] == inside and result.metrics["base rate"].value == pytest.approx(inside / counts["places"])
    for name in ("ECE", "Brier", "log loss", "ECE of equal widths"):
        before, after = (result.metrics[f"{name} {when}"] for when in ("before", "after"))
        assert math.isfinite(before.value) and math.isfinite(after.value) and after.better == "lower"
    error = result.metrics["ECE after"]
    assert error.low is not None and error.low <= error.high
    before = result.details["reliability"][0]
    assert sum(row["count"] for row in before["bins"]) == counts["places"]
    assert any("Only 4 images or groups" in note for note in result.notes)
    again = run(boxes, tiny_model, tmp_path / "cache")
    assert again.dataset == result.dataset
    for name, metric in result.metrics.items():
        assert again.metrics[name].value == pytest.approx(metric.value, abs=1e-5)


def test_a_map_is_read_by_the_core(enough, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "own")
    result = run(enough, tiny_model, tmp_path / "cache", calibration=folder / "calibration.json")
    known = require_calibration(load_encoder(str(folder), device="cpu"), str(folder))
    assert known.prior == pytest.approx(result.metrics["base rate"].value) and known.protocol == WINDOWS
    assert known.data["digest"] == result.dataset.digest and known.data["counts"]["images"] == FEWEST
    assert result.details["calibration"]["precisions"] == known.precisions
    assert not any("images or groups" in note for note in result.notes)
    other = load_encoder("geoalign-s", device="cpu")
    with pytest.raises(ModelError, match="does not hold for"):
        known.check(other)
    assert "calibration" not in known.data["settings"]


def test_scores_are_those_of_the_pointing_task(boxes, tiny_model, tmp_path):
    from training.evaluation.tasks.point import TASK as POINT

    POINT.run(job(boxes, tiny_model, tmp_path / "cache", "point-windows"))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "patches").iterdir()}
    run(boxes, tiny_model, tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "patches").iterdir()} == files


def test_rims_words_groups_and_the_program(boxes, tiny_model, tmp_path):
    cache = tmp_path / "cache"
    wide = run(boxes, tiny_model, cache, rim="inside", words="plane=jet|plane")
    less = run(boxes, tiny_model, cache, rim="ignore", words="plane=jet|plane")
    assert wide.dataset.counts["words"] == 2 and wide.dataset.counts["right"] > less.dataset.counts["right"]
    assert less.dataset.counts["places"] < wide.dataset.counts["places"] == 4 * 2 * 64
    assert wide.dataset.digest != less.dataset.digest and "ship" in " ".join(wide.notes)
    assert run(boxes, tiny_model, cache, groups="[01]|2|3").dataset.counts["groups"] == 4
    with pytest.raises(DataError, match="too few images"):
        run(boxes, tiny_model, cache, groups=r"\.png")
    program = run(boxes, tiny_model, cache, PROGRAM, source_gsd="0.5", gsd="0.5")
    assert program.dataset.counts["places"] == 4 * 2 * 64 and program.protocol == PROGRAM


@pytest.mark.parametrize("rim", ["outside", "ignore", "inside"])
@pytest.mark.parametrize("protocol", [WINDOWS, PROGRAM])
def test_rims_are_what_the_protocol_says(boxes, tmp_path, monkeypatch, protocol, rim):
    asked = labelled(job(boxes, None, tmp_path / "cache", protocol, rim=rim))
    monkeypatch.setitem(PROTOCOLS[protocol].numbers, "rim", rim)
    assert labelled(job(boxes, None, tmp_path / "cache", protocol)).digest == asked.digest


def test_places_are_drawn_and_categories_count_where_they_were_looked_for(boxes, tiny_model, tmp_path):
    cache, table = tmp_path / "cache", json.loads((boxes / "annotations.coco.json").read_text())
    table["annotations"] = [item for item in table["annotations"] if item["category_id"] - 1 == item["image_id"] % 2]
    (boxes / "annotations.coco.json").write_text(json.dumps(table))
    whole, known = run(boxes, tiny_model, cache), run(boxes, tiny_model, cache, unboxed="unknown")
    assert whole.dataset.counts["places"] == 4 * 2 * 64 and known.dataset.counts["places"] == 4 * 64
    assert known.dataset.counts["right"] == whole.dataset.counts["right"] > 0
    assert known.metrics["base rate"].value == pytest.approx(2 * whole.metrics["base rate"].value)
    few, again = (run(boxes, tiny_model, cache, most="20") for _ in range(2))
    assert few.dataset.counts["places"] == 4 * 2 * 20
    assert {name: item.value for name, item in few.metrics.items()} == pytest.approx(
        {name: item.value for name, item in again.metrics.items()}, nan_ok=True
    )
    assert few.metrics["base rate"].value == pytest.approx(whole.metrics["base rate"].value, abs=0.15)


def test_masks_end_to_end(masks, tiny_model, tmp_path):
    given = {"truth": "masks", "classes": masks / "classes.txt"}
    result = run(masks, tiny_model, tmp_path / "cache", **given, leave_out="ground")
    counts = result.dataset.counts
    assert counts["masks"] == 4 and counts["categories"] == 2 and counts["words"] == 3
    assert counts["places"] == 4 * 3 * (64 - 2)
    water = sum(sum(8 + 16 * x < 40 + 20 * n for x in range(8)) * 4 for n in range(4))
    assert counts["right"] == 2 * water + 4 * 2 * 3  # two words of water; roof: columns from 100, rows from 80 px
    assert [row["name"] for row in result.details["per_class"][0]["rows"]] == ["water", "roof"]
    assert "ground" in " ".join(result.notes)
    whole = run(masks, tiny_model, tmp_path / "cache", **given)
    assert whole.dataset.counts["words"] == 4 and whole.dataset.digest != result.dataset.digest
    Image.new("L", (20, 20)).save(masks / "masks" / "1.png")
    with pytest.raises(DataError, match="not as large as its image"):
        run(masks, tiny_model, tmp_path / "cache", **given)
    (masks / "masks" / "1.png").unlink()
    with pytest.raises(DataError, match="no mask or no image"):
        run(masks, tiny_model, tmp_path / "cache", **given)
    assert run(masks, tiny_model, tmp_path / "cache", **given, unreadable="skip").dataset.counts["images"] == 3


def test_a_map_of_too_few_images_is_not_written(boxes, enough, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOALIGN_MODELS", str(tmp_path / "store"))
    name, path = encoder(tiny_model).config.name, tmp_path / "calibration.json"
    shutil.copytree(tiny_model, tmp_path / "store" / name)
    for data, more in (
        (boxes, {"calibration": path}), (boxes, {"store": "yes"}), (enough, {"store": "yes", "groups": "[0-4]"}),
    ):  # fmt: skip
        with pytest.raises(DataError, match=rf"too few images or groups for a map to be kept \(\d+, not {FEWEST}\)"):
            run(data, tiny_model, tmp_path / "cache", **more)
    assert not path.exists() and not place_of(locate(name)).exists()


def test_the_store_takes_it(enough, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOALIGN_MODELS", str(tmp_path / "store"))
    with pytest.raises(UsageError, match="is not in the store"):
        run(enough, tiny_model, tmp_path / "cache", store="yes")
    name = encoder(tiny_model).config.name
    shutil.copytree(tiny_model, tmp_path / "store" / name)
    run(enough, tiny_model, tmp_path / "cache", store="yes")
    assert read_calibration(place_of(locate(name))).model == name
    require_calibration(encoder(tiny_model), name)


def test_a_folder_takes_it_and_not_a_namesake_in_the_store(enough, tiny_model, tmp_path, monkeypatch):
    from training.evaluation.command import main

    monkeypatch.setenv("GEOALIGN_MODELS", str(tmp_path / "store"))
    name = encoder(tiny_model).config.name
    namesake, folder = tmp_path / "store" / name, tmp_path / "given"
    for place in (namesake, folder):
        shutil.copytree(tiny_model, place)
    asked = ["--data", str(enough), "--model", str(folder), "--protocol", WINDOWS, "--cache", str(tmp_path / "cache")]
    assert run_cli(main, ["calibrate", *asked, "--device", "cpu", "-s", "store=yes"]) == 0
    assert (folder / "calibration.json").is_file() and not (namesake / "calibration.json").exists()


@pytest.mark.parametrize(
    ("protocol", "options", "said"),
    [
        (WINDOWS, {"truth": "words"}, "truth has no value"),
        (WINDOWS, {"classes": "a.txt"}, "is a setting of masks"),
        (WINDOWS, {"truth": "masks", "rim": "inside"}, "is a setting of boxes"),
        (WINDOWS, {"gsd": "1"}, "is a setting of calibration-program"),
        (PROGRAM, {"scale": "2"}, "is a setting of calibration-windows"),
        (WINDOWS, {"methods": "platt,magic"}, "no such method"),
        (WINDOWS, {"store": "perhaps"}, "store has no value"),
        (WINDOWS, {"groups": "("}, "regular expression"),
        (WINDOWS, {"window_px": "100"}, "whole patches"),
        (WINDOWS, {"scale": "1", "object_px": "9"}, "exclude"),
        (WINDOWS, {"colour": "red"}, "no option"),
        ("point-windows", {}, "no protocol"),
    ],
)
def test_wrong_settings_are_named(boxes, tiny_model, tmp_path, protocol, options, said):
    with pytest.raises(UsageError, match=said):
        run(boxes, tiny_model, tmp_path / "cache", protocol, **options)


def test_missing_and_damaged_pictures(boxes, tiny_model, tmp_path):
    (boxes / "1.png").write_bytes((boxes / "1.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"1\.png"):
        run(boxes, tiny_model, tmp_path / "cache")
    (boxes / "1.png").unlink()
    with pytest.raises(DataError, match="an image is missing"):
        run(boxes, tiny_model, tmp_path / "cache")
    assert run(boxes, tiny_model, tmp_path / "cache", unreadable="skip").dataset.counts["images"] == 3


def test_the_command(enough, tiny_model, tmp_path):
    from click.testing import CliRunner

    from training.evaluation.command import main
    from training.evaluation.result import read_result

    out = tmp_path / "result.json"
    args = ["calibrate", "--data", enough, "--model", tiny_model, "--device", "cpu", "--cache", tmp_path / "cache"]
    args += ["-o", out, "-s", f"calibration={tmp_path / 'calibration.json'}"]
    found = CliRunner().invoke(main, [str(arg) for arg in args])
    assert found.exit_code == 0, found.output
    assert "ECE after" in found.output and read_result(out).protocol == WINDOWS
    assert read_calibration(tmp_path / "calibration.json").prior > 0
