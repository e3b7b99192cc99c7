"""How far predicted shares are from those that are counted: reliability, expected calibration error, Brier score.

A prediction p is the share of the places with this prediction that are right (1) and not wrong (0). Expected
calibration error (Naeini et al. 2015, AAAI) cuts predictions into bins,

    ECE = Σ_b n_b / N · | right_b / n_b − mean p in b |,

of equal width on 0..1, or of about equal mass; equal predictions are never parted. Brier is the mean of (p − right)².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.data.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

BINS = 15
"""As Guo et al. 2017 (ICML) take."""
LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class Reliability:
    """Sums over B bins, lowest predictions first; empty bins stay."""

    edges: NDArray[np.float64]
    """(B − 1,) lower ends of all bins but the first."""
    counts: NDArray[np.float64]
    """(B,)"""
    predicted: NDArray[np.float64]
    """(B,) sums of predictions."""
    right: NDArray[np.float64]
    """(B,) how many are right."""

    @property
    def ece(self) -> float:
        """The expected calibration error, 0..1; NaN of nothing."""
        total = self.counts.sum()
        return float(np.abs(self.right - self.predicted).sum() / total) if total else float("nan")

    def rows(self) -> list[dict[str, float | int]]:
        """Return the bins that hold something: mean prediction, share that is right, count."""
        return [
            {"score": float(p / n), "precision": float(right / n), "count": int(n)}
            for n, p, right in zip(self.counts, self.predicted, self.right, strict=True)
            if n
        ]


def width_edges(bins: int = BINS) -> NDArray[np.float64]:
    """Return the inner edges of bins of equal width."""
    return np.linspace(0, 1, bins + 1)[1:-1]


def mass_edges(predictions: ArrayLike, bins: int = BINS) -> NDArray[np.float64]:
    """Return the inner edges of bins of about equal mass; where many predictions are equal there are fewer bins."""
    values = np.asarray(predictions, np.float64)
    if not len(values):
        return width_edges(bins)
    return np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1], method="higher"))


def reliability(predictions: ArrayLike, truth: ArrayLike, edges: NDArray[np.float64]) -> Reliability:
    """Sum predictions by bins.

    Args:
        predictions: (N,) 0..1.
        truth: (N,) whether each is right.
        edges: Inner edges, ascending; a value on an edge belongs to the bin above it.

    Raises:
        DataError: Lengths differ, or a prediction is no share.
    """
    values, right = np.asarray(predictions, np.float64), np.asarray(truth, np.bool_)
    _check(values, right)
    bins = np.searchsorted(edges, values, side="right")
    count, predicted, found = (
        np.bincount(bins, weights, len(edges) + 1).astype(np.float64)
        for weights in (np.ones_like(values), values, right.astype(np.float64))
    )
    return Reliability(np.asarray(edges, np.float64), count, predicted, found)


def expected_calibration_error(
    predictions: ArrayLike, truth: ArrayLike, *, bins: int = BINS, mass: bool = False
) -> float:
    """Return the error, 0..1, in bins of equal width or of equal mass; NaN of nothing.

    Raises:
        DataError: As :func:`reliability`.
    """
    return reliability(predictions, truth, mass_edges(predictions, bins) if mass else width_edges(bins)).ece


def brier(predictions: ArrayLike, truth: ArrayLike) -> float:
    """Return the mean squared error of predictions, 0..1; NaN of nothing.

    Raises:
        DataError: As :func:`reliability`.
    """
    values, right = np.asarray(predictions, np.float64), np.asarray(truth, np.bool_)
    _check(values, right)
    return float(np.mean((values - right) ** 2)) if len(values) else float("nan")


def log_loss(predictions: ArrayLike, positives: ArrayLike, negatives: ArrayLike) -> float:
    """Return the mean of −log p over what is right and −log (1 − p) over what is not, in nats.

    Args:
        predictions: (N,) 0..1, held :data:`LEAST` away from both ends.
        positives: (N,) how many of a prediction are right.
        negatives: (N,) how many are not.
    """
    values = np.clip(np.asarray(predictions, np.float64), LEAST, 1 - LEAST)
    yes, no = np.asarray(positives, np.float64), np.asarray(negatives, np.float64)
    return float(-(yes @ np.log(values) + no @ np.log1p(-values)) / max(yes.sum() + no.sum(), 1.0))


def _check(values: NDArray[np.float64], right: NDArray[np.bool_]) -> None:
    if values.ndim != 1 or values.shape != right.shape:
        raise DataError("every prediction needs its truth", measured=f"{values.shape}, {right.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise DataError("predictions are shares from 0 to 1")
