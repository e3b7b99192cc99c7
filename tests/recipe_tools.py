"""A small model to start from and small data to learn from, for runs from recipes."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from geoalign_core.models.architecture import deduce, model_config
from geoalign_core.models.families import find_family
from tests.clip_checkpoints import Shape, draw
from training.loop.export import write_model
from training.recipe import ModelRecipe, Recipe

if TYPE_CHECKING:
    from pathlib import Path

TINY = Shape(patch_px=8, image_px=32, width=64, embed_dim=32, text_width=64)
COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 210), "white": (235, 235, 235)}


def tiny_model(folder: Path, family: str = "openai") -> Path:
    """Write a CLIP of two small towers, with a 77-row text table, as a model folder."""
    tensors = draw(TINY, "77", (), seed=3)
    tensors = {key: value * 0.3 if value.ndim == 2 else value for key, value in tensors.items()}
    tensors["logit_scale"] = torch.tensor(2.66)
    config = model_config(
        deduce(tensors), find_family(family), "quick_gelu", name=folder.name, title="tiny", source="random"
    )
    recipe = Recipe(name="tiny", model=ModelRecipe(init="random", family=family, tables="77", separate_scales=False))
    return write_model(tensors, config, recipe, folder)


def rsfg(folder: Path, count: int = 24, *, seed: int = 0) -> Path:
    """Write an RSFG data set of coloured rectangles: two regions an image, three hard negatives each."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(count):
        pixels = rng.integers(90, 130, (48, 48, 3)).astype(np.uint8)
        names = rng.choice(list(COLOURS), 2, replace=False)
        regions = []
        for side, name in zip(("left", "right"), names, strict=True):
            x, y = (2 if side == "left" else 26), int(rng.integers(2, 26))
            pixels[y : y + 20, x : x + 20] = COLOURS[name]
            others = [colour for colour in COLOURS if colour != name]
            regions.append({
                "bbox": [x / 48, y / 48, (x + 20) / 48, (y + 20) / 48],
                "category": f"{name} roof",
                "phrase": f"a {name} roof on the {side}",
                "description": f"a square {name} roof on the {side} of the image",
                "hard_negatives": [{"text": f"a {bad} roof on the {side}", "rule": "attribute"} for bad in others],
            })  # fmt: skip
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        lines.append({
            "image": f"images/{number}.png", "width": 48, "height": 48,
            "brief_caption": f"a {names[0]} and a {names[1]} roof, number {number}",
            "detailed_caption": f"seen from above, a {names[0]} roof lies left of a {names[1]} one on gravel, {number}",
            "regions": regions,
        })  # fmt: skip
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def small(recipe: Recipe, **optim: object) -> Recipe:
    """Return a recipe that fits the tiny model and this machine."""
    given = {"batch": 4, "precision": "fp32", "checkpointing": False} | optim
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, image_px=None),
        data=dataclasses.replace(recipe.data, workers=0, min_region_px=0.0, max_region_px=float("inf")),
        optim=dataclasses.replace(recipe.optim, **given),
        run=dataclasses.replace(recipe.run, engine="plain"),
    )


SMALL = (
    "model.image_px=null", "data.workers=0", "data.min_region_px=0", "optim.batch=4", "optim.precision=fp32",
    "optim.checkpointing=false", "run.engine=plain", "optim.warmup_steps=2", "run.log_every=2",
    "run.validate_every=4", "run.save_every=3",
    "start.any=true",
)  # fmt: skip
"""The same as overrides, for the command line."""
