"""A run before it is run: what would be trained on what, how long, in how much memory, and the first batch as seen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tiling.files import atomic_file
from training.loop.cautions import cautions
from training.loop.job import PICTURE, check_ready

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes
    from torch import nn

    from geoalign_core.models.config import ModelConfig
    from training.batch import Batch
    from training.recipe import Recipe

_SHOWN = 12
_OPEN = 34
"""Bytes per token and width that one transformer block keeps for its backward in bfloat16, attention maps not stored
(Korthikanti et al. 2022, section 4.1)."""


def dry_run(recipe: Recipe, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Build everything, take the first batch, and tell; nothing is trained.

    Args:
        recipe: The run.
        folder: Where the first batch's picture goes.
        say: Prints one line.

    Returns:
        The numbers that were told.

    Raises:
        GeoAlignError: As the run itself would.
    """
    from training.data.dataset import RsfgDataset
    from training.loop.loader import Loader
    from training.loop.ranks import join
    from training.loop.schedule import total_steps
    from training.model.fit import check_start
    from training.model.start import start

    check_ready(recipe)
    ranks = join()
    dataset = RsfgDataset(recipe.data.train)
    held_out = RsfgDataset(recipe.data.validation) if recipe.data.validation else None
    departures = check_start(recipe)
    student, config = start(recipe, seed=recipe.run.seed)
    loader = Loader(dataset, recipe, config, rank=ranks.rank, world=ranks.world, workers=0)
    counts = count_parameters(student)
    batch = next(iter(loader.batches(0)))
    steps = total_steps(recipe.optim, len(loader))
    numbers = {
        "records": len(dataset), "steps_per_epoch": len(loader), "steps": steps,
        "images_per_step": ranks.world * recipe.optim.batch, **counts,
        "memory_gb": memory_gb(recipe, config, batch, counts["trained"], counts["trained"] + counts["frozen"]),
    }  # fmt: skip
    say(f"{recipe.name}: {numbers['records']} records, {len(loader)} steps an epoch, {steps} in all")
    say(f"{ranks.world} × {recipe.optim.batch} images a step, first batch: {describe(batch)}")
    say(f"parameters: {counts['trained']:,} trained, {counts['frozen']:,} frozen")
    say(f"memory: about {numbers['memory_gb']:.2g} GB on each device; geoalign-train profile measures it")
    if held_out is not None:
        say(f"validation: {len(held_out)} records")
    for line in cautions(recipe, steps, dataset, held_out, departures):
        say(line)
    say(f"first batch: {draw_batch(batch, folder / PICTURE)}, {shown(batch)}")
    return numbers


def count_parameters(student: nn.Module) -> dict[str, int]:
    """Return how many parameters are trained and how many are frozen; a teacher's copies count as frozen."""
    counts = {"trained": 0, "frozen": 0}
    for value in student.parameters():
        counts["trained" if value.requires_grad else "frozen"] += value.numel()
    return counts


def describe(batch: Batch) -> str:
    """Say what is in a batch."""
    return (
        f"{len(batch.images)} images, {len(batch.boxes)} regions, {len(batch.crops)} crops, "
        f"{len(batch.negatives)} hard negatives, {len(batch.detailed)} detailed captions"
    )


def memory_gb(recipe: Recipe, config: ModelConfig, batch: Batch, trained: int, parameters: int) -> float:
    """Estimate a device's memory: weights, gradients, AdamW and activations.

    In float32 with plain torch 16 bytes are kept for a trained parameter; ZeRO's sharing is not counted, so this is
    what one device needs. Checkpointing keeps the input of each block and one block's inner values.

    Returns:
        In 10⁹ bytes; attention maps are taken as not stored.
    """
    vision, text = config.vision_cfg, config.text_cfg
    patches = (int(vision["image_size"]) // int(vision["patch_size"])) ** 2 + 1
    wide = 1 if recipe.optim.precision == "bf16" else 2

    def kept(sequences: int, tokens: int, width: int, layers: int) -> float:
        inner = 2 * layers + _OPEN if recipe.optim.checkpointing else _OPEN * layers
        return wide * sequences * tokens * width * inner

    images = kept(len(batch.images) + len(batch.crops), patches, int(vision["width"]), int(vision["layers"]))
    short = len(batch.brief) + len(batch.region) + len(batch.negatives)
    longest = max(batch.brief.shape[1], batch.region.shape[1], batch.negatives.shape[1])
    texts = sum(
        kept(count, tokens, int(text.get("width", 0)), int(text.get("layers", 0)))
        for count, tokens in ((short, longest), (len(batch.detailed), batch.detailed.shape[1]))
    )
    return (12 * trained + 4 * parameters + max(images, texts) + min(images, texts)) / 1e9


def draw_batch(batch: Batch, target: Path) -> Path:
    """Draw images of a batch with their boxes, captions and phrases, as the model gets them; see :func:`chosen`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    numbers = chosen(batch)
    columns = min(len(numbers), 4)
    rows = math.ceil(len(numbers) / columns)
    figure = Figure(figsize=(4.2 * columns, 5 * rows), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(shown(batch), fontsize=11, x=0.01, ha="left")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in axes:
        panel.set_axis_off()
    for panel, number in zip(axes, numbers, strict=False):
        _draw_image(panel, batch, number)
    with atomic_file(target, overwrite=True) as path:
        figure.savefig(path)
    return target


def chosen(batch: Batch) -> list[int]:
    """Return the images of a batch that are drawn: those with regions before others, each in the batch's order."""
    bare = set(range(len(batch.images))) - set(batch.image_of.tolist())
    return sorted(range(len(batch.images)), key=lambda number: number in bare)[:_SHOWN]


def shown(batch: Batch) -> str:
    """Say how much of a batch its picture shows."""
    drawn = chosen(batch)
    regions = sum(number in drawn for number in batch.image_of.tolist())
    return f"{len(drawn)} of {len(batch.images)} images, {regions} of {len(batch.boxes)} regions"


def _draw_image(axes: Axes, batch: Batch, number: int) -> None:
    from matplotlib.patches import Rectangle

    colours = ("#ffd400", "#00e5ff", "#ff5ad1", "#7cff5a")
    pixels = batch.images[number].permute(1, 2, 0).numpy()
    side = pixels.shape[0]
    axes.imshow(pixels, extent=(0, side, side, 0))  # in pixels' edges, as boxes are
    lines = [_words(batch.brief[number]) if len(batch.brief) else ""]
    for place, region in enumerate((batch.image_of == number).nonzero().flatten().tolist()):
        left, top, right, bottom = (side * value for value in batch.boxes[region].tolist())
        colour = colours[place % len(colours)]
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=2))
        axes.text(left, top, str(place + 1), color="black", backgroundcolor=colour, fontsize=8)
        if len(batch.region):
            negatives = int((batch.negative_of == region).sum())
            lines.append(f"{place + 1} ({negatives} negatives): {_words(batch.region[region])}")
    text = "\n".join(line if len(line) < 60 else line[:58] + "…" for line in lines)
    axes.set_title(text, fontsize=8, loc="left")


def _words(tokens: Any) -> str:  # noqa: ANN401 - a tensor
    from open_clip.tokenizer import SimpleTokenizer

    from geoalign_core.models.tokens import START

    return str(SimpleTokenizer().decode([token for token in tokens.tolist() if 0 < token < START])).strip()
