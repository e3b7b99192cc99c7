"""Exported models: loadable by every way into geoalign_core, with the numbers of the student, or not written at all."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from geoalign_core.errors import ModelError
from geoalign_core.models import load_encoder, verify_model
from geoalign_core.models.convert import import_checkpoint
from geoalign_core.models.options import EncoderOptions
from geoalign_core.models.tokens import Tokenizer
from tests.recipe_tools import small, tiny_model
from training.loop.export import Trained, write_model
from training.model.start import start
from training.recipe_file import RUN_RECIPE, load_recipe, read_recipe

RECIPES = {
    "geoalignclip": "geoalign-stage2-b16",
    "farslip": "farslip-stage1",
    "dgtrs": "dgtrs-b16",
    "longclip": "longclip-b16",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("start") / "tiny")


def export(student, config, recipe, folder, **known):
    return write_model(student.clip.state_dict(), config, recipe, folder, **known)


def student_of(family, tiny):
    recipe = load_recipe(RECIPES[family], [f"model.init={tiny}", "loss.principal=0"])
    recipe = small(recipe)
    student, config = start(recipe, seed=0)
    return student, config, recipe


@pytest.mark.parametrize("family", RECIPES)
def test_an_export_is_a_model_of_its_family(family, tiny, tmp_path):
    student, config, recipe = student_of(family, tiny)
    folder = export(student, config, recipe, tmp_path / "own", trained=Trained(5, figures={"region_top1": 50.0}))
    assert all(check.ok for check in verify_model(str(folder)))
    encoder = load_encoder(str(folder), device="cpu", options=EncoderOptions(precision="float32"))
    assert encoder.config.family == family
    assert encoder.config.dense.mode == recipe.model.dense_mode
    text = "a red roof"
    served = encoder.encode_text([text])
    tokens, _ = Tokenizer().encode([text])
    own = student.eval().text_features(tokens).numpy()
    np.testing.assert_allclose(np.asarray(served).reshape(own.shape), own, atol=1e-5)


@pytest.mark.parametrize("family", RECIPES)
def test_the_weights_file_alone_can_be_imported(family, tiny, tmp_path):
    student, config, recipe = student_of(family, tiny)
    folder = export(student, config, recipe, tmp_path / "own")
    report = import_checkpoint(folder / "model.safetensors", family=family, name="again", store=tmp_path / "store")
    assert report.config.text_cfg == json.loads((folder / "model.json").read_text())["text_cfg"]
    theirs, ours = (load_file(path / "model.safetensors") for path in (report.folder, folder))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)


def test_the_card_says_what_is_known_and_invents_no_licence(tiny, tmp_path):
    student, config, recipe = student_of("geoalignclip", tiny)
    known = Trained(7, 28, {"training": {"records": 24, "digest": "abc"}}, {"loss": 1.5}, {"region_top1": 62.5})
    folder = export(student, config, recipe, tmp_path / "own", trained=known)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for told in (
        "| training | 24 | `abc` |",
        "| region_top1 | 62.50 |",
        "| loss | 1.5000 |",
        "| licence | not stated |",
    ):
        assert told in card
    yaml = card.partition("```yaml\n")[2].partition("```")[0]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml)
    assert read_recipe(path, (), RUN_RECIPE).recipe == recipe
    record = json.loads((folder / "provenance.json").read_text())
    assert record["training"]["step"] == 7
    assert record["licence"] == "not stated"


def test_weights_that_are_no_numbers_are_not_written(tiny, tmp_path):
    student, config, recipe = student_of("farslip", tiny)
    weights = {key: value.clone() for key, value in student.clip.state_dict().items()}
    weights["visual.proj"][0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"NaN or infinity in visual\.proj"):
        write_model(weights, config, recipe, tmp_path / "own")
    assert not list(tmp_path.iterdir())


def test_only_a_model_is_replaced(tiny, tmp_path):
    student, config, recipe = student_of("farslip", tiny)
    folder = export(student, config, recipe, tmp_path / "own")
    with pytest.raises(ModelError, match="already there"):
        export(student, config, recipe, folder)
    weights = student.clip.state_dict()
    write_model(weights, config, recipe, folder, trained=Trained(9), overwrite=True)
    assert json.loads((folder / "provenance.json").read_text())["training"]["step"] == 9
    other = tmp_path / "letters"
    other.mkdir()
    (other / "dear.txt").write_text("keep me")
    with pytest.raises(ModelError, match="already there"):
        write_model(weights, config, recipe, other, overwrite=True)
    assert (other / "dear.txt").read_text() == "keep me"


def test_masters_are_exported_in_float32(tiny, tmp_path):
    student, config, recipe = student_of("farslip", tiny)
    weights = {key: value.bfloat16() for key, value in student.clip.state_dict().items()}
    folder = write_model(weights, config, dataclasses.replace(recipe, name="half"), tmp_path / "own")
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.float32}
