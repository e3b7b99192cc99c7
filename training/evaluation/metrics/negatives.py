"""Rank of a true text among few candidates, with both tie rules, and what guessing gives.

``pessimistic`` is 1 + the number of negatives that score at least as much as the best positive; ``optimistic`` counts
only those that score more, as FG-CLIP's evaluator does for k = 1 (it takes a tie for the maximum as a hit).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TIES = ("pessimistic", "optimistic")


@dataclass(frozen=True, slots=True)
class Judged:
    """Ranks of N items."""

    pessimistic: NDArray[np.int64]
    optimistic: NDArray[np.int64]
    positives: NDArray[np.int64]
    candidates: NDArray[np.int64]
    """(N,) texts of each item, positives among them."""

    def ranks(self, ties: str) -> NDArray[np.int64]:
        """Return the ranks by one of :data:`TIES`."""
        return self.pessimistic if ties == "pessimistic" else self.optimistic

    def accuracy(self, k: int, ties: str = "pessimistic") -> float:
        """Return Acc@k in per cent; NaN without items."""
        return 100 * float((self.ranks(ties) <= k).mean()) if len(self.candidates) else float("nan")

    def chance(self, k: int) -> float:
        """Return the Acc@k of random scores in per cent: the mean of 1 - C(n - p, k) / C(n, k); NaN without items."""
        if not len(self.candidates):
            return float("nan")
        pairs = zip(self.positives.tolist(), self.candidates.tolist(), strict=True)
        return 100 * float(np.mean([_guess(p, n, k) for p, n in pairs]))


def _guess(positives: int, count: int, k: int) -> float:
    return 1.0 if k >= count else 1 - comb(count - positives, k) / comb(count, k)


def judge(scores: Sequence[NDArray[np.float32]], positives: Sequence[int]) -> Judged:
    """Rank the best positive of each item.

    Args:
        scores: (n_i,) finite scores of each item's candidates, the positives first.
        positives: How many are positives, at least one.

    Raises:
        DataError: An item has no positive, or a score is not finite; the item is named.
    """
    ranks = np.ones((2, len(scores)), np.int64)
    for item, (values, count) in enumerate(zip(scores, positives, strict=True)):
        if not 1 <= count <= len(values):
            raise DataError("an item has no positive text", measured=f"item {item}")
        if not np.isfinite(values).all():
            raise DataError("a score is not finite", measured=f"item {item}")
        best, others = np.max(values[:count]), values[count:]
        ranks[:, item] += ((others >= best).sum(), (others > best).sum())
    sizes = np.array([len(values) for values in scores], np.int64)
    return Judged(ranks[0], ranks[1], np.asarray(positives, np.int64).reshape(-1), sizes)
