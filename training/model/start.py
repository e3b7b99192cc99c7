"""What a run starts from: a stored model, an earlier run's, or random weights, made into the model of the recipe.

A text table of 77 rows becomes the wanted ones by knowledge-preserved stretching; tables that were stretched and
trained stay as they are and become no others. The long tables and projection, and the temperatures of regions and
hard negatives, are copies made *after* loading (FG-CLIP's hand-over from its first stage to its second), and they are
made by the first recipe whose losses read them: a copy made earlier would be left behind by what it was copied from,
since a stage without long texts or regions trains the original alone. So stage 1 on brief captions gives a
CLIP with 77 rows, and stage 2 stretches what stage 1 has learnt.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from geoalign_core.errors import ModelError
from geoalign_core.models.architecture import Architecture, deduce, model_config
from geoalign_core.models.clip import ClipModel
from geoalign_core.models.context import with_context
from geoalign_core.models.families import find_family
from geoalign_core.models.positions import resize_positions
from geoalign_core.models.registry import locate, read_provenance, refuse_changed
from geoalign_core.models.store import CONFIG_NAME, NAME
from geoalign_core.models.vocabulary import LONG, SHORT
from training.model.initial import initialise, random_architecture, random_text
from training.model.objective import Needs
from training.model.student import Student

if TYPE_CHECKING:
    from geoalign_core.models.config import ModelConfig
    from geoalign_core.models.families import Family
    from training.recipe import ModelRecipe, Recipe

ANCESTORS = {"geoalignclip": ("fgclip",), "dgtrs": ("longclip",)}
"""Beside its own models and plain CLIPs, whose weights a family is known to go on from: GeoAlignCLIP has FG-CLIP's
parts, and DGTRS-CLIP is a fork of Long-CLIP."""
_PLAIN = ("openai", "openclip", "georsclip", "remoteclip", "skyclip")
"""CLIPs with nothing of their own but what they have learnt."""
RANDOM = "random:"
"""What an ``init`` of random weights begins with."""
_RUN_MODEL = "model"
_LONG_SCALES = {"logit_scale_region": "region", "logit_scale_hardneg": "hard_negative"}

Tensors = dict[str, torch.Tensor]


def start(recipe: Recipe, *, store: Path | None = None, seed: int) -> tuple[Student, ModelConfig]:
    """Return the model that a recipe starts from, in float32 on the CPU, and its configuration.

    Args:
        recipe: ``model`` says what to start from and what it becomes.
        store: A folder of models in which ``init`` is looked up before the user's store.
        seed: Of random weights; equal seeds give equal models.

    Raises:
        ModelError: There is no such model, its weights are not those recorded, or it cannot become what the recipe
            asks for: another family's, tables that were trained for another length, no text tower.
        UsageError: The recipe contradicts itself.
    """
    wanted, needs = recipe.model, Needs.of(recipe)
    family = find_family(wanted.family)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # modules draw weights when they are made; those are never used
        if wanted.init.startswith(RANDOM):
            architecture = random_architecture(wanted.init.removeprefix(RANDOM), image_px=wanted.image_px)
            activation = family.activations[0]
            config = model_config(
                architecture, family, activation, name=recipe.name, title=recipe.name, source=wanted.init
            )
            clip = ClipModel(config)
            initialise(clip, generator)
            tensors = clip.state_dict()
        else:
            config, tensors = _load(wanted, family, store)
        tensors = _with_text(tensors, wanted, needs, generator)
        tensors = _with_image_px(tensors, config.patch_px, wanted)
        tensors = _with_tables(tensors, wanted, needs)
        tensors = _with_extras(tensors, recipe, needs)
        config = _described(tensors, config, family, recipe)
        with torch.device("meta"):
            clip = ClipModel(config)
        clip.load_state_dict(tensors, strict=True, assign=True)
        return Student(config, recipe, clip.train()), config


def _load(wanted: ModelRecipe, family: Family, store: Path | None) -> tuple[ModelConfig, Tensors]:
    """Return a stored model's configuration and a copy of its weights, after looking at its hashes."""
    from geoalign_core.models.clip_encoder import load_model
    from geoalign_core.models.describe import check_weights

    found = locate(place(wanted.init, store))
    config = found.config
    if config.family == "embedded":
        raise ModelError(
            f"{config.name} is no CLIP that could be trained by this recipe",
            remedy="give a CLIP as model.init; geoalign-train align trains the embedded model",
        )
    if config.family not in (family.name, *_PLAIN, *ANCESTORS.get(family.name, ())):
        raise ModelError(
            f"{wanted.init} is a model of another system than the recipe's",
            measured=f"{config.family}, not {family.name}",
            remedy=f"start from a plain CLIP or a model of {family.name}, or set model.family",
        )  # fmt: skip
    if config.activation not in family.activations:
        raise ModelError(
            f"{wanted.init} cannot become a model of {family.name}",
            measured=f"activation {config.activation}, not {' or '.join(family.activations)}",
            remedy="start from a model with that activation",
        )
    if isinstance(config.vision_cfg["layers"], list | tuple):
        raise ModelError(
            f"{wanted.init} has a residual network for an image tower", remedy="start from a vision transformer"
        )
    check_weights(found, read_provenance(found))
    refuse_changed(found)
    return config, dict(load_model(config, found.folder / found.weights).state_dict())


