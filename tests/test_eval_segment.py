"""Open-vocabulary segmentation: figures by hand and against others, windows as written out, layouts, end to end."""

from __future__ import annotations

import itertools
import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from tests.eval_pictures import encoder, job, picture
from tiling.errors import CancelledError, UsageError
from tiling.progress import CancelToken
from training.data.errors import DataError
from training.evaluation import sliding
from training.evaluation.classlists import SETS, colour_file, list_file, read_class_list, read_colours
from training.evaluation.guided import guided_filter
from training.evaluation.layouts.masks import MaskReader, find_pairs
from training.evaluation.metrics.segmentation import confusion, segmented, sums_of
from training.evaluation.overlay import best_and_worst, may_be_shown
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.segment_pictures import colour, painted
from training.evaluation.sliding import (
    Sliding,
    averaged,
    decide,
    enlarged,
    patches_and_token,
    resized,
    segment,
    starts,
    window_scores,
)
from training.evaluation.tasks.segment import TASK

FARSLIP, SEGEARTH = TASK.protocols
PLAIN = Sliding(96, False, 64, 32, 50.0, 0.0, 0.0, 0)
LOVEDA = "background\nbuilding,roof,house\nroad\n"


def how(**changes):
    return replace(PLAIN, **changes)


# Figures ----------------------------------------------------------------------------------------------------------


