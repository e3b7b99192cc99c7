"""The model card beside an exported model: what is known of it, and what its owner must still say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geoalign_core.models.describe import count_parts
from training.recipe_file import dump_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geoalign_core.models.config import ModelConfig
    from training.loop.export import Trained
    from training.recipe import Recipe

CARD_NAME = "README.md"
NOT_STATED = "not stated"
_OWNER = (
    "Licence and terms are not stated here: those of the start model and of every data set above apply, and only who "
    "publishes the model can settle them. Known limits, intended use and contact belong here too."
)


def model_card(config: ModelConfig, recipe: Recipe, trained: Trained, tensors: Mapping[str, Any]) -> str:
    """Return the card as Markdown; nothing in it is guessed.

    Args:
        config: The exported configuration.
        recipe: What the model was trained with.
        trained: What the run knows.
        tensors: The exported weights; only shapes are looked at.
    """
    parts = count_parts({key: tuple(value.shape) for key, value in tensors.items()})
    facts = {
        "family": config.family,
        "start": recipe.model.init or NOT_STATED,
        "image": f"{config.preprocess.image_px} px, {config.preprocess.mode}, {config.preprocess.interpolation}, "
        f"patches of {config.patch_px} px",
        "text tables": config.text_cfg.get("tables", "77"),
        "activation": config.activation,
        "dense mode": config.dense.mode,
        "parameters": f"{parts['total']:,}",
        "steps": f"{trained.step:,}",
        "images seen": f"{trained.images:,}" if trained.images else NOT_STATED,
        "licence": config.licence,
    }
    lines = [
        f"# {config.name}", "", f"{config.title}, trained with `geoalign-train`.", "",
        "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items()), "",
        *_departures(recipe, trained),
        "Ask with it: `geoalign ask RASTER TEXT --model FOLDER`, with the path of this folder.", "",
        "## Data", "", *_data(trained), "",
        "## Figures", "", *_figures(trained), "",
        "## What the owner must say", "",
        _OWNER, "",
        "## Recipe", "", "```yaml", dump_recipe(recipe, comments=False).rstrip(), "```", "",
    ]  # fmt: skip
    if trained.software:
        versions = ", ".join(f"{name} {version}" for name, version in trained.software.items())
        lines += ["## Software", "", versions, ""]
    return "\n".join(lines)


def _departures(recipe: Recipe, trained: Trained) -> list[str]:
    """Say where the recipe's name promises another model than this."""
    if not trained.departures:
        return []
    differences = "; ".join(trained.departures)
    return [f"**The recipe {recipe.name} is for another start model** (`start.any`): this one is {differences}.", ""]


def _data(trained: Trained) -> list[str]:
    if not trained.data:
        return [f"Training data: {NOT_STATED}."]
    lines = ["| set | records | SHA-256 of the records |", "|---|---|---|"]
    for name, item in trained.data.items():
        lines.append(f"| {name} | {item.get('records', NOT_STATED)} | `{item.get('digest', NOT_STATED)}` |")
    return lines


def _figures(trained: Trained) -> list[str]:
    if not trained.figures and not trained.losses:
        return ["None were measured."]
    lines = []
    if trained.figures:
        lines += [
            "On the validation records, recalls and accuracies in per cent:",
            "",
            "| figure | value |",
            "|---|---|",
        ]
        lines += [f"| {name} | {value:.2f} |" for name, value in trained.figures.items()]
    if trained.losses:
        lines += ["", "Last losses, before their weights:", "", "| loss | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in trained.losses.items()]
    return lines
