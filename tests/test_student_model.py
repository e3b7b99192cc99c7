"""The model in training: it is the model that is served, its graph never changes, and it learns."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from geoalign_core.features.pooling import pool_boxes as served_pool
from geoalign_core.models.tokens import Tokenizer
from tests.student_tools import EVERY, recipe, scenes, tiny_file, without_regions
from tiling.errors import UsageError
from training.loop.loader import Loader
from training.model.start import start

STAGE2 = {"tables": "77+248", "long_projection": True}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make(tmp_path):
    """Give a student of random weights and its loader of synthetic scenes."""
    init = f"random:{tiny_file(tmp_path)}"

    def build(loss, *, data=None, model=None, optim=None, scene=None, seed=0):
        used = recipe(init, loss=loss, data=data, model=model, optim=optim, seed=seed)
        student, config = start(used, seed=seed)
        return student, Loader(scenes() if scene is None else scene, used, config)

    return build


def gradients(student, batch, progress=0.0):
    student.zero_grad(set_to_none=True)
    found = student(batch, progress)
    found["loss"].backward()
    return found, {name: item.grad for name, item in student.named_parameters()}


# ---- what is trained is what is served


@pytest.mark.parametrize("mode", ["maskclip", "segearth", "vanilla", "sclip_res"])
def test_features_are_those_of_the_served_model(make, mode):
    student, loader = make(EVERY, data={"crops": "regions"}, model={**STAGE2, "dense_mode": mode})
    batch = next(loader.batches())
    student.eval()
    clip = student.clip
    pixels = student.pixels(batch.images)
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (loader._made.reader.preprocess.mean,
                                                                  loader._made.reader.preprocess.std))  # fmt: skip
    assert torch.allclose(pixels, (batch.images / 255 - mean) / std, atol=1e-6)
    with torch.no_grad():
        maps, classes = clip.features(pixels, mode, normalise=False)
        grid = np.array([maps.shape[3], maps.shape[2]] * 2)
        regions = served_pool(maps, batch.image_of.numpy(), batch.boxes.numpy() * grid)
        short = torch.nn.functional.normalize(clip.text(batch.brief), dim=-1)
        long = torch.nn.functional.normalize(clip.text(batch.detailed, long=True), dim=-1)
    for found, served in (
        (student.image_features(batch.images), classes),
        (student.region_features(batch.images, batch.image_of, batch.boxes)[0], classes),
        (student.region_features(batch.images, batch.image_of, batch.boxes)[1], regions),
        (student.text_features(batch.brief), short),
        (student.text_features(batch.detailed, long=True), long),
    ):
        assert len(served) and (found - served).abs().max() < 1e-6


def test_padding_does_not_matter(make):
    student, _ = make({"image_text": 1.0})
    tokens, _ = Tokenizer(77).encode(["a red roof"])
    wide = torch.nn.functional.pad(tokens, (0, 30))
    assert (student.text_features(tokens) - student.text_features(wide)).abs().max() < 1e-6


# ---- the graph


def test_checkpointing_changes_no_gradient(make):
    results = []
    for checkpointing in (False, True):
        student, loader = make(EVERY, data={"crops": "regions"}, model=STAGE2, optim={"checkpointing": checkpointing})
        results.append(gradients(student, next(loader.batches())))
    (first, plain), (second, again) = results
    assert first["loss"].item() == second["loss"].item()
    assert plain.keys() == again.keys()
    for name, value in plain.items():
        assert (value is None) == (again[name] is None), name
        assert value is None or torch.allclose(value, again[name], atol=1e-7), name


LOSSES = [
    {"image_text": 1.0},
    {"image_text": 0.0, "region": 1.0},
    {"image_text": 0.0, "hard_negative": 1.0},
    {"image_text": 0.0, "region": 1.0, "consistency": 1.0},
    {"image_text": 0.0, "textual": 1.0},
    {"image_text": 0.0, "category": 1.0},
    {"image_text": 0.0, "distil": 1.0},
    {"distil": 1.0, "distil_teacher": "ema", "distil_target": "combined"},
    {"distil": 1.0, "distil_teacher": "frozen", "distil_target": "roi2cls"},
    {"granularity": "length_ramp", "principal": 2},
    EVERY,
]


@pytest.mark.parametrize("loss", LOSSES, ids="+".join)
def test_every_trainable_parameter_has_a_gradient_whatever_the_batch_lacks(make, loss):
    student, loader = make(loss, data={"crops": "regions"}, model=STAGE2)
    full = next(loader.batches())
    bare = next(make(loss, data={"crops": "regions"}, model=STAGE2, scene=without_regions(scenes()))[1].batches())
    assert len(bare.boxes) == 0 and bool(len(full.boxes)) == student.needs.boxes
    calm = replace(full, negatives=full.negatives[:0], negative_of=full.negative_of[:0])
    for batch in (full, bare, calm):
        found, grads = gradients(student, batch)
        assert torch.isfinite(found["loss"])
        assert not any(torch.isinf(value) for value in found.values())
        assert batch is not full or not any(torch.isnan(value) for value in found.values())
        for name, parameter in student.named_parameters():
            assert (grads[name] is not None) == parameter.requires_grad, name
            assert grads[name] is None or torch.isfinite(grads[name]).all(), name


def test_weights_of_zero_leave_their_parts_out(make):
    student, loader = make({"image_text": 1.0})
    batch = next(loader.batches())
    found = student(batch)
    parts = {"region", "hard_negative", "consistency", "textual", "distil", "category", "long", "short"}
    assert not parts & found.keys()
    assert found["loss"].item() == pytest.approx(found["image_text"].item())
    assert (len(batch.boxes), len(batch.crops), len(batch.detailed), len(batch.negatives)) == (0, 0, 0, 0)
    assert student.teacher is None
    assert found.keys() == {"loss", "image_text", "scale", "collapse_images", "accuracy_i2t"}  # one temperature


def test_the_total_is_the_weighted_sum(make):
    student, loader = make(EVERY, data={"crops": "regions"}, model=STAGE2)
    found = student(next(loader.batches()))
    wanted = sum(weight * found[name].item() for name, weight in EVERY.items())
    assert found["loss"].item() == pytest.approx(wanted, rel=1e-5)
    assert found["textual"] > found["image_text"] > 0


def test_stretching_keeps_the_first_rows(make):
    student, loader = make(EVERY, data={"crops": "regions"}, model=STAGE2)
    _, grads = gradients(student, next(loader.batches()))
    assert grads["clip.positional_embedding_ori"] is None
    assert not grads["clip.positional_embedding_res"][:20].any()
    assert grads["clip.positional_embedding_res"][20:30].any()
    assert grads["clip.positional_embedding"][:10].any()


def test_granularity_follows_progress_and_cuts_long_texts(make):
    student, loader = make({"granularity": "short_to_long"}, model=STAGE2)
    batch = next(loader.batches())
    for progress, long, short in ((0.0, 0.5, 1.0), (1.0, 1.0, 0.5)):
        found = student(batch, progress)
        wanted = long * found["long"] + short * found["short"]
        assert found["loss"].item() == pytest.approx(wanted.item(), rel=1e-6)
    ramp, loader = make({"granularity": "length_ramp"}, model=STAGE2)
    early, late = ramp(batch, 0.0)["long"].item(), ramp(batch, 1.0)["long"].item()
    cut = replace(batch, detailed=torch.cat([batch.detailed[:, :19], torch.full((4, 1), 49407)], dim=1))
    assert early == pytest.approx(ramp(cut, 1.0)["long"].item(), rel=1e-6)
    assert early != pytest.approx(late, rel=1e-4)


def test_scales_are_clamped_in_the_forward(make):
    student, loader = make({"image_text": 1.0})
    with torch.no_grad():
        student.clip.logit_scale.fill_(9.0)
    found, grads = gradients(student, next(loader.batches()))
    assert found["scale"].item() == pytest.approx(100.0, rel=1e-5)
    assert grads["clip.logit_scale"].item() == 0
    low, _ = make({"image_text": 1.0, "min_scale": 1.0})
    with torch.no_grad():
        low.clip.logit_scale.fill_(-2.0)
    assert low(next(loader.batches()))["scale"].item() == 1


def test_freeze_by_name(make):
    student, loader = make({"image_text": 1.0}, model={"freeze": ("^visual\\.", "token_embedding")})
    before = {name: value.clone() for name, value in student.state_dict().items()}
    optimiser = torch.optim.AdamW([item for item in student.parameters() if item.requires_grad], lr=1e-2)
    gradients(student, next(loader.batches()))
    optimiser.step()
    moved = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and not any(".visual." in name or "token_embedding" in name for name in moved)
    with pytest.raises(UsageError, match="names no parameter"):
        make({"image_text": 1.0}, model={"freeze": ("nothing_of_that_name",)})


# ---- teachers


def test_an_average_teacher_follows_and_stays_exact(make):
    student, loader = make({"distil": 1.0, "distil_teacher": "ema", "ema_momentum": 0.75}, data={"crops": "random"})
    student.bfloat16()
    assert {item.dtype for item in student.teacher.parameters()} == {torch.float32}
    assert student.clip.visual.proj.dtype == torch.bfloat16
    old = student.teacher.visual.proj.clone()
    with torch.no_grad():
        student.clip.visual.proj += 1.0
    student.after_step()
    wanted = 0.75 * old + 0.25 * student.clip.visual.proj.float()
    assert torch.allclose(student.teacher.visual.proj, wanted, atol=1e-6)
    found, _ = gradients(student, next(loader.batches()))
    assert torch.isfinite(found["loss"])
    assert all(item.grad is None for item in student.teacher.parameters())


def test_a_frozen_teacher_stays(make):
    student, _ = make({"distil": 1.0, "distil_teacher": "frozen"}, data={"crops": "random"})
    old = student.teacher.visual.proj.clone()
    with torch.no_grad():
        student.clip.visual.proj += 1.0
    student.after_step()
    assert torch.equal(student.teacher.visual.proj, old)


def test_bfloat16_computes_the_losses_in_float32(make):
    student, loader = make(EVERY, data={"crops": "regions"}, model=STAGE2)
    batch = next(loader.batches())
    exact = student(batch)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = student(batch)
    assert {value.dtype for value in mixed.values()} == {torch.float32}
    assert mixed["loss"].item() == pytest.approx(exact.item(), rel=0.02)


# ---- it learns


def _train(make, steps):
    student, loader = make(EVERY, data={"crops": "regions"}, model=STAGE2, optim={"batch": 16}, seed=3)
    optimiser = torch.optim.AdamW([item for item in student.parameters() if item.requires_grad], lr=1e-3)
    history = []
    for _, batch in zip(range(steps), loader.batches(), strict=False):
        found, _ = gradients(student, batch)
        optimiser.step()
        student.after_step()
        history.append({name: value.item() for name, value in found.items()})
    return history


def test_every_loss_falls_and_a_second_run_is_the_same(make):
    history = _train(make, 40)
    first, last = history[0], history[-1]
    for name in EVERY:
        # A category shared by eight of 32 regions cannot cost less than ln 8: what is above it falls.
        floor = math.log(8) if name == "category" else 0.0
        assert last[name] - floor < 0.8 * (first[name] - floor), (name, first[name], last[name])
    assert last["accuracy_i2t"] > 0.9 > first["accuracy_i2t"]
    assert _train(make, 4) == history[:4]


# ---- recipes that contradict themselves


@pytest.mark.parametrize(
    ("loss", "model", "words"),
    [
        ({"image_text": 0.0}, {}, "no loss is on"),
        ({"consistency": 1.0}, {}, "set data.crops=regions"),
        ({"roi_norm": "never"}, {}, "'never'"),
        ({}, {"tables": "79"}, "'79'"),
        ({}, {"family": "dgtrs", "tables": "77"}, "set model.tables to one of 248"),
    ],
)
def test_contradictions_are_one_line(make, loss, model, words):
    """The checks of recipe files hold for recipes that are made in Python too."""
    with pytest.raises(UsageError) as caught:
        make(loss, model=model)
    assert words in str(caught.value) and "\n" not in str(caught.value)