def place(init: str, store: Path | None = None) -> str:
    """Return what the registry finds the model by; of a run's folder, the model that it has exported."""
    if store is not None and NAME.fullmatch(init) and (store / init).is_dir():
        return str(store / init)
    folder = Path(init).expanduser()
    if (folder / "checkpoints").is_dir() and not (folder / CONFIG_NAME).is_file():
        if not (folder / _RUN_MODEL / CONFIG_NAME).is_file():
            raise ModelError(
                "is a run that has exported no model", path=folder, remedy=f"run: geoalign-train export {folder}"
            )
        return str(folder / _RUN_MODEL)
    return init


def _with_text(tensors: Tensors, wanted: ModelRecipe, needs: Needs, generator: torch.Generator) -> Tensors:
    """Return weights with a text tower where losses read texts."""
    if wanted.text_tower == "random":
        images = {key: value for key, value in tensors.items() if key.startswith("visual.")}
        embed_dim = tensors["visual.proj"].shape[1]
        return images | random_text(wanted.text_width, wanted.text_layers, embed_dim, generator)
    if needs.text and "token_embedding.weight" not in tensors:
        raise ModelError(
            f"{wanted.init} has no text tower, and the recipe's losses read texts",
            remedy="set model.text_tower to random, or start from a model with both towers",
        )
    return tensors


def _with_image_px(tensors: Tensors, patch_px: int, wanted: ModelRecipe) -> Tensors:
    """Return weights whose positions fit another side: resized once, bicubically, and then trained as they are."""
    if wanted.image_px is None:
        return tensors
    if wanted.image_px < patch_px or wanted.image_px % patch_px:
        raise ModelError(
            "model.image_px is not made of whole patches", measured=f"{wanted.image_px} px",
            remedy=f"give a multiple of {patch_px} px",
        )  # fmt: skip
    side = wanted.image_px // patch_px
    key = "visual.positional_embedding"
    return tensors | {key: resize_positions(tensors[key], side, side).clone()}


def _with_tables(tensors: Tensors, wanted: ModelRecipe, needs: Needs) -> Tensors:
    """Return weights with the wanted text tables; 77 rows are stretched once a loss reads long texts."""
    there, asked = deduce(tensors).tables, wanted.tables
    if there == "none":
        return tensors
    if there == asked:
        return tensors
    if there != "77" or len(tensors["positional_embedding"]) != SHORT:
        rows = len(tensors["positional_embedding"])
        raise ModelError(
            f"the text tables of {wanted.init} cannot become those of the recipe",
            measured=f"{there} ({rows} rows), not {asked}",
            remedy=f"set model.tables to '{there}', or start from a CLIP",
        )  # fmt: skip
    if asked == "77+248" and not needs.detailed:
        return tensors
    stretched, _ = with_context(tensors, deduce(tensors), LONG)
    if asked == "248":
        return stretched
    long = stretched["positional_embedding"]
    return tensors | {"positional_embedding_res": long.clone(), "positional_embedding_ori": long.clone()}


def _with_extras(tensors: Tensors, recipe: Recipe, needs: Needs) -> Tensors:
    """Return weights with FG-CLIP's extras as the recipe wants them; those that are missing are copies."""
    wanted, loss = recipe.model, recipe.loss
    sources = {"long_text_projection": "text_projection", **dict.fromkeys(_LONG_SCALES, "logit_scale")}
    asked = {
        "long_text_projection": wanted.long_projection,
        **dict.fromkeys(_LONG_SCALES, wanted.separate_scales),
    }
    read = {
        "long_text_projection": needs.detailed,
        "logit_scale_region": loss.region > 0 or loss.category > 0,
        "logit_scale_hardneg": loss.hard_negative > 0,
    }
    made = dict(tensors)
    for key, source in sources.items():
        if key in tensors and not asked[key]:
            option = "long_projection" if key == "long_text_projection" else "separate_scales"
            raise ModelError(
                f"{wanted.init} has a trained {key}, which the recipe would lose", remedy=f"set model.{option} to true"
            )
        if asked[key] and key not in tensors and read[key] and source in tensors:
            made[key] = tensors[source].clone()
    return made


def _described(tensors: Tensors, config: ModelConfig, family: Family, recipe: Recipe) -> ModelConfig:
    """Return the configuration that the weights' shapes tell, with the family's preprocessing."""
    text_heads = None if recipe.model.text_tower == "random" else config.text_cfg.get("heads") or None
    architecture: Architecture = deduce(tensors, head_width=config.vision_cfg.get("head_width"), text_heads=text_heads)
    made = model_config(
        architecture, family, config.activation, name=recipe.name, title=recipe.name, source=recipe.model.init
    )
    pad = config.text_cfg.get("pad", "zero")
    preprocess = replace(made.preprocess, mean=config.preprocess.mean, std=config.preprocess.std)
    return replace(
        made, text_cfg=made.text_cfg | {"pad": pad}, preprocess=preprocess,
        dense=replace(made.dense, mode=recipe.model.dense_mode),
    )  # fmt: skip
