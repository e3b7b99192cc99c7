"""Whether a start model is what a recipe is for: the shape of its image tower, and the stage of training behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from geoalign_core.errors import ModelError
from geoalign_core.models.registry import locate, read_provenance
from training.model.initial import random_architecture
from training.model.start import RANDOM, place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.recipe import ModelRecipe, Recipe


@dataclass(frozen=True, slots=True)
class _Start:
    """What a start model is."""

    width: int
    layers: int
    patch_px: int
    image_px: int
    stage: int
    """0 where no recipe of a stage is known to have trained it."""

    @classmethod
    def find(cls, wanted: ModelRecipe) -> Self | None:
        """Return what a stored model's configuration and record say; None of one that no recipe here can train."""
        if wanted.init.startswith(RANDOM):
            made = random_architecture(wanted.init.removeprefix(RANDOM), image_px=wanted.image_px)
            return cls(int(made.vision_cfg["width"]), int(made.vision_cfg["layers"]), made.patch_px, made.image_px, 0)
        found = locate(place(wanted.init))
        vision = found.config.vision_cfg
        if found.config.family == "embedded" or not isinstance(vision["layers"], int):
            return None
        side, stage = found.config.preprocess.image_px, _stage(read_provenance(found))
        return cls(int(vision["width"]), vision["layers"], found.config.patch_px, side, stage)


def check_start(recipe: Recipe) -> tuple[str, ...]:
    """Compare a recipe's start model with what ``start`` says it must be; only small files are read.

    Args:
        recipe: The run.

    Returns:
        In what the model differs; not empty only where ``start.any`` allows it.

    Raises:
        ModelError: It differs and ``start.any`` is not set, there is no such model, or its record is damaged.
    """
    found = _Start.find(recipe.model)
    differences = tuple(_differences(recipe, found)) if found else ()
    if differences and not recipe.start.any:
        raise ModelError(
            f"{recipe.model.init} is not a start that {recipe.name} is for", measured="; ".join(differences),
            remedy="give another model as --init, or another recipe; start.any=true accepts it, and the card tells so",
        )  # fmt: skip
    return differences


def _differences(recipe: Recipe, found: _Start) -> Iterator[str]:
    wanted = recipe.start
    for here, asked, form in (
        (found.width, wanted.width, "width {}"),
        (found.layers, wanted.layers, "{} layers"),
        (found.patch_px, wanted.patch_px, "patches of {} px"),
    ):
        if asked not in (None, here):
            yield f"{form.format(here)}, not {asked}"
    if wanted.image_px is not None and found.image_px not in (wanted.image_px, recipe.model.image_px):
        yield f"images of {found.image_px} px, not {wanted.image_px}"
    if wanted.stage is not None and found.stage != wanted.stage:
        yield f"{_named(found.stage)} on record, not {_named(wanted.stage)}"


def _named(stage: int) -> str:
    return f"stage {stage}" if stage else "no stage"


def _stage(record: dict[str, Any] | None) -> int:
    """Return which stage a run's model has been through, by the recipe in its record: one more than it started from."""
    try:
        return int((record or {})["training"]["recipe"]["start"]["stage"]) + 1
    except (KeyError, TypeError, ValueError):
        return 0
