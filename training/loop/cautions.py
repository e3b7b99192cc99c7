"""What is allowed in a run and seldom meant: said before it begins, in one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from training.data.dataset import RsfgDataset
    from training.recipe import Recipe


def cautions(
    recipe: Recipe, steps: int, training: RsfgDataset, validation: RsfgDataset | None, departures: Sequence[str]
) -> Iterator[str]:
    """Yield warnings.

    Args:
        recipe: The run.
        steps: Its optimiser steps.
        training: Records to learn from.
        validation: Held-out records, if there are some.
        departures: In what the start model is not what the recipe is for.
    """
    if departures:
        yield f"warning: the start model is not what {recipe.name} is for: {'; '.join(departures)}"
    if validation is not None and validation.digest == training.digest:
        yield (
            f"warning: training and validation data are the same records (digest {training.digest[:12]}): the figures "
            "of validation will say nothing about other images"
        )
    if recipe.optim.warmup_steps > steps:
        yield (
            f"warning: the warm-up of {recipe.optim.warmup_steps} steps is longer than the run of {steps}: the rate "
            f"ends at {recipe.optim.rate * steps / recipe.optim.warmup_steps:.2g}, not {recipe.optim.rate:.2g}; "
            "lower optim.warmup_steps"
        )
