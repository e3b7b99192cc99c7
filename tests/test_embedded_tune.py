"""Learning inside the embedded model's towers: what is trained is what is served, and it learns."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from geoalign_core.errors import ModelError
from geoalign_core.models.embedded import HEAD_NAME, IMAGE_CHANGE, Towers, read_tensors
from geoalign_core.models.lowrank import merge
from geoalign_core.models.registry import WEIGHTS_DIR
from tiling.progress import silent
from training.embedded.align import Head
from training.embedded.changes import TunedTowers
from training.embedded.data import CaptionedImage
from training.embedded.features import SampleSet
from training.embedded.middle import cache_middle
from training.embedded.package import PACKAGE, copy_towers, load_config, load_model, write_config, write_head
from training.embedded.phrases import LEXICON
from training.embedded.recipe import TuneRecipe
from training.embedded.tune import Material, Tuner, Windows, tune
from training.embedded.tune_state import TuneState, loss_table

pytestmark = pytest.mark.model
FIRST = 11
CAPTIONS = ("many boats in a port", "a green forest", "a red desert", "an airplane on the ground")


@pytest.fixture(scope="module")
def config():
    return load_config(PACKAGE)


def pictures(count):
    rng = np.random.default_rng(0)
    colours = np.array([[60, 90, 160], [40, 110, 50], [190, 120, 70], [150, 150, 150]])
    noise = rng.normal(0, 12, size=(count, 56, 56, 3))
    return np.clip(colours[np.arange(count) % 4, None, None] + noise, 0, 255).astype(np.uint8)


def sample_set(name, images):
    keys = tuple(str(index) for index in range(len(images)))
    return SampleSet(name, keys, lambda wanted: (images[int(key)] for key in wanted))


def towers_and_head(config, images, work):
    """Return towers whose last block changes, the packaged head, and the images' hidden states."""
    torch.manual_seed(0)
    plain = Towers(config, WEIGHTS_DIR)
    hidden = cache_middle(sample_set("tiny", images), plain, FIRST, work, silent)
    towers = TunedTowers(plain, first=FIRST, image_rank=2, text_rank=2)
    head = Head(config)
    shipped = {
        name: torch.from_numpy(np.float32(value)) for name, value in read_tensors(WEIGHTS_DIR / HEAD_NAME).items()
    }
    head.load_state_dict({name: value for name, value in shipped.items() if "change" not in name}, strict=False)
    return towers, head, hidden


def material_of(hidden):
    captioned = [CaptionedImage(str(row), "", (CAPTIONS[row % 4],), held_out=False) for row in range(16)]
    labels = [np.where(np.arange(16).reshape(4, 4) < 6, 1, 0).astype(np.int8)] * 16
    return Material(captioned, [hidden], torch.full((16, len(LEXICON)), -1), {"aircraft": [Windows(hidden, labels, 2)]})


def short_tuning(config, images, work, share=1.0, state=None, stop=None):
    """Tune the last block on sixteen pictures; return towers, head, losses by step, hidden states, the head before."""
    towers, head, hidden = towers_and_head(config, images, work)
    numbers = TuneRecipe(
        epochs=12, batch=16, first_block=FIRST, image_rank=2, text_rank=2, image_rate=5e-3, text_rate=1e-3,
        head_rate=1e-3, queue=4, patch_share=0.75, share=share,
    )  # fmt: skip
    start = {name: value.clone() for name, value in head.state_dict().items()}
    losses = []

    def watch(step, told):
        losses.append(told["loss"])
        if step == stop:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        tune(config, towers, head, material_of(hidden), numbers, 0, silent, watch=watch, state=state)
    return towers, head, losses, hidden, start


@pytest.fixture(scope="module")
def tuned(config, tmp_path_factory):
    """Two short tunings, and a third that goes half the way."""
    images, work = pictures(16), tmp_path_factory.mktemp("tune")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several add up gradients in whatever order they come
    results = [short_tuning(config, images, work, share) for share in (1.0, 1.0, 0.5)]
    torch.set_num_threads(threads)
    return results, images, work


def test_half_the_way_is_the_middle(tuned):
    """Head and changes lie on the line from their start; a change's line is that of U D, which starts at zero."""
    (whole, _, half), _, _ = tuned
    for name, value in half[1].state_dict().items():
        assert torch.allclose(value, (whole[4][name] + whole[1].state_dict()[name]) / 2, atol=1e-6), name
    far, near = whole[0].changes(), half[0].changes()
    for name in far:
        assert torch.allclose(near[name], far[name] / 2 if name.endswith(".up") else far[name], atol=1e-7), name
    assert any(value.abs().max() > 1e-3 for name, value in far.items() if name.endswith(".up"))


def test_losses_fall_and_two_runs_are_one(tuned):
    (first, second, _), _, _ = tuned
    assert np.mean(first[2][-3:]) < 0.8 * np.mean(first[2][:3])
    assert first[2] == second[2]


