"""How well the scores of patches tell the inside of boxes from the outside, and the pointing game.

A patch of the model's lattice is *inside* when its centre lies in a box, *rim* when a box touches it and its centre
lies outside, *outside* otherwise. What becomes of the rim is a choice (:data:`RIMS`); the model card counts it as
outside. The pointing game (Zhang et al. 2016, Excitation Backprop, §4.1) asks for the best patch of a scene only: a hit
when it is inside, or, as they play it, within 15 px of a box. Equal scores count against the model: where several
patches are the best, all of them have to be hits, so that neither the order of patches nor that of windows matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from tiling.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

Rim = Literal["outside", "ignore", "inside"]
RIMS: tuple[Rim, ...] = get_args(Rim)
TOLERANCE_PX = 15.0
"""Of the literature, in pixels of the image."""


@dataclass(frozen=True, slots=True)
class PatchFigures:
    """Figures of one question; NaN where there is nothing to tell apart."""

    average_precision: float
    roc_auc: float
    base_rate: float
    """Share of the patches that are inside: the average precision of guessing."""
    pointing_hits: int
    """Scenes whose best patch, or each of several equal ones, is a hit."""
    pointing_scenes: int
    """Scenes where a hit is possible."""
    f1_at_half: float
    """F1 of the patches with a score of at least 0.5."""
    f1_best: float
    best_threshold: float
    precision_at_half: float
    recall_at_half: float

    @property
    def pointing(self) -> float:
        """Hits as a share of the scenes."""
        return self.pointing_hits / self.pointing_scenes if self.pointing_scenes else math.nan


def patch_labels(boxes_xyxy: ArrayLike, rows: int, cols: int, patch: float) -> NDArray[np.int8]:
    """Label a lattice of square patches that begins at 0, 0.

    Args:
        boxes_xyxy: (N, 4) boxes in the unit of ``patch``; parts outside the lattice do not matter.
        rows: Patches down.
        cols: Patches across.
        patch: Side of a patch.

    Returns:
        (rows, cols): 1 inside, −1 rim, 0 outside. Left and upper edges belong to a box, right and lower ones do not.
    """
    labels = np.zeros((rows, cols), np.int8)
    for left, top, right, bottom in np.asarray(boxes_xyxy, np.float64).reshape(-1, 4):
        if not (left < right and top < bottom):
            continue
        touched = np.ix_(_touched(top, bottom, patch, rows), _touched(left, right, patch, cols))
        part = labels[touched]
        part[part == 0] = -1
        labels[touched] = part
        labels[np.ix_(_inside(top, bottom, patch, rows), _inside(left, right, patch, cols))] = 1
    return labels


def _touched(low: float, high: float, patch: float, count: int) -> NDArray[np.intp]:
    starts = np.arange(count) * patch
    return np.flatnonzero((starts < high) & (starts + patch > low))


def _inside(low: float, high: float, patch: float, count: int) -> NDArray[np.intp]:
    centres = np.arange(count) * patch + patch / 2
    return np.flatnonzero((centres >= low) & (centres < high))


def near_boxes(centres_xy_px: NDArray[np.float64], boxes_xyxy_px: ArrayLike, tolerance_px: float) -> NDArray[np.bool_]:
    """Return (…,) whether centres (…, 2) lie in a box or at most ``tolerance_px`` from one."""
    near = np.zeros(centres_xy_px.shape[:-1], np.bool_)
    for box in np.asarray(boxes_xyxy_px, np.float64).reshape(-1, 4):
        gaps = np.maximum(0, np.maximum(box[:2] - centres_xy_px, centres_xy_px - box[2:]))
        near |= np.hypot(gaps[..., 0], gaps[..., 1]) <= tolerance_px
    return near


def patch_figures(
    odds: Sequence[NDArray[np.float32]],
    labels: Sequence[NDArray[np.int8]],
    groups: Sequence[str],
    *,
    rim: Rim = "outside",
    near: Sequence[NDArray[np.bool_]] | None = None,
) -> PatchFigures:
    """Measure patch scores.

    Args:
        odds: Per sample (a window, say), log-odds of the score, any shape; NaN where there is no image.
        labels: Per sample, the same shape of 1, −1 and 0 as from :func:`patch_labels`.
        groups: Per sample, its scene; the pointing game is played once per scene.
        rim: What becomes of patches on a rim.
        near: Per sample, which patches are hits of the pointing game; by default those that are inside.

    Raises:
        UsageError: There is no such rule for rims.
    """
    if rim not in RIMS:
        raise UsageError("is no rule for rims", measured=rim, remedy=f"use one of {', '.join(RIMS)}")
    kept = [np.isfinite(value) & ((label >= 0) | (rim != "ignore")) for value, label in zip(odds, labels, strict=True)]
    positive = [(label == 1) | ((label == -1) & (rim == "inside")) for label in labels]
    hits, scenes = pointing_game(odds, positive if near is None else near, kept, groups)
    truth = _joined(positive, kept).astype(np.bool_)
    values = _joined(odds, kept)
    curve = Curve.of(values, truth)
    said = values >= 0
    true_positive = float((said & truth).sum())
    precision, recall = true_positive / max(int(said.sum()), 1), true_positive / max(int(truth.sum()), 1)
    f1_best, threshold = curve.best_f1()
    return PatchFigures(
        average_precision=curve.average_precision(), roc_auc=curve.roc_auc(),
        base_rate=float(truth.mean()) if truth.size else math.nan, pointing_hits=hits, pointing_scenes=scenes,
        f1_at_half=2 * precision * recall / max(precision + recall, 1e-12), f1_best=f1_best,
        best_threshold=threshold, precision_at_half=precision, recall_at_half=recall,
    )  # fmt: skip


def _joined(parts: Sequence[NDArray[Any]], kept: Sequence[NDArray[np.bool_]]) -> NDArray[Any]:
    return np.concatenate([part[keep] for part, keep in zip(parts, kept, strict=True)]) if parts else np.zeros(0)


def pointing_game(
    odds: Sequence[NDArray[np.float32]],
    hits: Sequence[NDArray[np.bool_]],
    kept: Sequence[NDArray[np.bool_]],
    groups: Sequence[str],
) -> tuple[int, int]:
    """Return the scenes whose best patches are all hits, and the scenes where a hit was possible.

    Args:
        odds: Per sample, scores of any shape, higher is better.
        hits: Per sample, the same shape: which patches are hits.
        kept: Per sample, the same shape: which patches play; none without a score.
        groups: Per sample, its scene.
    """
    won = played = 0
    for name in sorted(set(groups)):
        members = [index for index, group in enumerate(groups) if group == name]
        possible = _joined([hits[index] for index in members], [kept[index] for index in members])
        if possible.any():
            played += 1
            scores = _joined([odds[index] for index in members], [kept[index] for index in members])
            won += int(possible[scores == scores.max()].all())
    return won, played


@dataclass(frozen=True, slots=True)
class Curve:
    """Counts at every distinct value, the highest first."""

    values: NDArray[np.float32]
    """(K,)"""
    true_positives: NDArray[np.int64]
    """(K,) of what is at least that value."""
    false_positives: NDArray[np.int64]

    @classmethod
    def of(cls, values: ArrayLike, truth: NDArray[np.bool_]) -> Curve:
        """Count (N,) values of (N,) truth."""
        scores = np.asarray(values)
        order = np.argsort(-scores, kind="stable")
        scores, hits = scores[order], np.cumsum(truth[order], dtype=np.int64)
        last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1) if len(scores) else np.zeros(0, np.intp)
        return cls(scores[last], hits[last], last + 1 - hits[last])

    def average_precision(self) -> float:
        """Return the mean precision over the positives, Σ (R_n − R_{n−1}) P_n, without interpolation; NaN for none."""
        if not len(self.values) or not self.true_positives[-1]:
            return math.nan
        precision = self.true_positives / (self.true_positives + self.false_positives)
        return float(np.diff(self.true_positives, prepend=0) @ precision / self.true_positives[-1])

    def roc_auc(self) -> float:
        """Return the share of pairs of a positive and a negative that are in order, ties half; NaN without pairs."""
        if not len(self.values) or not self.true_positives[-1] or not self.false_positives[-1]:
            return math.nan
        pairs = np.diff(self.false_positives, prepend=0) * (
            self.true_positives - np.diff(self.true_positives, prepend=0) / 2
        )
        return float(pairs.sum() / self.true_positives[-1] / self.false_positives[-1])

    def best_f1(self) -> tuple[float, float]:
        """Return the highest F1 and the score that gives it, the lowest of several; NaN without positives."""
        from scipy.special import expit

        if not len(self.values) or not self.true_positives[-1]:
            return math.nan, math.nan
        f1 = 2 * self.true_positives / (self.true_positives + self.false_positives + self.true_positives[-1])
        best = len(f1) - 1 - int(np.argmax(f1[::-1]))
        return float(f1[best]), float(expit(self.values[best]))
