"""Accuracy of choosing one class for each item.

An item counts within the first k when fewer than k other classes score at least as much as its own: ties count
against the model, so that a model that scores all classes alike has no accuracy rather than the first class's share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.data.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Classified:
    """N items in C classes."""

    ranks: NDArray[np.int64]
    """(N,) rank of the item's own class; 1 is first."""
    predicted: NDArray[np.int64]
    """(N,) the own class where its rank is 1, else the best of the others (the first of them where they tie)."""
    labels: NDArray[np.int64]
    classes: int

    def within(self, k: int) -> NDArray[np.bool_]:
        """Return (N,) whether the own class is among the first k."""
        return self.ranks <= k

    def accuracy(self, k: int = 1) -> float:
        """Return the share of items within the first k, in per cent; NaN without items."""
        return 100 * float(self.within(k).mean()) if len(self.labels) else float("nan")

    @property
    def support(self) -> NDArray[np.int64]:
        """(C,) items of each class."""
        return np.bincount(self.labels, minlength=self.classes)

    @property
    def per_class(self) -> NDArray[np.float64]:
        """(C,) top-1 accuracy within each class in per cent (its recall); NaN for a class without items."""
        hit = np.bincount(self.labels, weights=self.within(1), minlength=self.classes)
        with np.errstate(invalid="ignore"):
            return 100 * hit / self.support

    @property
    def balanced(self) -> float:
        """Mean of :attr:`per_class` over the classes that have items; NaN without items."""
        there = self.per_class[self.support > 0]
        return float(there.mean()) if len(there) else float("nan")

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(C, C) counts: row the true class, column the predicted one."""
        flat = np.bincount(self.labels * self.classes + self.predicted, minlength=self.classes**2)
        return flat.reshape(self.classes, self.classes)


def classify(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> Classified:
    """Judge scores.

    Args:
        scores: (N, C), finite; higher is likelier.
        labels: (N,) true classes in 0..C-1.

    Raises:
        DataError: Shapes do not fit, a label is out of range, or a score is not finite.
    """
    scores, labels = np.asarray(scores), np.asarray(labels, np.int64)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise DataError("scores are not items × classes", measured=f"{scores.shape} and {labels.shape} labels")
    count = scores.shape[1]
    if len(labels) and (labels.min() < 0 or labels.max() >= count):
        raise DataError("a label is no class", measured=f"{labels.min()}…{labels.max()} of {count} classes")
    if not np.isfinite(scores).all():
        raise DataError("a score is not finite", measured=f"item {int(np.argwhere(~np.isfinite(scores))[0, 0])}")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    ranks = (scores >= own).sum(axis=1)
    others = scores.copy()
    np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
    best = others.argmax(axis=1) if count else labels
    return Classified(ranks.astype(np.int64), np.where(ranks == 1, labels, best), labels, count)