def test_stopped_and_taken_up_is_as_if_never_stopped(tuned, config, tmp_path):
    (whole, *_), images, work = tuned
    state = TuneState(tmp_path / "state.safetensors", "this one", every=3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    first = short_tuning(config, images, work, state=state, stop=8)
    second = short_tuning(config, images, work, state=state)
    assert first[2] + second[2][2:] == whole[2]  # stopped in step 8, taken up after step 6
    for name, value in second[0].changes().items():
        assert torch.equal(value, whole[0].changes()[name]), name
    other = TuneState(state.path, "another recipe")
    optimiser = torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    assert other.load(optimiser) == (0, {})
    state.path.write_bytes(state.path.read_bytes()[:1000])
    assert state.load(optimiser) == (0, {})
    torch.set_num_threads(threads)


def test_a_step_made_again_stands_once_in_the_table(tmp_path):
    path = tmp_path / "losses.csv"
    for steps in (range(1, 4), range(3, 6)):  # stopped after step 3, taken up after step 2
        with path.open("a+") as file:
            note = loss_table(file)
            for step in steps:
                note(step, {"loss": 1 / step, "box": 0.0})
    assert path.read_text().splitlines() == ["step,loss,box", "1,1,0", "2,0.5,0", "3,0.33333,0", "4,0.25,0", "5,0.2,0"]


def test_what_is_written_serves_what_was_trained(tuned, config, tmp_path):
    (run, *_), images, _ = tuned
    towers, head, _, hidden, _ = run
    copy_towers(tmp_path)
    write_head(head, tmp_path, changes=towers.changes(), provenance={})
    write_config(config, tmp_path, provenance={})
    served = load_model(tmp_path)
    raw = served.encode_raw(images[:4].transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        window, patches = towers.tokens(hidden.stack(range(4)))
        texts = head.texts(towers.sentences(CAPTIONS, towers.text_weights()))
    assert np.abs(raw.window - window.numpy()).max() < 4e-3  # the hidden states and changes are kept in half precision
    assert np.abs(raw.patches.reshape(4, 384, -1).transpose(0, 2, 1) - patches.numpy()).max() < 4e-3
    assert np.abs(served.encode_text(list(CAPTIONS)) - texts.numpy()).max() < 4e-3
    plain = load_model(PACKAGE)
    assert np.abs(plain.encode_raw(images[:4].transpose(0, 3, 1, 2).copy()).window - raw.window).max() > 0.01
    assert served.key != plain.key
    assert served.towers.digest != plain.towers.digest


def test_what_was_known_beside_boxes_is_held(tuned, config):
    """The loss is least, with hardly a gradient, where answers are as they were, and rises with a change."""
    _, images, work = tuned
    config = replace(config, prompts=replace(config.prompts, templates=("{}",)))  # the teacher asks in all templates
    towers, head, hidden = towers_and_head(config, images, work)
    numbers = TuneRecipe(batch=16, first_block=FIRST, image_rank=2, text_rank=2, noise=0.0, patch_share=0.5)
    tuner = Tuner(config, towers, head, material_of(hidden), numbers, 0)
    found = []
    for changed in (False, True):
        if changed:
            with torch.no_grad():
                head.image.weight += head.image.weight.std() * torch.randn_like(head.image.weight)
        loss = tuner.step(0, np.arange(16))["forget"]
        head.zero_grad()
        loss.backward()
        found.append((loss.item(), head.image.weight.grad.norm().item()))
    (least, flat), (more, steep) = found
    assert more > 1.05 * least
    assert steep > 20 * flat


def test_hidden_states_are_made_once(tuned, config):
    _, images, work = tuned
    towers = Towers(config, WEIGHTS_DIR)

    def never(_keys):
        raise AssertionError("they are there already")

    again = cache_middle(SampleSet("tiny", tuple(map(str, range(16))), never), towers, FIRST, work, silent)
    direct = towers.image.hidden(towers.normalised(torch.from_numpy(images[3:4].transpose(0, 3, 1, 2).copy())), FIRST)
    assert torch.allclose(again[3].float(), direct[0], atol=2e-2, rtol=2e-3)


@pytest.mark.parametrize("broken", ["half", "stranger", "shape"])
def test_changes_that_do_not_fit_are_refused(config, tmp_path, broken):
    stem = f"{IMAGE_CHANGE}blocks.11.attn.qkv.weight"
    tensors = {f"{stem}.up": torch.zeros(1152, 2), f"{stem}.down": torch.zeros(2, 384)}
    if broken == "half":
        del tensors[f"{stem}.down"]
    elif broken == "stranger":
        tensors = {name.replace("11", "12"): value for name, value in tensors.items()}
    else:
        tensors[f"{stem}.up"] = torch.zeros(7, 2)
    with pytest.raises(ModelError, match="does not fit"):
        merge(Towers(config, WEIGHTS_DIR).image.vit, tensors, IMAGE_CHANGE, tmp_path / "head")
