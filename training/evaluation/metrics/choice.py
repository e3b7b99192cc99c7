"""Accuracy of multiple choice: the option that suits the image best is the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.evaluation.metrics.negatives import judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Answered:
    """N questions."""

    correct: NDArray[np.bool_]
    """(N,) whether the right option scores more than every other; a tie for the best is no answer."""
    tied: NDArray[np.bool_]
    """(N,) whether the right option shares the best score with others."""
    options: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of questions answered rightly, in per cent; NaN without questions."""
        return 100 * float(self.correct.mean()) if len(self.correct) else float("nan")

    @property
    def chance(self) -> float:
        """Accuracy of guessing, in per cent; NaN without questions."""
        return 100 * float((1 / self.options).mean()) if len(self.options) else float("nan")

    def by(self, groups: Sequence[str]) -> dict[str, tuple[float, int]]:
        """Return accuracy in per cent and number of questions for each group's name, sorted by name."""
        names = np.asarray(groups)
        return {
            str(name): (100 * float(self.correct[names == name].mean()), int((names == name).sum()))
            for name in np.unique(names)
        }


def answer(scores: Sequence[NDArray[np.float32]], right: Sequence[int]) -> Answered:
    """Judge questions.

    Args:
        scores: (n_i,) finite scores of each question's options.
        right: Place of the right option.

    Raises:
        DataError: A score is not finite.
    """
    ordered = [
        np.concatenate([values[[place]], np.delete(values, place)]) for values, place in zip(scores, right, strict=True)
    ]
    judged = judge(ordered, [1] * len(ordered))
    correct, best = judged.pessimistic == 1, judged.optimistic == 1
    return Answered(correct, best & ~correct, judged.candidates)
