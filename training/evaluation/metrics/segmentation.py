"""Intersection over union of classes, accumulated over a whole set (Everingham et al. 2010, §4.2).

With n_ij the pixels of class i that were answered j: IoU_i = n_ii / (Σ_j n_ij + Σ_j n_ji − n_ii). A class that is
neither true nor answered anywhere has none and does not count in means; one that is only answered has 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.data.errors import DataError
from training.evaluation.classlists import UNLABELLED

if TYPE_CHECKING:
    from numpy.typing import NDArray


def confusion(truth: NDArray[np.integer], answer: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Return (C, C) pixels, rows are truth, columns answers; pixels without a label do not count.

    Args:
        truth: Labels 0..C−1, or −1.
        answer: Labels 0..C−1, of the same shape.
        classes: C.

    Raises:
        DataError: The shapes differ, or a label is no class.
    """
    if truth.shape != answer.shape:
        raise DataError("truth and answer have different sizes", measured=f"{truth.shape}, {answer.shape}")
    kept = truth != UNLABELLED
    rows, columns = truth[kept].astype(np.int64), answer[kept].astype(np.int64)
    for labels in (rows, columns):
        if labels.size and not (labels.min() >= 0 and labels.max() < classes):
            raise DataError("a label is no class", measured=f"{labels.min()} to {labels.max()} of {classes}")
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)


def sums_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (…, 3 C) right, true and answered pixels of each class, of (…, C, C) confusions: what figures need."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    return np.concatenate([right, counts.sum(axis=-1), counts.sum(axis=-2)], axis=-1).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Segmented:
    """Figures of S sums at once, in per cent."""

    iou: NDArray[np.float64]
    """(S, C), NaN where a class is neither true nor answered."""
    recall: NDArray[np.float64]
    """(S, C) share of a class's pixels that are right, NaN where it has none."""
    miou: NDArray[np.float64]
    """(S,) mean over classes."""
    macc: NDArray[np.float64]
    """(S,) mean recall over classes."""
    accuracy: NDArray[np.float64]
    """(S,) share of all pixels."""
    fwiou: NDArray[np.float64]
    """(S,) IoU weighted by true pixels."""


def segmented(sums: NDArray[np.float64]) -> Segmented:
    """Return the figures of (S, 3 C) sums as :func:`sums_of` gives them."""
    right, true, answered = np.split(np.atleast_2d(sums), 3, axis=1)
    union = true + answered - right
    with np.errstate(divide="ignore", invalid="ignore"):
        iou, recall = 100 * right / union, 100 * right / true
        total = true.sum(axis=1)
        weighted = np.where(true > 0, true * np.nan_to_num(iou), 0.0).sum(axis=1) / total
        return Segmented(iou, recall, _mean(iou), _mean(recall), 100 * right.sum(axis=1) / total, weighted)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis of what is not NaN."""
    known = np.isfinite(values)
    mean: NDArray[np.float64] = np.where(known, values, 0.0).sum(axis=-1) / known.sum(axis=-1)
    return mean
