"""Referring grounding: one box for one sentence.

Pr@X is the share of sentences whose box has an IoU of at least X, meanIoU the mean over sentences, and cumIoU the sum
of intersections over the sum of unions, which large objects rule (Zhan et al. 2023, DIOR-RSVG).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.data.errors import DataError
from training.evaluation.protocols import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

THRESHOLDS: tuple[float, ...] = tuple(PROTOCOLS["rsvg"].numbers["thresholds"])


@dataclass(frozen=True, slots=True)
class Overlap:
    """N pairs of boxes."""

    common: NDArray[np.float64]
    """(N,) area of the intersection, in px²."""
    union: NDArray[np.float64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """(N,) in 0..1; 0 where neither box has an area."""
        return np.divide(self.common, self.union, out=np.zeros_like(self.common), where=self.union > 0)

    def table(self, thresholds: Sequence[float] = THRESHOLDS) -> NDArray[np.float64]:
        """Return (N, k + 4): a hit per threshold, IoU, intersection, union and 1, from whose sums figures are made."""
        hits = [self.iou >= threshold for threshold in thresholds]
        return np.stack([*hits, self.iou, self.common, self.union, np.ones_like(self.union)], axis=1)


def overlap(answers: NDArray[np.float64], truth: NDArray[np.float64]) -> Overlap:
    """Compare each answer with its true box.

    Args:
        answers: (N, 4) left, top, right, bottom; a row of NaN is no answer.
        truth: (N, 4)

    Raises:
        DataError: The shapes differ.
    """
    answers, truth = np.asarray(answers, np.float64), np.asarray(truth, np.float64)
    if answers.shape != truth.shape or answers.ndim != 2 or answers.shape[1] != 4:
        raise DataError("answers and true boxes do not pair", measured=f"{answers.shape} and {truth.shape}")
    given = np.where(np.isfinite(answers).all(axis=1, keepdims=True), answers, 0.0)
    common = np.clip(np.minimum(given[:, 2:], truth[:, 2:]) - np.maximum(given[:, :2], truth[:, :2]), 0, None)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (given, truth)]
    together = common.prod(axis=1)
    return Overlap(together, areas[0] + areas[1] - together)


def figures(sums: NDArray[np.float64], thresholds: Sequence[float] = THRESHOLDS) -> dict[str, NDArray[np.float64]]:
    """Return figures in per cent from (S, k + 4) sums of :meth:`Overlap.table`, each (S,)."""
    count, union = sums[:, -1], sums[:, -2]
    names = [f"pr@{threshold:g}" for threshold in thresholds]
    found = {name: 100 * sums[:, place] / count for place, name in enumerate(names)}
    found["mean_iou"] = 100 * sums[:, -4] / count
    found["cum_iou"] = 100 * np.divide(sums[:, -3], union, out=np.zeros_like(union), where=union > 0)
    return found
