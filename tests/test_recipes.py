"""Recipe files: strict, explained, complete, and listed in the documentation."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from geoalign_core.models.families import families
from training.embedded.recipe import ALIGN_RECIPE, EmbeddedRecipe
from training.recipe import ModelRecipe, Recipe
from training.recipe_checks import CHOICES
from training.recipe_file import (
    RUN_RECIPE,
    RecipeError,
    build,
    dump_recipe,
    field_docs,
    load_recipe,
    packaged,
    read_recipe,
    to_dict,
)

REPO = Path(__file__).parents[1]
NAMES = sorted(packaged())


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_reads_back_as_it_is_written_out(name, tmp_path):
    loaded = read_recipe(name, (), RUN_RECIPE)
    assert loaded.recipe.name == name
    path = tmp_path / "own.yaml"
    path.write_text(dump_recipe(loaded.recipe, notes=loaded.notes))
    assert load_recipe(path) == loaded.recipe


@pytest.mark.parametrize("name", NAMES)
def test_every_value_of_a_recipe_says_where_it_comes_from(name):
    """What a recipe sets and what is ours alike: no number without [P], [C], [D] or [U]."""
    loaded = read_recipe(name, (), RUN_RECIPE)
    bare = Recipe(name="bare", model=ModelRecipe(init=""))
    for section in ("model", "loss", "data", "optim"):
        mine, default = getattr(loaded.recipe, section), getattr(bare, section)
        for item in dataclasses.fields(mine):
            key = f"{section}.{item.name}"
            known = re.match(r"\[[PCDU]\]", loaded.notes.get(key, "")) or key == "model.family"
            assert known or getattr(mine, item.name) == getattr(default, item.name), key


@pytest.mark.parametrize("name", NAMES)
def test_the_documentation_lists_every_recipe(name):
    assert f"`{name}`" in (REPO / "docs" / "training.md").read_text(encoding="utf-8")


def test_published_numbers():
    """seed_systems §1.2 and §2.3: rate, decay, warm-up, epochs and batch of both systems' stages."""
    found = {
        name: (o.rate, o.weight_decay, o.warmup_steps, o.epochs, o.batch)
        for name in ("geoalign-stage1-b16", "geoalign-stage2-l14-336", "farslip-stage1", "farslip-stage2")
        for o in [load_recipe(name).optim]
    }
    assert found == {
        "geoalign-stage1-b16": (1e-4, 0.05, 200, 1, 32), "geoalign-stage2-l14-336": (1e-6, 1e-3, 50, 5, 32),
        "farslip-stage1": (1e-6, 1.0, 1000, 1, 40), "farslip-stage2": (4e-9, 1.0, 250, 10, 40),
    }  # fmt: skip


