"""A run that was killed and goes on ends where an undisturbed one does, on every engine and number of ranks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.train_tools import Toy, ToyBatches, killed_at, launch, recipe_of, start
from training.loop import checkpoint
from training.loop.failures import CheckpointError
from training.loop.trainer import Trainer
from training.recipe import DataRecipe, ModelRecipe


def train(rank, folder, recipe, resume=False, calls=1, stop_at=None):
    """Carry out a toy's run as a process of the launcher's; ``stop_at`` ends it without a word."""
    import os

    from training.loop.ranks import join, leave

    ranks = join(device="cpu")
    loader = ToyBatches(recipe, ranks.rank, ranks.world)

    def tell(done, total, stage):
        if done == stop_at:
            os._exit(0)

    Trainer(Toy(calls), recipe, loader, folder, resume=resume, data="d1", progress=tell).run()
    leave()


def weights(folder, step=12):
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / "weights.safetensors")


def same(a, b, **limits):
    found, wanted = weights(a), weights(b)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, **({"rtol": 0, "atol": 1e-6} | limits), msg=name)


def moved(folder):
    """The run learned something: else equal weights would say nothing."""
    return (weights(folder)["image.0.weight"] - Toy().image[0].weight).abs().max() > 0.01


CASES = [
    pytest.param("plain", "fp32", 1, id="plain"),
    pytest.param("plain", "fp32", 2, id="ddp-2"),
    pytest.param("deepspeed", "fp32", 2, id="zero-2-fp32"),
    pytest.param("deepspeed", "bf16", 2, id="zero-2-bf16"),
]


@pytest.mark.parametrize(("engine", "precision", "world"), CASES)
def test_killed_and_resumed_is_undisturbed(tmp_path, engine, precision, world):
    recipe = recipe_of(engine, precision=precision)
    launch(world, train, tmp_path / "whole", recipe)
    assert moved(tmp_path / "whole")
    killed = tmp_path / "killed"
    # SIGKILL at whatever comes right after the second checkpoint: most likely the middle of a step.
    with killed_at(start(world, train, killed, recipe), (killed / "checkpoints/step-00000006").is_dir):
        assert checkpoint.find(killed).name >= "step-00000003"
    launch(world, train, killed, recipe, True)
    same(killed, tmp_path / "whole")
    assert sorted(path.name for path in (killed / "checkpoints").iterdir()) == [
        "latest",
        "step-00000009",
        "step-00000012",
    ]


@pytest.mark.parametrize(("engine", "worlds"), [("deepspeed", (2, 1)), ("deepspeed", (1, 2)), ("plain", (2, 1))])
def test_world_size_may_change(tmp_path, engine, worlds):
    """What counts is the global batch: 2 × 4 images are followed by 1 × 8, moments and masters by the same."""
    first, second = (recipe_of(engine, batch=8 // world) for world in worlds)
    launch(worlds[0], train, tmp_path, first, False, 1, 7)
    assert checkpoint.find(tmp_path).name == "step-00000006"
    before = weights(tmp_path, 6)
    launch(worlds[1], train, tmp_path, second, True, 1, 7)  # reads it and takes a step, saves nothing
    after = weights(tmp_path, 6)
    assert all(torch.equal(before[name], after[name]) for name in before)
    launch(worlds[1], train, tmp_path, second, True)
    state = json.loads((tmp_path / "checkpoints/step-00000012/state.json").read_text())
    assert (state["step"], state["samples"], state["world"], state["updates"]) == (12, 96, worlds[1], 12)


def test_engines_may_change(tmp_path):
    """A DeepSpeed run of two ranks is finished on a laptop: masters and moments arrive exactly."""
    launch(2, train, tmp_path, recipe_of("deepspeed", precision="bf16"), False, 1, 7)
    from training.loop.plain import PlainEngine
    from training.loop.ranks import Ranks

    recipe = recipe_of("plain", precision="bf16", batch=8)
    engine = PlainEngine(Toy(seed=3), recipe, Ranks(0, 1, torch.device("cpu")))
    position = checkpoint.load(checkpoint.find(tmp_path), engine, recipe, data="d1")
    assert (position.step, position.samples, engine.updates) == (6, 48, 6)
    stored = weights(tmp_path, 6)
    moments = load_file(tmp_path / "checkpoints/step-00000006/moments.safetensors")
    for name, state in engine.states():
        assert torch.equal(state.weight, stored[name])
        assert torch.equal(state.mean, moments[f"{name}.mean"])
        assert torch.equal(state.square, moments[f"{name}.square"])
    assert max(value.abs().max() for value in moments.values()) > 0
    assert engine.module.steps == 6


# ---- what is refused; these need one process only


@pytest.fixture
def begun(tmp_path):
    Trainer(Toy(), recipe_of(steps=3), ToyBatches(recipe_of()), tmp_path, data="d1").run()
    return tmp_path


def resume(folder, recipe, student=None, data="d1"):
    return Trainer(student or Toy(), recipe, ToyBatches(recipe), folder, resume=True, data=data).run()


def test_a_folder_in_use_is_refused(begun):
    with pytest.raises(CheckpointError, match=r"step-00000003.*--resume"):
        Trainer(Toy(), recipe_of(steps=3), ToyBatches(recipe_of()), begun)


def test_a_finished_run_is_left_alone(begun):
    before = weights(begun, 3)
    outcome = resume(begun, recipe_of(steps=3))
    assert (outcome.step, outcome.taken) == (3, 0)
    assert all(torch.equal(before[name], value) for name, value in weights(begun, 3).items())


def test_another_recipe_is_named(begun):
    with pytest.raises(CheckpointError, match=r"optim.rate is 0.01 there, 0.5 here"):
        resume(begun, recipe_of(steps=3, rate=0.5))
    free = recipe_of(steps=3, keep=5, log_every=1, save_every=1, checkpointing=False)
    moved = replace(free, model=ModelRecipe(init="elsewhere"), data=DataRecipe(train=("moved",)))
    resume(begun, moved)  # the records' digest and the checkpoint's weights decide, not their paths


def test_a_run_that_is_older_than_a_key_goes_on_with_its_default(begun):
    state = begun / "checkpoints" / "step-00000003" / "state.json"
    told = json.loads(state.read_text())
    for name in ("jitter", "jitter_share", "grey_share"):
        del told["recipe"]["data"][name]
    state.write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=r"data.grey_share is 0.0 there, 0.2 here"):
        resume(begun, replace(recipe_of(steps=3), data=DataRecipe(grey_share=0.2)))
    assert resume(begun, recipe_of(steps=3)).step == 3


def test_other_data_are_named(begun):
    with pytest.raises(CheckpointError, match="digest is d1 there, d2 here"):
        resume(begun, recipe_of(steps=3), data="d2")


def test_another_model_is_named(begun):
    other = Toy()
    other.words = torch.nn.Embedding(50, 32)
    with pytest.raises(CheckpointError, match=r"words.weight is \(40, 32\) there, \(50, 32\) here"):
        resume(begun, recipe_of(steps=3), other)


@pytest.mark.parametrize("name", ["state.json", "weights.safetensors", "moments.safetensors", "random.safetensors"])
def test_a_damaged_checkpoint_is_one_line(begun, name):
    path = begun / "checkpoints/step-00000003" / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="is damaged") as error:
        resume(begun, recipe_of(steps=3))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[]", "{}", '{"step": "x"}', "\x00", '{"step": 1, "samples": -1}'])
def test_a_state_that_is_none_is_one_line(begun, text):
    folder = begun / "checkpoints/step-00000003"
    (folder / "state.json").write_text(text)
    for look in (checkpoint.position, checkpoint.read):
        with pytest.raises(CheckpointError, match="is damaged") as error:
            look(folder)
        assert "\n" not in str(error.value)
    (begun / "checkpoints/latest").write_bytes(b"\xff\xfe")
    assert checkpoint.find(begun) == folder


def test_latest_is_followed_and_may_be_missing(tmp_path):
    Trainer(Toy(), recipe_of(keep=9), ToyBatches(recipe_of()), tmp_path, data="d1").run()
    names = [f"step-{step:08d}" for step in (3, 6, 9, 12)]
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*")) == names
    whole = weights(tmp_path)
    (tmp_path / "checkpoints/latest").write_text("step-00000006\n")  # go back by hand
    resume(tmp_path, recipe_of(keep=9))
    assert all(torch.equal(whole[name], value) for name, value in weights(tmp_path).items())
    (tmp_path / "checkpoints/latest").unlink()
    assert checkpoint.find(tmp_path).name == "step-00000012"
    shutil.rmtree(tmp_path / "checkpoints/step-00000012")
    assert checkpoint.find(tmp_path).name == "step-00000009"


def test_generators_of_a_checkpoint_are_put_back(tmp_path):
    import random

    import numpy as np

    from training.loop import random_state
    from training.loop.ranks import Ranks

    alone = Ranks(0, 1, torch.device("cpu"))
    random.gauss(), np.random.standard_normal()  # leave a second draw in waiting
    kept = random_state.collect(alone)

    def draw():
        return torch.rand(3).tolist(), np.random.standard_normal(3).tolist(), [random.gauss() for _ in range(3)]

    class Handle(dict):
        get_tensor = dict.__getitem__

    first = draw()
    assert draw() != first
    random_state.restore(Handle(kept), alone, seed=0)
    assert draw() == first
    random_state.restore(Handle(), alone, seed=0)
    assert draw() != first