def test_by_hand():
    """Four classes; the third is only answered, the fourth neither true nor answered; a pixel does not count."""
    truth, answer = np.array([[0, 0, 0, 1], [1, 1, -1, 0]]), np.array([[0, 0, 1, 1], [1, 2, 0, 0]])
    table = confusion(truth, answer, 4)
    assert table.tolist() == [[3, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    found = segmented(sums_of(table))
    assert found.iou[0, :3].tolist() == [75, 50, 0] and np.isnan(found.iou[0, 3])
    assert found.miou[0] == pytest.approx(125 / 3) and found.accuracy[0] == pytest.approx(500 / 7)
    assert found.macc[0] == pytest.approx((75 + 200 / 3) / 2) and np.isnan(found.recall[0, 2])
    assert found.fwiou[0] == pytest.approx((4 * 75 + 3 * 50) / 7)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_agrees_with_counting_and_with_others(seed, classes):
    from sklearn.metrics import confusion_matrix, jaccard_score
    from torchmetrics.functional.classification import multiclass_jaccard_index

    rng = np.random.default_rng(seed)
    truth, answer = rng.integers(-1, classes, (9, 11)), rng.integers(0, classes, (9, 11))
    truth[0, :classes] = range(classes)  # every class occurs: others give absent ones 0
    table, kept = confusion(truth, answer, classes), truth >= 0
    brute = np.zeros((classes, classes), np.int64)
    for row, column in zip(truth.ravel(), answer.ravel(), strict=True):
        if row >= 0:
            brute[row, column] += 1
    assert (table == brute).all() and (table == confusion_matrix(truth[kept], answer[kept])).all()
    found = segmented(sums_of(table))
    assert found.iou[0] == pytest.approx(100 * jaccard_score(truth[kept], answer[kept], average=None))
    theirs = multiclass_jaccard_index(
        torch.tensor(answer), torch.tensor(truth), classes, average="macro", ignore_index=-1
    )
    assert found.miou[0] == pytest.approx(100 * float(theirs), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_parts_add_up_and_names_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    truth, answer, order = rng.integers(-1, 5, (2, 40)), rng.integers(0, 4, (2, 40)), rng.permutation(5)
    whole = confusion(truth, answer, 5)
    parts = np.stack([confusion(*pair, 5) for pair in zip(truth, answer, strict=True)])
    assert (whole == parts.sum(axis=0)).all() and (sums_of(whole) == sums_of(parts).sum(axis=0)).all()
    renamed = segmented(sums_of(confusion(np.where(truth < 0, -1, order[truth]), order[answer], 5)))
    found = segmented(sums_of(whole))
    assert renamed.miou == pytest.approx(found.miou) and renamed.fwiou == pytest.approx(found.fwiou)
    assert renamed.iou[0, order] == pytest.approx(found.iou[0], nan_ok=True)
    perfect = segmented(sums_of(confusion(truth, np.maximum(truth, 0), 5)))
    assert perfect.miou[0] == perfect.accuracy[0] == perfect.fwiou[0] == 100


def test_nothing_and_wrong_labels():
    nothing = segmented(sums_of(confusion(np.full((2, 2), -1), np.zeros((2, 2), int), 3)))
    assert np.isnan([nothing.miou[0], nothing.accuracy[0], nothing.fwiou[0]]).all()
    with pytest.raises(DataError, match="different sizes"):
        confusion(np.zeros((2, 2), int), np.zeros((2, 3), int), 2)
    for truth, answer in (([2], [0]), ([0], [2]), ([-2], [0]), ([0], [-1])):
        with pytest.raises(DataError, match="is no class"):
            confusion(np.array(truth), np.array(answer), 2)


# Windows ----------------------------------------------------------------------------------------------------------


def test_starts_as_published():
    assert starts(448, 224, 112) == [0, 112, 224] and starts(378, 224, 112) == [0, 112, 154]
    assert starts(224, 224, 112) == [0] == starts(100, 224, 112)


@given(st.integers(1, 400), st.integers(1, 120), st.integers(1, 120))
def test_windows_cover_a_side_and_stay_inside(length, window, stride):
    found = starts(length, window, min(stride, window))
    inside = min(window, length)
    seen = np.zeros(length, int)
    for start in found:
        assert 0 <= start <= length - inside
        seen[start : start + inside] += 1
    assert seen.min() >= 1 and len(set(found)) == len(found) and found == sorted(found)


def test_the_longer_side_is_resized_without_smoothing():
    image = np.random.default_rng(0).integers(0, 256, (90, 200, 3), dtype=np.uint8)
    small = resized(image, 100, antialias=False)
    assert small.shape == (3, 45, 100)
    exact = functional.interpolate(torch.tensor(image.transpose(2, 0, 1))[None].float(), (45, 100), mode="bilinear")
    assert (small.float() - exact[0]).abs().max() <= 0.5
    smooth = resized(image, 100, antialias=True).float()
    assert smooth.std() < small.float().std()
    assert (resized(image, 0, antialias=False).numpy().transpose(1, 2, 0) == image).all()
    assert resized(image[:1], 20, antialias=False).shape == (3, 1, 20)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 50), st.integers(1, 50), st.integers(0, 999))
def test_enlarging_in_bands_is_enlarging_at_once(rows, columns, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    whole = torch.rand((3, rows, columns), generator=generator)
    cuts = sorted({0, rows, *torch.randint(0, rows + 1, (3,), generator=generator).tolist()})
    bands = (whole[:, start:stop] for start, stop in itertools.pairwise(cuts))
    parts = torch.cat(list(enlarged(bands, rows, height, width)), dim=1)
    expected = functional.interpolate(whole[None], (height, width), mode="bilinear")[0]
    assert parts.shape == expected.shape and (parts - expected).abs().max() < 1e-4


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 70), st.integers(5, 70), st.integers(4, 40), st.integers(1, 40), st.integers(1, 5))
def test_means_over_windows_by_hand(height, width, window, stride, most):
    """A score that depends on the place inside the window, so that it matters which windows hold a pixel."""
    rng = np.random.default_rng(height * width)
    pixels = torch.tensor(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    ramp = torch.tensor(rng.random((window, window)), dtype=torch.float32)

    def score(windows):
        tall, wide = windows.shape[2:]
        return windows.float()[:, :2] * ramp[:tall, :wide]

    stride = min(stride, window)
    total, count = np.zeros((2, height, width)), np.zeros((height, width))
    for top in starts(height, window, stride):
        for left in starts(width, window, stride):
            part = pixels[None, :, top : top + window, left : left + window]
            total[:, top : top + window, left : left + window] += score(part)[0].numpy()
            count[top : top + window, left : left + window] += 1
    bands = list(averaged(pixels, score, how(window_px=window, stride_px=stride), most))
    assert np.allclose(torch.cat(bands, dim=1).numpy(), total / count, atol=1e-3)
    assert max(band.shape[1] for band in bands) <= max(window, 1)


def test_decisions_by_hand():
    """Two words of the first class: the likelier counts, not their sum; ties go to the first."""
    likely = torch.tensor([[0.3, 0.1, 0.30], [0.3, 0.2, 0.10], [0.4, 0.7, 0.30], [0.0, 0.0, 0.30]])
    scores, owners = (likely.clamp(min=1e-30).log() / 50)[:, None], torch.tensor([0, 0, 1, 2])
    assert decide(scores, owners, how()).tolist() == [[1, 1, 0]]
    assert decide(scores, owners, how(threshold=0.5, background=2)).tolist() == [[2, 1, 2]]
    assert decide(scores + 0.01, owners, how(threshold=0.5, background=2)).tolist() == [[2, 1, 2]]


def lerp_matrix(source, target):
    """Bilinear weights (target, source), pixel centres at halves."""
    weights = np.zeros((target, source))
    for row in range(target):
        place = max((row + 0.5) * source / target - 0.5, 0)
        low = min(int(place), source - 1)
        weights[row, low] += 1 - (place - low)
        weights[row, min(low + 1, source - 1)] += place - low
    return weights


def written_out(model, image, texts, owners, numbers):
    """Segment in numpy, step by step; the model only gives patches of whole windows."""
    pixels = resized(image, numbers.side_px, antialias=False).numpy()
    _, height, width = pixels.shape
    total, count = np.zeros((len(texts), height, width)), np.zeros((height, width))
    patch, mean = model.config.patch_px, [round(255 * part) for part in model.config.preprocess.mean]
    for top in starts(height, numbers.window_px, numbers.stride_px):
        for left in starts(width, numbers.window_px, numbers.stride_px):
            part = pixels[:, top : top + numbers.window_px, left : left + numbers.window_px]
            down, across = (-side % patch for side in part.shape[1:])
            full = np.empty((3, part.shape[1] + down, part.shape[2] + across), np.uint8)
            full[:] = np.array(mean, np.uint8)[:, None, None]
            rows = slice(down // 2, down // 2 + part.shape[1])
            columns = slice(across // 2, across // 2 + part.shape[2])
            full[:, rows, columns] = part
            dense = model.encode_dense(full[None])[0].astype(np.float64)
            maps = np.einsum("qd,dhw->qhw", texts, dense)
            left_side = lerp_matrix(maps.shape[1], full.shape[1])
            maps = left_side @ maps @ lerp_matrix(maps.shape[2], full.shape[2]).T
            total[:, top : top + part.shape[1], left : left + part.shape[2]] += maps[:, rows, columns]
            count[top : top + part.shape[1], left : left + part.shape[2]] += 1
    maps = lerp_matrix(height, image.shape[0]) @ (total / count) @ lerp_matrix(width, image.shape[1]).T
    odds = np.exp(numbers.scale * (maps - maps.max(axis=0)))
    odds /= odds.sum(axis=0)
    likely = np.stack([odds[owners == place].max(axis=0) for place in range(owners.max() + 1)])
    return np.where(likely.max(axis=0) < numbers.threshold, numbers.background, likely.argmax(axis=0)), likely


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((96, 96), {}),
        ((70, 150), {"threshold": 0.3, "background": 2}),
        ((61, 47), {"side_px": 0}),
        ((128, 40), {"side_px": 90, "window_px": 50, "stride_px": 20}),
    ],
)
def test_windows_as_written_out(tiny_model, size, changes):
    model, numbers = encoder(tiny_model), how(**changes)
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    texts = model.encode_text(["a roof", "a house", "grass", "water"])
    owners = np.array([0, 0, 1, 2])
    expected, likely = written_out(model, image, texts, owners, numbers)
    found = segment(model, image, texts, owners, numbers)
    top = np.sort(likely, axis=0)
    clear = (top[-1] - top[-2] > 1e-4) & (abs(top[-1] - numbers.threshold) > 1e-4)
    assert clear.mean() > 0.9 and (found == expected)[clear].all()


def test_one_window_is_the_window_itself(tiny_model):
    model, image = encoder(tiny_model), np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    texts = model.encode_text(["roof", "grass", "water"])
    maps = np.einsum("qd,dhw->qhw", texts, model.encode_dense(image.transpose(2, 0, 1)[None])[0])
    large = functional.interpolate(torch.tensor(maps)[None], (64, 64), mode="bilinear")[0]
    found = segment(model, image, texts, np.arange(3), how(side_px=0, scale=1000.0))
    assert (found == large.argmax(dim=0).numpy()).mean() > 0.999
    larger = segment(model, image, texts, np.arange(3), how(side_px=0), size=(128, 96))
    assert larger.shape == (128, 96) and (larger[1::2, :64].shape) == (64, 64)


def test_the_class_token_is_the_last_blocks(tiny_model):
    """The model's own class bias is ``L2(p + λ c)`` of the same tokens."""
    from geoalign_core.models import load_encoder
    from geoalign_core.models.options import EncoderOptions

    biased = load_encoder(str(tiny_model), device="cpu", options=EncoderOptions(cls_bias=-0.3, precision="float32"))
    images = np.random.default_rng(3).integers(0, 256, (2, 3, 64, 96), dtype=np.uint8)
    patches, token = patches_and_token(encoder(tiny_model), torch.tensor(images), wanted=True)
    assert torch.allclose(patches, torch.tensor(encoder(tiny_model).encode_dense(images)), atol=1e-4)
    sums = functional.normalize(patches - 0.3 * token[:, :, None, None], dim=1)
    assert np.allclose(sums.numpy(), biased.encode_dense(images), atol=1e-4)
    whole = torch.tensor(encoder(tiny_model).encode_image(images))
    assert (token - whole).abs().max() > 0.01
    assert patches_and_token(encoder(tiny_model), torch.tensor(images), wanted=False)[1] is None


def test_the_class_tokens_scores_are_added(tiny_model):
    model, images = (
        encoder(tiny_model),
        torch.tensor(np.random.default_rng(5).integers(0, 256, (2, 3, 32, 48), np.uint8)),
    )
    patches, token = patches_and_token(model, images, wanted=True)
    words = torch.tensor(model.encode_text(["roof", "grass"]))
    own = torch.einsum("bdhw,qd->bqhw", patches, words) - 0.3 * (token @ words.T)[:, :, None, None]
    expected = functional.interpolate(own, (32, 48), mode="bilinear")
    assert torch.allclose(window_scores(model, images, words, how(cls_bias=-0.3)), expected, atol=1e-5)
    assert (window_scores(model, images, words, PLAIN) - expected).abs().max() > 1e-3


def test_a_cancelled_image_stops(tiny_model):
    token = CancelToken()
    token.cancel()
    model, image = encoder(tiny_model), np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(CancelledError):
        segment(model, image, np.eye(2, 32, dtype=np.float32), np.arange(2), PLAIN, cancel=token)


# Guided filter ----------------------------------------------------------------------------------------------------


def test_guided_filter_by_its_definition():
    """A regression in every box, written out pixel by pixel; then means of its coefficients."""
    rng, radius, epsilon = np.random.default_rng(4), 2, 0.01
    guide, maps = rng.random((3, 9, 7)), rng.random((2, 9, 7))
    slopes, offsets = np.zeros((2, 3, 9, 7)), np.zeros((2, 9, 7))

    def box(array, row, column):
        return array[
            ..., max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1
        ].reshape(*array.shape[:-2], -1)  # fmt: skip

    for row in range(9):
        for column in range(7):
            colours, values = box(guide, row, column), box(maps, row, column)
            cross = (colours - colours.mean(1, keepdims=True)) @ (values - values.mean(1, keepdims=True)).T
            slope = np.linalg.solve(np.cov(colours, bias=True) + epsilon * np.eye(3), cross / values.shape[1])
            slopes[:, :, row, column] = slope.T
            offsets[:, row, column] = values.mean(1) - slope.T @ colours.mean(1)
    expected = np.zeros((2, 9, 7))
    for row in range(9):
        for column in range(7):
            mean = box(slopes, row, column).mean(-1)
            expected[:, row, column] = mean @ guide[:, row, column] + box(offsets, row, column).mean(-1)
    found = guided_filter(
        torch.tensor(maps, dtype=torch.float32)[None], torch.tensor(guide, dtype=torch.float32)[None], radius, epsilon
    )
    assert np.abs(found[0].numpy() - expected).max() < 1e-4


def test_guided_filter_finds_the_edge_and_keeps_constants():
    guide = torch.zeros(1, 3, 48, 48)
    guide[..., 27:] = 1
    blurred = functional.interpolate(torch.tensor([[[[0.0, 0, 1]]]]), (48, 48), mode="bilinear")
    sharp = guided_filter(blurred, guide, 8, 1e-4)
    step = (sharp[0, 0, 24, 27] - sharp[0, 0, 24, 26]).item()
    assert step > 5 * (blurred[0, 0, 24, 27] - blurred[0, 0, 24, 26]).item()
    constant = guided_filter(torch.full((1, 2, 48, 48), 0.25), torch.rand(1, 3, 48, 48), 5, 0.01)
    assert torch.allclose(constant, torch.full_like(constant, 0.25), atol=1e-4)


@pytest.mark.parametrize("rule", ["bilinear", "guided"])
def test_windows_are_enlarged_as_the_protocol_says(tmp_path, monkeypatch, rule):
    from training.evaluation.segment_plan import plan_of

    monkeypatch.setitem(PROTOCOLS[FARSLIP].numbers, "upsample", rule)
    assert plan_of(job(tmp_path / "loveDA", None, tmp_path, FARSLIP), FARSLIP).how.upsample == rule


# Classes and colours ----------------------------------------------------------------------------------------------


# SegEarth-OV's configurations at 4496e8b (arXiv 2410.01768): classes of configs/cls_*.txt in the labels' order, their
# other words behind commas; prob_thd, bg_idx and reduce_zero_label of configs/cfg_*.py; the part of the data loader.
EIGHT = {
    "openearthmap": (0.1, 0, False, "val", (
        "background/bareland,barren/grass/pavement/road/tree,forest/water,river/cropland/building,roof,house")),
    "loveda": (0.3, 0, True, "val", "background/building,roof,house/road/water/barren/forest/agricultural"),
    "potsdam": (0.1, 5, True, "val", "road,parking lot/building/low vegetation/tree/car/clutter,background"),
    "vaihingen": (0.1, 5, True, "val", "impervious surface/building/low vegetation/tree/car/clutter"),
    "isaid": (0.4, 0, False, "val", (
        "background/ship/store tank/baseball diamond/tennis court/basketball court/ground track field/bridge/"
        "large vehicle/small vehicle/helicopter/swimming pool/roundabout/soccer ball field/plane/harbor")),
    "uavid": (0.3, 0, False, "test", "background/building/road/car/tree/vegetation/human"),
    "udd5": (0.4, 4, False, "val", "vegetation/building/road/vehicle/background"),
    "vdd": (0.3, 0, False, "test", "background/facade/road/vegetation/vehicle/roof/water"),
}  # fmt: skip
# Colours of the data sets' own masks (ISPRS, OpenEarthMap, UAVid, UDD), of the classes from the first on.
COLOURS = {
    "openearthmap": "000000 800000 00ff24 949494 ffffff 226126 0045ff 4bb549 de1f07",
    "potsdam": "ffffff 0000ff 00ffff 00ff00 ffff00 ff0000",
    "vaihingen": "ffffff 0000ff 00ffff 00ff00 ffff00 ff0000",
    "uavid": "000000 800000 804080 c000c0,400080 008000 808000 404000",
    "udd5": "6b8e23 66669c 804080 00008e 000000",
}


@pytest.mark.parametrize("name", EIGHT)
def test_a_set_is_as_published(name):
    threshold, background, from_one, split, classes = EIGHT[name]
    found, words = read_class_list(list_file(name)), [row.split(",") for row in classes.split("/")]
    assert found.names == tuple(row[0] for row in words)
    assert list(zip(found.words, found.owners.tolist(), strict=True)) == [
        (word, place) for place, row in enumerate(words) for word in row
    ]
    known = SETS[name]
    assert (known.id, known.background, known.zero_is_unlabelled, known.split) == (name, background, from_one, split)
    assert known.mask_ending == ("_instance_color_RGB" if name == "isaid" else "")
    assert PROTOCOLS[SEGEARTH].numbers["thresholds"][name] == threshold
    table = colour_file(name)
    assert (table is None) == (name not in COLOURS)
    if table is not None:
        colours = {
            int(colour, 16): place
            for place, shades in enumerate(COLOURS[name].split()) for colour in shades.split(",")
        }  # fmt: skip
        assert read_colours(table, found) == colours | ({0: -1} if from_one else {})


def test_there_are_eight_sets_and_one_protocol_has_thresholds():
    thresholds = PROTOCOLS[SEGEARTH].numbers["thresholds"]
    assert thresholds.keys() == SETS.keys() == EIGHT.keys() and not PROTOCOLS[FARSLIP].numbers["thresholds"]


def test_class_lists_and_their_errors(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("# mine\nroof , house\n\nlow vegetation\n")
    found = read_class_list(path)
    assert found.names == ("roof", "low vegetation") and found.words == ("roof", "house", "low vegetation")
    assert found.owners.tolist() == [0, 0, 1]
    for text, message in (
        ("roof\nroof,house\n", "twice"),
        ("roof,house\nbarn,house\n", "twice"),
        ("roof\n", "fewer than two"),
        ("a\n,\n", r"own.txt:2.*words"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_class_list(path)
    with pytest.raises(DataError, match="missing or no text"):
        read_class_list(tmp_path / "nowhere.txt")


def test_colour_tables_and_their_errors(tmp_path):
    (tmp_path / "own.txt").write_text("roof\nlow vegetation\n")
    classes, path = read_class_list(tmp_path / "own.txt"), tmp_path / "colours.txt"
    path.write_text("# table\n0 0 0 unlabelled\n255,0,0,roof\n0 1 2 1\n")
    assert read_colours(path, classes) == {0: -1, 255 << 16: 0, 258: 1}
    for text in ("1 2 roof", "1 2 300 roof", "1 2 3 house", "1 2 3 7", "1 2 3", "x"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"colours\.txt:1: is no colour"):
            read_colours(path, classes)
    path.write_text("1 2 3 roof\n1 2 3 1\n")
    with pytest.raises(DataError, match="two classes"):
        read_colours(path, classes)


# Layouts ----------------------------------------------------------------------------------------------------------


def mask(path, labels, palette=False):
    """Write labels as a grey or a palette image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(labels, np.uint8))
    if palette:
        image = image.convert("P") if image.mode == "P" else Image.fromarray(np.asarray(labels, np.uint8), mode="P")
        image.putpalette([value for place in range(256) for value in (place, 255 - place, 7)])
    image.save(path)
    return path


def blocks(seed, classes, low=0):
    return np.random.default_rng(seed).integers(low, classes, (5, 6)).repeat(8, axis=0).repeat(8, axis=1)


@pytest.mark.parametrize(
    ("images", "masks", "split", "part"),
    [
        ("img_dir/val", "ann_dir/val", None, "val"),
        ("img_dir/train", "ann_dir/train", "train", "train"),
        ("test/src", "test/gt", None, "test"),
        ("images", "labels", None, None),
    ],
)
def test_folders(tmp_path, images, masks, split, part):
    for name in ("b/2", "a/1"):
        picture(tmp_path / images / f"{name}.JPG")
        mask(tmp_path / masks / f"{name}.png", blocks(0, 3))
    (tmp_path / masks / "readme.txt").write_text("no mask")
    found = find_pairs(tmp_path, split=split)
    assert found.images == (f"{images}/a/1.JPG", f"{images}/b/2.JPG") and found.split == part
    assert found.masks == (f"{masks}/a/1.png", f"{masks}/b/2.png") and not found.lonely_images


@pytest.mark.parametrize(("name", "part"), [("VDD", "test"), ("UDD5", "val")])
def test_the_part_is_the_published_one(tmp_path, tiny_model, name, part):
    for split in ("train", "val", "test"):
        picture(tmp_path / name / split / "src" / "1.JPG")
        mask(tmp_path / name / split / "gt" / "1.png", blocks(0, 5))
    result = run(tmp_path / name, tiny_model, tmp_path / "cache")
    assert result.settings["split"] == part and f"The part {part!r} was taken." in result.notes


def test_endings_own_folders_and_wrong_ones(tmp_path):
    picture(tmp_path / "pictures" / "1.png")
    mask(tmp_path / "truth" / "1_ins.png", blocks(0, 3))
    mask(tmp_path / "truth" / "1_other.png", blocks(0, 3))
    found = find_pairs(tmp_path, images="pictures", masks="truth", ending="_ins")
    assert found.masks == ("truth/1_ins.png",) and not found.lonely_masks
    with pytest.raises(DataError, match="no image has a mask of its name"):
        find_pairs(tmp_path, images="pictures", masks="truth")
    with pytest.raises(DataError, match="both folders or neither"):
        find_pairs(tmp_path, images="pictures")
    with pytest.raises(DataError, match="no folders of images and masks"):
        find_pairs(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        find_pairs(tmp_path, images="pictures", masks="nowhere")
    with pytest.raises(DataError, match="is missing"):
        find_pairs(tmp_path / "nowhere")
    picture(tmp_path / "pictures" / "1.jpg")
    with pytest.raises(DataError, match="two files of one name"):
        find_pairs(tmp_path, images="pictures", masks="truth", ending="_ins")


def test_numbers_palettes_and_zero(tmp_path):
    labels = blocks(1, 4)
    labels[0, :5] = 255
    mask(tmp_path / "grey.png", labels)
    mask(tmp_path / "palette.png", labels, palette=True)
    expected = np.where(labels == 255, -1, labels)
    for name in ("grey.png", "palette.png"):
        found, unknown = MaskReader(4).read(tmp_path, name)
        assert (found == expected).all() and unknown == 0
    shifted, _ = MaskReader(3, zero_is_unlabelled=True).read(tmp_path, "grey.png")
    assert (shifted == np.where((labels == 255) | (labels == 0), -1, labels - 1)).all()
    with pytest.raises(DataError, match=r"grey\.png: a mask has a label that is no class \(3 in \d+ of 1,920 px\)"):
        MaskReader(3).read(tmp_path, "grey.png")
    found, unknown = MaskReader(3, unknown="ignore").read(tmp_path, "grey.png")
    assert unknown == (labels == 3).sum() == ((found < 0) & (labels != 255)).sum()
    Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "deep.png")
    assert (MaskReader(4).read(tmp_path, "deep.png")[0] == expected).all()


def test_colours(tmp_path):
    classes = read_class_list(list_file("uavid"))
    colours = read_colours(colour_file("uavid"), classes)
    table = np.array([[(key >> 16) & 255, (key >> 8) & 255, key & 255] for key in colours], np.uint8)
    places = blocks(2, len(table))
    Image.fromarray(table[places]).save(tmp_path / "coded.png")
    found, unknown = MaskReader(7, colours=colours).read(tmp_path, "coded.png")
    assert (found == np.array(list(colours.values()))[places]).all() and unknown == 0
    assert (found == 3).sum() == np.isin(places, [3, 4]).sum()  # static and moving cars
    with pytest.raises(DataError, match="in colours; give -s colours=FILE"):
        MaskReader(7).read(tmp_path, "coded.png")
    broken = table[places]
    broken[0, 0] = (1, 2, 3)
    Image.fromarray(broken).save(tmp_path / "coded.png")
    with pytest.raises(DataError, match=r"no class \(1 2 3 in 1 of 1,920 px\)"):
        MaskReader(7, colours=colours).read(tmp_path, "coded.png")
    assert MaskReader(7, colours=colours, unknown="ignore").read(tmp_path, "coded.png")[1] == 1


def test_damaged_masks(tmp_path):
    path = mask(tmp_path / "m.png", np.random.default_rng(0).integers(0, 9, (60, 60)))
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DataError, match=r"m\.png: a mask cannot be read"):
        MaskReader(9).read(tmp_path, "m.png")
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"m\.png"):
        MaskReader(9).read(tmp_path, "m.png")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match="mode F"):
        MaskReader(9).read(tmp_path, "f.tif")


def test_pictures_keep_labels_as_they_are():
    labels = np.array([[0, 1], [2, -1]]).repeat(300, axis=0).repeat(200, axis=1)
    small = painted(labels.astype(np.int32), 3, 60)
    assert small.shape == (60, 40, 3) and len({tuple(pixel) for pixel in small.reshape(-1, 3)}) == 4
    assert tuple(small[0, 0]) == colour(0) and tuple(small[-1, -1]) == (0, 0, 0)
    assert (painted(labels[:50].astype(np.int32), 3, 999).shape[:2]) == (50, 400)
    assert len({colour(place) for place in range(40)}) == 40


# End to end -------------------------------------------------------------------------------------------------------

SMALL = {"side_px": 96, "window_px": 64, "stride_px": 32, "templates": "a photo of {}."}


@pytest.fixture
def loveda(tmp_path):
    folder = tmp_path / "loveDA"
    for number in range(3):
        picture(folder / "img_dir" / "val" / f"{number}.png", number)
        mask(folder / "ann_dir" / "val" / f"{number}.png", blocks(number, 8))
    return folder


def run(data, model, cache, protocol=FARSLIP, **more):
    return TASK.run(job(data, model, cache, protocol, **{**SMALL, **more}))


def test_end_to_end_as_by_hand(loveda, tiny_model, tmp_path):
    result = run(loveda, tiny_model, tmp_path / "cache")
    model, classes = encoder(tiny_model), read_class_list(list_file("loveda"))
    texts = model.encode_text([f"a photo of {word}." for word in classes.words])
    tables = []
    for number in range(3):
        with Image.open(loveda / f"img_dir/val/{number}.png") as image:
            answer = segment(model, np.asarray(image), texts, classes.owners, PLAIN)
        truth = np.where(blocks(number, 8) == 0, -1, blocks(number, 8) - 1)
        tables.append(confusion(truth, answer, 7))
    found = segmented(sums_of(sum(tables)))
    assert result.details["confusion"]["counts"] == sum(tables).tolist()
    assert result.metrics["miou"].value == pytest.approx(found.miou[0])
    assert result.metrics["iou road"].value == pytest.approx(found.iou[0, 2], nan_ok=True)
    assert result.metrics["miou"].low <= found.miou[0] <= result.metrics["miou"].high
    counts = result.dataset.counts
    assert (counts["images"], counts["classes"], counts["words"]) == (3, 7, 9) and result.dataset.name == "loveda"
    assert counts["pixels"] == int(sum(tables).sum()) and result.model.dense_mode == "segearth"
    assert (
        result.settings["threshold"] == 0 and result.settings["cls_bias"] == 0 and result.settings["zero_is_unlabelled"]
    )
    shown = result.details["pictures"]
    assert len(shown) == 3 and [other["title"] for other in shown[0]["others"]] == ["truth", "answer"]
    json.dumps(result.details)


def test_segearths_numbers(loveda, tiny_model, tmp_path):
    result = run(loveda, tiny_model, tmp_path / "cache", SEGEARTH)
    assert result.settings["threshold"] == 0.3 and result.settings["cls_bias"] == -0.3
    assert any("SimFeatUp" in note for note in result.notes)
    assert any("side_px, stride_px, window_px" in note for note in result.notes)
    sure = run(loveda, tiny_model, tmp_path / "cache", SEGEARTH, threshold=1, background="road")
    columns = np.array(sure.details["confusion"]["counts"]).sum(axis=0)
    assert np.flatnonzero(columns).tolist() == [2] and sure.dataset.digest == result.dataset.digest
    guided = run(loveda, tiny_model, tmp_path / "cache", SEGEARTH, upsample="guided", guided_radius_px=8)
    assert guided.details["confusion"] != result.details["confusion"]
    assert guided.settings["guided_radius_px"] == 8 and "guided_radius_px" not in result.settings


def test_a_stopped_run_goes_on(loveda, tiny_model, tmp_path, monkeypatch):
    whole, token, calls = run(loveda, tiny_model, tmp_path / "one"), CancelToken(), []

    def stop(done, total, stage):
        if stage == "segmenting" and done == 2:
            token.cancel()

    with pytest.raises(CancelledError):
        run(loveda, tiny_model, tmp_path / "two", progress=stop, cancel=token)
    (kept,) = (tmp_path / "two").glob("segment-*.jsonl")
    assert len(kept.read_text().splitlines()) == 2
    kept.write_text(kept.read_text()[:-9])  # killed while it wrote
    real = sliding.segment
    monkeypatch.setattr(sliding, "segment", lambda *args, **more: calls.append(1) or real(*args, **more))
    again = run(loveda, tiny_model, tmp_path / "two")
    assert len(calls) == 2  # the others' pictures are there, too
    assert again.metrics == whole.metrics and again.details == whole.details
    assert run(loveda, tiny_model, tmp_path / "two").details == whole.details and len(calls) == 2
    run(loveda, tiny_model, tmp_path / "two", threshold=0.5)
    assert len(calls) == 2 + 3  # other numbers, other counts


def test_an_answer_that_cannot_be_drawn_is_asked_for_once(loveda, tiny_model, tmp_path, monkeypatch):
    whole, calls = run(loveda, tiny_model, tmp_path), []
    (kept,) = tmp_path.glob("segment-*.jsonl")
    found = [json.loads(line) for line in kept.read_text().splitlines()]
    assert all(line[-1] for line in found)
    found[0][-1], found[1][-1], found[2][-1][2] = None, "x", "QUJD"
    kept.write_text("".join(json.dumps(line) + "\n" for line in found))
    real = sliding.segment
    monkeypatch.setattr(sliding, "segment", lambda *args, **more: calls.append(1) or real(*args, **more))
    for _ in range(2):
        assert run(loveda, tiny_model, tmp_path).details == whole.details
        assert len(calls) == 3


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, math.nan]), min_size=1, max_size=20))
def test_answers_that_are_drawn_were_kept_on_the_way(values):
    kept = {place for place in range(len(values)) if may_be_shown(values[: place + 1])}
    assert {place for _, place in best_and_worst(values)} <= kept


def test_few_answers_are_kept():
    values = np.random.default_rng(0).permutation(1000).astype(float).tolist()
    assert sum(may_be_shown(values[: place + 1]) for place in range(1000)) < 60


def test_a_changed_file_of_the_same_size_is_measured_anew(tmp_path, tiny_model):
    """Uncompressed pictures and masks of one shape all have one size."""
    folder, cache = tmp_path / "loveDA", tmp_path / "cache"
    for number in range(2):
        picture(folder / "img_dir/val" / f"{number}.bmp", number)
        mask(folder / "ann_dir/val" / f"{number}.bmp", blocks(number, 8))

    def counts():
        return run(folder, tiny_model, cache).details["confusion"]["counts"]

    first = counts()
    for changed in ("ann_dir/val/0.bmp", "img_dir/val/1.bmp"):
        before = (folder / changed).stat()
        (mask if "ann" in changed else picture)(folder / changed, blocks(7, 8) if "ann" in changed else 8)
        os.utime(folder / changed, ns=(0, before.st_mtime_ns + 10**9))
        assert (folder / changed).stat().st_size == before.st_size
        second = counts()
        assert second != first
        first = second


def test_own_classes_and_colours(tmp_path, tiny_model):
    folder = tmp_path / "mine"
    picture(folder / "images" / "1.png")
    table = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]], np.uint8)
    (folder / "masks").mkdir()
    Image.fromarray(table[blocks(0, 3)]).save(folder / "masks" / "1.png")
    (tmp_path / "classes.txt").write_text(LOVEDA)
    (tmp_path / "colours.txt").write_text("0 0 0 unlabelled\n200 0 0 building\n0 200 0 2\n")
    own = {"classes": tmp_path / "classes.txt", "colours": tmp_path / "colours.txt"}
    result = run(folder, tiny_model, tmp_path / "cache", **own)
    assert result.dataset.name == "mine" and result.dataset.counts["classes_without_pixels"] == 1
    assert result.details["words"]["building"] == ["building", "roof", "house"]
    assert result.dataset.counts["pixels"] == int((blocks(0, 3) > 0).sum())
    with pytest.raises(DataError, match="no set with known classes"):
        run(folder, tiny_model, tmp_path / "cache")


def test_what_is_missing_is_named_and_counted(loveda, tiny_model, tmp_path):
    cache = tmp_path / "cache"
    (loveda / "ann_dir/val/0.png").unlink()
    with pytest.raises(DataError, match=r"val/0\.png: an image has no mask \(1 images, 0 masks alone\)"):
        run(loveda, tiny_model, cache)
    mask(loveda / "ann_dir/val/9.png", blocks(0, 8))
    mask(loveda / "ann_dir/val/1.png", blocks(0, 8)[:32])
    result = run(loveda, tiny_model, cache, unreadable="skip")
    counts = result.dataset.counts
    assert (counts["images"], counts["skipped_images"], counts["masks_without_image"]) == (1, 2, 1)
    assert "not as large as its image (48 × 32, not 48 × 40 px)" in result.details["skipped"][0]
    mask(loveda / "ann_dir/val/0.png", blocks(0, 8))
    (loveda / "ann_dir/val/9.png").unlink()
    with pytest.raises(DataError, match="not as large as its image"):
        run(loveda, tiny_model, cache)
    mask(loveda / "ann_dir/val/1.png", blocks(0, 8) + 1)
    with pytest.raises(DataError, match=r"no class \(8 in"):
        run(loveda, tiny_model, cache)
    assert run(loveda, tiny_model, cache, unknown="ignore").dataset.counts["unknown_pixels"] > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 2}, {"threshold": "nan"}, {"window_px": 0}, {"stride_px": 1.5}, {"side_px": "x"}, {"scale": 0},
        {"set": "mars"}, {"background": "sea"}, {"background": 7}, {"upsample": "jbu"}, {"antialias": "maybe"},
        {"colour": "red"}, {"ignore": -1}, {"guided_epsilon": 0}, {"stride_px": 65},
    ],
)  # fmt: skip
def test_wrong_settings(loveda, tiny_model, tmp_path, wrong):
    with pytest.raises(UsageError):
        run(loveda, tiny_model, tmp_path / "cache", **wrong)


def test_aircraft_by_their_boxes(data_dir, tmp_path):
    """A real scene whose mask is of boxes: the answer is far better than aircraft everywhere."""
    source = data_dir / "boxes" / "aircraft"
    annotations = json.loads(next(source.rglob("*.json")).read_text())
    scene = max(annotations["images"], key=lambda item: sum(
        box["image_id"] == item["id"] for box in annotations["annotations"]
    ))  # fmt: skip
    (path,) = source.rglob(scene["file_name"].rsplit("/", 1)[-1])
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    labels = np.zeros(pixels.shape[:2], np.uint8)
    for box in annotations["annotations"]:
        if box["image_id"] == scene["id"]:
            left, top, width, height = (int(part) for part in box["bbox"])
            labels[top : top + height, left : left + width] = 1
    steps = range(0, 1921, 320)
    _, top, left = max((labels[y : y + 640, x : x + 640].sum(), y, x) for y in steps for x in steps)
    rows, columns = slice(top, top + 640), slice(left, left + 640)
    (tmp_path / "planes" / "images").mkdir(parents=True)
    Image.fromarray(pixels[rows, columns]).save(tmp_path / "planes" / "images" / "1.png")
    mask(tmp_path / "planes" / "masks" / "1.png", labels[rows, columns])
    (tmp_path / "classes.txt").write_text("background,runway,tarmac,grass,building\nairplane,aircraft\n")
    result = TASK.run(job(
        tmp_path / "planes", "geoalign-s", tmp_path / "cache", FARSLIP, classes=tmp_path / "classes.txt",
        side_px=0, stride_px=208, templates="a satellite photo of {}.",
    ))  # fmt: skip
    everything = 100 * labels[rows, columns].mean()
    assert result.metrics["iou airplane"].value > 1.5 * everything
    assert any("segearth" in note for note in result.notes)