def test_published_colour_jitter():
    """seed_systems §2.3: FarSLIP's path without random crops alone."""
    found = {name: load_recipe(name).data for name in ("geoalign-stage2-b16", "farslip-stage1", "farslip-stage2")}
    assert {name: (data.jitter_share, data.grey_share) for name, data in found.items()} == {
        "geoalign-stage2-b16": (0.0, 0.0), "farslip-stage1": (0.0, 0.0), "farslip-stage2": (0.8, 0.2),
    }  # fmt: skip
    assert found["farslip-stage2"].jitter == (0.4, 0.4, 0.2, 0.1)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optim.rat=1", "optim.rat is unknown; did you mean optim.rate"),
        ("rate=1", "write optim.rate="),
        ("loss.gather=gard", "did you mean grad"),
        ("optim.batch=1.5", "optim.batch must be a whole number (1.5)"),
        ("optim.batch=true", "optim.batch must be a whole number"),
        ("optim.batch=0", "optim.batch must be from 1"),
        ("run.seed=-1", "run.seed must be from 0"),
        ("run.zero_stage=0", "run.zero_stage must be 1 or 2"),
        ("data.workers=1e5", "data.workers must be from 0 to 256"),
        ('data.category_template="{} {}"', "must hold one plain {}"),
        ('data.category_template="{0.__class__} {}"', "must hold one plain {}"),
        ('data.category_template="}{} {"', "must hold one plain {}"),
        ('name=""', "name must be one line"),
        ('name="a\\nb"', "name must be one line"),
        ("name=2020-13-45", "the value of name is not YAML"),
        ("optim.rate=2020-13-45", "the value of optim.rate is not YAML"),
        ("optim.rate=.nan", "optim.rate must be a number"),
        ("optim.rate=fast", "optim.rate must be a number"),
        ("data.flips=1", "data.flips must be true or false"),
        ("data.crop_scale=[1, 2, 3]", "data.crop_scale must be a list of 2 numbers"),
        ("data.crop_scale=[0.7, 0.3]", "data.crop_scale must be two shares"),
        ("data.jitter=[0.4, 0.4, 0.2]", "data.jitter must be a list of 4 numbers"),
        ("data.jitter=[0.4, -0.4, 0.2, 0.1]", "data.jitter must be four numbers of 0 or more"),
        ("data.jitter=[0.4, 0.4, 0.2, 0.6]", "data.jitter must be four numbers, the last (hue) at most 0.5"),
        ("data.grey_share=1.5", "data.grey_share must be from 0 to 1"),
        ("data.crops=none", "loss.consistency needs the crops of regions"),
        ("data.crops=random", "needs the crops of regions"),
        ("data.max_regions=0", "needs regions"),
        ("data.hard_negatives=0", "loss.hard_negative needs hard negatives"),
        ("model.family=nobody", "model.family cannot be 'nobody'"),
        ("model.family=farslip", "FarSLIP has no text tables 77+248"),
        ("loss.principal=8", "set loss.granularity"),
        ("loss.granularity=equal", "loss.image_text, which is 0"),
        ("name.x=1", "'name.x' names no section"),
        ("optim=3", "'optim' is a section, not a value; write optim.key=value"),
        ("optim.rate", "write section.key=value"),
    ],
)
def test_a_wrong_override_is_one_line_that_says_what_is_right(override, told):
    with pytest.raises(RecipeError) as error:
        load_recipe("geoalign-stage2-b16", [override])
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert ".yaml" not in str(error.value)  # the packaged file is not at fault


def test_the_override_that_is_wrong_is_named(tmp_path):
    def told(*overrides, source="geoalign-stage2-b16"):
        with pytest.raises(RecipeError) as error:
            load_recipe(source, overrides)
        return str(error.value)

    assert told("run.seed=1", "optim.rate=fast").startswith("override optim.rate=fast: optim.rate must be a number")
    assert told("data.crops=none").startswith("override data.crops=none: loss.consistency needs the crops of regions")
    own = tmp_path / "own.yaml"
    own.write_text("extends: geoalign-stage2-b16\noptim: {rat: 1}\n")
    assert told("run.seed=1", source=own).startswith(f"{own}: optim.rat is unknown")
    own.write_text("name: own\nmodel:\noptim: [1]\n")
    assert told("model.init=a", source=own).startswith(f"{own}: optim must be a section")
    assert told("model.init=a", "optim.rate=1", source=own).startswith(f"{own}: optim must be a section")


def test_more_principal_components_than_images_are_refused():
    with pytest.raises(RecipeError, match=r"loss\.principal 32 needs a batch"):
        load_recipe("longclip-b16", ["optim.batch=32"])
    assert load_recipe("longclip-b16", ["optim.batch=33"]).loss.principal == 32


def test_overrides_take_what_people_write():
    loaded = read_recipe(
        "farslip-stage1",
        ["optim.rate=1e-5", "data.train=one", "data.max_region_px=inf", "optim.steps=7"],
        RUN_RECIPE,
    )
    recipe = loaded.recipe
    assert (recipe.optim.rate, recipe.data.train, recipe.optim.steps) == (1e-5, ("one",), 7)
    assert recipe.data.max_region_px == float("inf")
    assert loaded.notes["optim.rate"] == "set on the command line"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: a\nmodel: {init: x}\nmodell: {}\n", "modell is unknown; did you mean model"),
        ("name: a\n", "model is missing"),
        ("name: a\nmodel: {}\n", "model.init is missing"),
        ("name: a\nname: b\n", "name stands twice"),
        ("name: a\nmodel: [1]\n", "model must be a section"),
        ("- a\n", "is not a recipe"),
        ("a: [\n", "is not YAML"),
        ("extends: own.yaml\nname: a\n", "extends itself"),
        ("extends: nobody\n", "no recipe is called 'nobody'"),
        (f"extends: {'x' * 5000}\n", "no recipe is called 'xxx"),
        ("name: 2020-13-45\n", "is not YAML"),
        ("name: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        ("? [1]\n: 3\n", "is not YAML"),
    ],
)
def test_a_wrong_file_is_one_line(text, told, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=re.escape(told)):
        load_recipe(path)


