"""What a recipe's start model must be: the right shape, after the right stage; and what is said of one that is not."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from geoalign_core.errors import ModelError
from geoalign_core.models import load_encoder
from tests.recipe_tools import SMALL, TINY, rsfg, tiny_model
from training.cli import main
from training.loop.record import read_run
from training.model.fit import check_start
from training.recipe_file import load_recipe, packaged

OWN = f"start:\n  width: {TINY.width}\n  layers: {TINY.layers}\n  patch_px: {TINY.patch_px}\n  image_px: 32\n"
STEPS = [item for pair in SMALL if not pair.startswith("start.") for item in ("-s", pair)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model, data, and both stages' recipes for a model of its shape."""
    folder = tmp_path_factory.mktemp("starts")
    tiny_model(folder / "tiny")
    rsfg(folder / "data", 8)
    for stage in (1, 2):
        text = f"extends: geoalign-stage{stage}-b16\nname: tiny-stage{stage}\n{OWN}"
        (folder / f"stage{stage}.yaml").write_text(text)
    return folder


def run(place, recipe, init, out, *more):
    asked = ["run", recipe, "-o", out, "--data", place / "data", "--init", init, "--steps", 1, *STEPS, *more]
    return CliRunner().invoke(main, list(map(str, asked)))


@pytest.fixture(scope="module")
def first(place):
    """A run of stage I."""
    told = run(place, place / "stage1.yaml", place / "tiny", place / "first")
    assert told.exit_code == 0, told.output
    return place / "first"


def test_a_second_stage_starts_from_the_run_of_the_first_and_from_no_other(first, place, tmp_path):
    second = place / "stage2.yaml"
    told = run(place, second, first, tmp_path / "second")
    assert told.exit_code == 0, told.output
    assert load_encoder(str(tmp_path / "second" / "model"), device="cpu").config.text_cfg["tables"] == "77+248"
    assert read_run(tmp_path / "second").departures == ()
    assert "is for another start model" not in (tmp_path / "second" / "model" / "README.md").read_text("utf-8")
    for init, recipe, wrong in (
        (tmp_path / "second", second, "stage 2 on record, not stage 1"),
        (place / "tiny", second, "no stage on record, not stage 1"),
        (first, place / "stage1.yaml", "stage 1 on record, not no stage"),
    ):
        told = run(place, recipe, init, tmp_path / "refused")
        assert told.exit_code == 1
        assert wrong in told.stderr
        assert "start.any=true" in told.stderr
        assert len([line for line in told.stderr.splitlines() if line.startswith("error: ")]) == 1
        assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_recipe_for_another_model_is_refused(first, place, tmp_path, more):
    told = run(place, "geoalign-stage2-l14", first, tmp_path / "run", *more)
    assert told.exit_code == 1
    for part in ("width 64, not 1024", "not 24", "patches of 8 px, not 14", "images of 32 px, not 224"):
        assert part in told.stderr
    assert "stage 1" not in told.stderr  # which is right
    assert not (tmp_path / "run").exists()


def test_another_model_is_taken_on_request_and_told_wherever_the_run_is_described(first, place, tmp_path):
    told = run(place, "geoalign-stage2-l14", first, tmp_path / "run", "-s", "start.any=true")
    assert told.exit_code == 0, told.output
    difference = "width 64, not 1024"
    assert told.stderr.count(f"warning: the start model is not what geoalign-stage2-l14 is for: {difference}") == 1
    assert difference in read_run(tmp_path / "run").departures
    record = json.loads((tmp_path / "run" / "model" / "provenance.json").read_text())
    assert difference in record["training"]["departures"]
    again = CliRunner().invoke(main, ["export", str(tmp_path / "run"), "-o", str(tmp_path / "again")])
    assert again.exit_code == 0, again.output
    for card in (tmp_path / "run" / "model" / "README.md", tmp_path / "again" / "README.md"):
        assert (
            f"The recipe geoalign-stage2-l14 is for another start model** (`start.any`): this one is {difference}"
            in (card.read_text("utf-8"))
        )


def test_a_side_that_the_recipe_asks_for_is_no_difference(first):
    """A chain at another resolution: both stages say so by ``model.image_px``."""
    own = [f"model.init={first}", *(f"start.{key}=null" for key in ("width", "layers", "patch_px"))]
    assert check_start(load_recipe("geoalign-stage2-b16", [*own, "model.image_px=32"])) == ()
    with pytest.raises(ModelError, match="images of 32 px, not 224"):
        check_start(load_recipe("geoalign-stage2-b16", own))


@pytest.mark.parametrize("name", sorted(packaged()))
def test_every_recipe_says_what_it_is_for(name):
    """Against open_clip's own configurations of the models that the names promise."""
    recipe = load_recipe(name)
    size, px = ("L-14" if "l14" in name else "B-32" if "b32" in name else "B-16"), "-336" if "336" in name else ""
    own = load_recipe(name, [f"model.init=random:ViT-{size}{px}", "start.stage=0", "model.image_px=null"])
    assert check_start(own) == ()
    assert recipe.start.image_px == recipe.model.image_px
    assert recipe.start.stage == (int(name.partition("stage")[2][0]) - 1 if "stage" in name else None)


@pytest.mark.parametrize(("init", "count"), [("random:ViT-B-16", 3), ("random:ViT-B-32", 3), ("random:ViT-L-14", 0)])
def test_random_weights_have_a_shape_too(init, count):
    recipe = load_recipe("geoalign-stage1-l14", [f"model.init={init}", "start.any=true"])
    assert len(check_start(recipe)) == count


def test_what_a_start_cannot_be_is_refused_in_the_recipe():
    for wrong, told in (("start.width=0", "start.width must be 1 or more"), ("start.stage=-1", "start.stage must be")):
        result = CliRunner().invoke(main, ["run", "geoalign-stage1-b16", "-s", wrong, "--print-config"])
        assert result.exit_code in (1, 2)
        assert told in result.stderr
