"""Figures of merit: pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RANKS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Recall in percent at ranks 1, 5 and 10, both ways."""

    image_to_text: tuple[float, ...]
    text_to_image: tuple[float, ...]


def retrieval(images: NDArray[np.float32], texts: NDArray[np.float32], text_of: Sequence[Sequence[int]]) -> Retrieval:
    """Measure retrieval among N images and T distinct captions.

    Image to text: a hit when one of the image's captions is among the k best of the T distinct captions. Text to
    image: every caption of every image is a query, and only the image that it was written for is a hit.

    Args:
        images: (N, D) L2-normalised.
        texts: (T, D) L2-normalised.
        text_of: Per image, the numbers of its captions.
    """
    cosines = images @ texts.T
    forward, backward = [], []
    for row, own in enumerate(text_of):
        best = cosines[row, list(own)].max()
        forward.append(int((cosines[row] > best).sum()))
        backward += [int((cosines[:, text] > cosines[row, text]).sum()) for text in own]
    return Retrieval(_recalls(forward), _recalls(backward))


def _recalls(better: list[int]) -> tuple[float, ...]:
    ranks = np.asarray(better)
    return tuple(float(100 * (ranks < rank).mean()) for rank in RANKS)


def top1(images: NDArray[np.float32], classes: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the percentage of images (N, D) whose nearest class vector (M, D) is their own."""
    return float(100 * ((images @ classes.T).argmax(axis=1) == labels).mean())


@dataclass(frozen=True, slots=True)
class DenseFigures:
    """How well the scores of patches tell inside from outside."""

    average_precision: float
    """Rims of boxes count as outside."""
    average_precision_without_rims: float
    """Patches that a box touches and whose centre lies outside do not count, so that the labels are beyond doubt."""
    roc_auc: float
    base_rate: float
    pointing_hits: int
    """Scenes whose best patch lies in a box."""
    pointing_scenes: int
    f1_at_half: float
    """F1 of the patches with a score of at least 0.5."""
    f1_best: float
    best_threshold: float
    precision_at_half: float
    recall_at_half: float


def dense_figures(
    odds: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.int8]], groups: Sequence[str]
) -> DenseFigures:
    """Measure patch scores.

    Args:
        odds: Per sample, (h, w) log-odds of the score.
        labels: Per sample, (h, w) of 1 (centre in a box), -1 (touched by one) and 0 (outside).
        groups: Per sample, its scene; the pointing game is played once per scene that has a positive patch.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    truth = np.concatenate([label.ravel() == 1 for label in labels])
    values = np.concatenate([value.ravel() for value in odds])
    clear = np.concatenate([label.ravel() >= 0 for label in labels])
    hits = scenes = 0
    for name in sorted(set(groups)):
        members = [index for index, group in enumerate(groups) if group == name]
        scene_truth = np.concatenate([labels[index].ravel() == 1 for index in members])
        if scene_truth.any():
            scenes += 1
            hits += int(scene_truth[np.argmax(np.concatenate([odds[index].ravel() for index in members]))])
    precision, recall, thresholds = precision_recall_curve(truth, values)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1[:-1]))
    said = values >= 0
    true_positive = float((said & truth).sum())
    at_precision, at_recall = true_positive / max(said.sum(), 1), true_positive / max(truth.sum(), 1)
    return DenseFigures(
        average_precision=float(average_precision_score(truth, values)),
        average_precision_without_rims=float(average_precision_score(truth[clear], values[clear])),
        roc_auc=float(roc_auc_score(truth, values)),
        base_rate=float(truth.mean()), pointing_hits=hits, pointing_scenes=scenes,
        f1_at_half=2 * at_precision * at_recall / max(at_precision + at_recall, 1e-12), f1_best=float(f1[best]),
        best_threshold=float(expit(thresholds[best])), precision_at_half=at_precision, recall_at_half=at_recall,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class YesNo:
    """How well one number per image tells yes from no."""

    roc_auc: float
    f1_at_half: float
    f1_best: float
    best_threshold: float
    positives: int
    negatives: int


def yes_no(odds: NDArray[np.float32], truth: NDArray[np.bool_]) -> YesNo:
    """Measure (N,) log-odds against (N,) truth of which both kinds are there."""
    figures = dense_figures([odds[:, None]], [truth[:, None].astype(np.int8)], ["all"])
    return YesNo(
        figures.roc_auc, figures.f1_at_half, figures.f1_best, figures.best_threshold, int(truth.sum()),
        int((~truth).sum()),
    )  # fmt: skip