def test_a_variant_keeps_the_sources_of_what_it_does_not_change(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("extends: farslip-stage2\nname: own\noptim:\n  rate: 1.0e-6\n")
    loaded = read_recipe(path, (), RUN_RECIPE)
    assert loaded.recipe.optim.rate == 1e-6
    assert "optim.rate" not in loaded.notes
    assert loaded.notes["optim.epochs"] == "[C]"
    assert loaded.recipe.loss == load_recipe("farslip-stage2").loss


def test_every_choice_names_a_field_and_allows_its_default():
    bare = to_dict(Recipe(name="bare", model=ModelRecipe(init="")))
    for key, allowed in CHOICES.items():
        section, _, name = key.partition(".")
        assert bare[section][name] in allowed, key


def test_the_dense_modes_are_the_models():
    from geoalign_core.models.dense import MODES

    assert set(CHOICES["model.dense_mode"]) == set(MODES)


def test_field_docs_are_those_below_the_fields():
    assert field_docs(ModelRecipe)["text_layers"] == "Layers of a random text tower."


def test_families_of_recipes_exist():
    assert {load_recipe(name).model.family for name in NAMES} <= {family.name for family in families()} | {"embedded"}


def test_a_recipe_is_read_without_torch():
    code = (
        "import sys; from training.recipe_file import packaged, load_recipe; [load_recipe(n) for n in packaged()];"
        "import training.loop.command; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False).returncode == 0


def test_plain_values_build_the_same_recipe():
    recipe = load_recipe("dgtrs-l14")
    assert build(to_dict(recipe), RUN_RECIPE) == recipe


@pytest.mark.parametrize("name", sorted(packaged(ALIGN_RECIPE)))
def test_a_recipe_of_the_embedded_model_reads_back_and_is_listed(name, tmp_path):
    loaded = read_recipe(name, (), ALIGN_RECIPE)
    assert loaded.recipe.name == name
    path = tmp_path / "own.yaml"
    path.write_text(dump_recipe(loaded.recipe, notes=loaded.notes))
    assert read_recipe(path, (), ALIGN_RECIPE) == loaded
    assert f"`{name}`" in (REPO / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("tune.first_block=12", "tune.first_block must be from 0 to 11 (12)"),
        ("tune.patch_share=0", "tune.patch_share must be above 0, at most 1 (0.0)"),
        ("tune.text_rank=0", "tune.text_rank must be from 1 to 384 (0)"),
        ("head.rate=-1", "head.rate must be more than 0 (-1.0)"),
        ("head.top_share=1", "head.top_share must be between 0 and 1 (1.0)"),
        ("seed=-1", "seed must be from 0 to 2³² − 1 (-1)"),
        ("seed.x=1", "'seed.x' names no section"),
        ("head=1", "'head' is a section, not a value"),
        ("rate=1", "write head.rate=…"),
        ("tune.epoch=1", "did you mean tune.epochs?"),
        ("head.epochs=1.5", "head.epochs must be a whole number (1.5)"),
    ],
)
def test_wrong_numbers_of_the_embedded_model_are_one_line(override, told):
    with pytest.raises(RecipeError, match=re.escape(told)):
        read_recipe("geoalign-s", [override], ALIGN_RECIPE)


def test_a_recipe_of_another_command_is_told_apart():
    with pytest.raises(RecipeError, match=r"geoalign-s is no recipe of geoalign-train run; see geoalign-train recipes"):
        load_recipe("geoalign-s")
    with pytest.raises(RecipeError, match=r"dgtrs-b16 is no recipe of geoalign-train align"):
        read_recipe("dgtrs-b16", (), ALIGN_RECIPE)


def test_every_number_of_the_embedded_model_is_explained():
    for section in EmbeddedRecipe(name="bare").head, EmbeddedRecipe(name="bare").tune:
        assert set(field_docs(type(section))) == {item.name for item in dataclasses.fields(section)}
