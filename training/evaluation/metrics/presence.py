"""Whether an image has what a question asks for: one number per image, against yes or no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.metrics.pointing import patch_figures

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Answers:
    """How well one number per image tells yes from no; NaN where one of them is missing."""

    roc_auc: float
    f1_at_half: float
    f1_best: float
    best_threshold: float
    positives: int
    negatives: int


def answers(odds: NDArray[np.float32], truth: NDArray[np.bool_]) -> Answers:
    """Measure (N,) log-odds, finite, against (N,) truth."""
    found = patch_figures([odds], [truth.astype(np.int8)], ["all"])
    return Answers(
        found.roc_auc, found.f1_at_half, found.f1_best, found.best_threshold, int(truth.sum()), int((~truth).sum())
    )


def best_share(odds: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Return the mean of the best ``share`` of the last axis, of at least one value."""
    count = max(1, int(share * odds.shape[-1]))
    best: NDArray[np.float32] = np.sort(odds, axis=-1)[..., -count:].mean(axis=-1)
    return best
