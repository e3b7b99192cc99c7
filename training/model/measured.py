"""Which of a step's figures its batch has something for: a loss of nothing is 0 and would pass for a perfect one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from training.losses.gather import LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from training.batch import Batch
    from training.losses.gather import Gather
    from training.model.objective import Features
    from training.recipe import LossRecipe


def mark_unmeasured(
    values: Mapping[str, torch.Tensor],
    features: Features,
    batch: Batch,
    loss: LossRecipe,
    texts: Gather,
    regions: Gather,
) -> dict[str, torch.Tensor]:
    """Return a step's figures with NaN for those that nothing was measured for.

    A contrast needs two rows, and two different texts among them where equal ones are masked; hard negatives need one,
    agreement a region. A loss looks at the rows that it was computed over, on one rank or on all; a monitor at this
    rank's own. All ranks must call it: the losses that are on decide what is exchanged, never the batch.

    Args:
        values: Losses and monitors by name, () detached; others stay as they are.
        features: Of both towers.
        batch: Numbers of equal texts, categories, and what negatives belong to.
        loss: How equal texts are treated, and whether both granularities are in L_g.
        texts: The view of other ranks of the losses on captions.
        regions: The same of the losses on regions.
    """

    def contrast(gather: Gather, ids: torch.Tensor) -> torch.Tensor:
        return gather.differ(ids) if loss.duplicates == "mask" else gather.total((ids >= 0).sum()) > 1

    def some(rows: torch.Tensor, least: int = 1, gather: Gather = regions) -> torch.Tensor:
        return gather.total(torch.tensor(len(rows), device=batch.images.device)) >= least

    def brief() -> torch.Tensor:
        return contrast(texts, batch.brief_id)

    def detailed() -> torch.Tensor:
        return contrast(texts, batch.detailed_id)

    def both() -> torch.Tensor:
        return brief() & detailed()

    tests: dict[str, Callable[[], torch.Tensor]] = {
        "image_text": both if "long" in values else brief, "long": detailed, "short": brief, "textual": both,
        "region": lambda: contrast(regions, batch.region_id),
        "hard_negative": lambda: some(batch.negative_of),
        "consistency": lambda: some(batch.boxes),
        "distil": lambda: some(features.distil[0][0]),
        "category": lambda: regions.total((batch.category >= 0).sum()) > 1,
        "collapse_images": lambda: some(batch.images, 2, LOCAL),
        "collapse": lambda: some(batch.boxes, 2, LOCAL),
        "accuracy_i2t": lambda: LOCAL.differ(batch.brief_id),
        "accuracy_region": lambda: LOCAL.differ(batch.region_id),
    }  # fmt: skip
    return {
        name: value.masked_fill(~tests[name](), math.nan) if name in tests else value for name, value in values.items()
    }
