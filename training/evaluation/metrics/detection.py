"""Average precision of boxes: matching, the precision–recall curve, and three ways to take its area.

Everingham et al. 2010 (VOC, 11 points up to 2009, all points from 2010); Lin et al. 2014 (COCO, 101 points).
Comparisons of recalls are made in whole numbers, so 3 of 10 reaches a recall of 0.3 in every mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Area = Literal["11", "all", "101"]
Matching = Literal["voc", "coco"]
_STEPS: dict[str, int] = {"11": 10, "101": 100}
_CELLS = 1 << 22


def without_area(boxes: NDArray[np.float64], rim: float = 0.0) -> int:
    """Return how many boxes (n, 4) have no width or no height, or their sides exchanged: none of them can be a hit."""
    return int((boxes[:, 2:] - boxes[:, :2] + rim <= 0).any(axis=1).sum())


def box_iou(first: NDArray[np.float64], second: NDArray[np.float64], rim: float = 0.0) -> NDArray[np.float64]:
    """Return (N, M) intersection over union of upright boxes; 0 where both are without area.

    Args:
        first: (N, 4) left, top, right, bottom.
        second: (M, 4).
        rim: Added to every length: 1 counts the last pixel, as VOC's development kit does.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low + rim, 0.0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2] + rim, 0.0, None).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def corner_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, M) intersection over union of boxes of four corners, (N, 8) and (M, 8).

    Corners that make no simple polygon are taken as their convex hull.
    """
    import shapely

    shapes = [_polygons(corners) for corners in (first, second)]
    result = np.zeros((len(first), len(second)))
    if not result.size:
        return result
    rows, columns = shapely.STRtree(shapes[1]).query(shapes[0])
    common = shapely.area(shapely.intersection(shapes[0][rows], shapes[1][columns]))
    union = shapely.area(shapes[0][rows]) + shapely.area(shapes[1][columns]) - common
    result[rows, columns] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return result


def _polygons(corners: NDArray[np.float64]) -> NDArray[Any]:
    import shapely

    rings = corners.reshape(-1, 4, 2)
    shapes = shapely.polygons(rings)
    bad = ~shapely.is_valid(shapes)
    shapes[bad] = shapely.convex_hull(shapely.multipoints(rings[bad])) if bad.any() else shapes[bad]
    return np.asarray(shapes)


def match(
    iou: NDArray[np.float64], difficult: NDArray[np.bool_], threshold: float, matching: Matching = "voc"
) -> NDArray[np.int8]:
    """Return (N,) the verdicts of :func:`match_boxes`."""
    return match_boxes(iou, difficult, threshold, matching)[0]


def match_boxes(
    iou: NDArray[np.float64], difficult: NDArray[np.bool_], threshold: float, matching: Matching = "voc"
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Decide for each detection of one class on one image.

    Args:
        iou: (N, M) detections, best first, and true boxes.
        difficult: (M,) true boxes that are neither found nor missed.
        threshold: Least intersection over union; equal is enough.
        matching: ``voc``: a detection belongs to the box that it overlaps most, and is wrong when an earlier one had
            it; ``coco``: to the one that it overlaps most of those that are free.

    Returns:
        (N,) 1 right, 0 wrong, −1 not counted; and (N,) the true box that it reached, −1 for none.
    """
    taken, result = np.zeros(iou.shape[1], bool), np.zeros(len(iou), np.int8)
    owner = np.full(len(iou), -1, np.int64)
    if not iou.shape[1]:
        return result, owner
    for number, overlaps in enumerate(iou):
        offered = overlaps
        if matching == "coco":  # free boxes that count come before those that do not
            free = np.where(taken & ~difficult, -1.0, overlaps)
            counted = np.where(difficult, -1.0, free)
            offered = counted if counted.max() >= threshold else free
        best = int(offered.argmax())
        if offered[best] < threshold:
            continue
        owner[number] = best
        if difficult[best]:
            result[number] = -1
        elif not taken[best]:
            taken[best] = True
            result[number] = 1
    return result, owner


@dataclass(frozen=True, slots=True)
class Judged:
    """The detections of one class over all images, best first, without those that do not count."""

    hit: NDArray[np.bool_]
    """(D,)"""
    image: NDArray[np.int64]
    """(D,) place of the image."""
    scores: NDArray[np.float64]
    positives: NDArray[np.int64]
    """(I,) true boxes that count, by image."""

    def precision(self, area: Area) -> float:
        """Return the average precision, 0..1; NaN without a true box that counts."""
        return float(average_precision(self, np.ones((1, len(self.positives))), area)[0])

    @property
    def recall(self) -> float:
        """Share of the true boxes that are found at all; NaN without any."""
        total = int(self.positives.sum())
        return float(self.hit.sum()) / total if total else float("nan")

    def curve(self) -> list[list[float]]:
        """Return up to 100 points (recall, highest precision from there on)."""
        total = int(self.positives.sum())
        if not total or not len(self.hit):
            return []
        right = self.hit.cumsum()
        envelope = np.maximum.accumulate((right / np.arange(1, len(right) + 1))[::-1])[::-1]
        chosen = np.unique(np.linspace(0, len(right) - 1, min(100, len(right))).astype(int))
        return [[round(float(right[i] / total), 4), round(float(envelope[i]), 4)] for i in chosen]


def average_precision(judged: Judged, weights: NDArray[np.float64], area: Area) -> NDArray[np.float64]:
    """Return (S,) average precisions, 0..1, for S ways to count the images; NaN where no true box counts.

    Matching lies within an image, so a resample of the images only weighs what was decided.

    Args:
        judged: The detections of a class.
        weights: (S, I) how often each image counts, whole numbers.
        area: ``11``, ``all`` or ``101``.
    """
    positives = weights @ judged.positives.astype(np.float64)
    if not len(judged.hit):
        return np.where(positives > 0, 0.0, np.nan)
    step = max(1, _CELLS // len(judged.hit))
    parts = [
        _area(weights[start : start + step, judged.image], judged.hit, positives[start : start + step], area)
        for start in range(0, len(weights), step)
    ]
    return np.concatenate(parts)


def _area(
    weights: NDArray[np.float64], hit: NDArray[np.bool_], positives: NDArray[np.float64], area: Area
) -> NDArray[np.float64]:
    gained = weights * hit
    right, seen = gained.cumsum(axis=1), weights.cumsum(axis=1)
    precision = np.divide(right, seen, out=np.zeros_like(right), where=seen > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        if area == "all":
            return (envelope * gained).sum(axis=1) / positives
        steps, total = _STEPS[area], np.zeros(len(weights))
        for point in range(steps + 1):
            reached = right * steps >= point * positives[:, None]
            first = reached.argmax(axis=1)
            rows = np.arange(len(weights))
            total += np.where(reached[rows, first], envelope[rows, first], 0.0)
        return np.where(positives > 0, total / (steps + 1), np.nan)


def mean_of(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the mean of the values that are numbers; NaN without any."""
    numbers = np.asarray(values, np.float64)
    there = numbers[np.isfinite(numbers)]
    return float(there.mean()) if len(there) else float("nan")


@dataclass(frozen=True, slots=True)
class Rules:
    """How detections are judged."""

    iou: float = 0.5
    matching: Matching = "voc"
    rim: float = 0.0
    oriented: bool = False


def order_of(boxes: NDArray[np.float64], scores: NDArray[np.float64], image: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (D,) detections, the best first; equal scores by image and then by the boxes' numbers."""
    return np.lexsort((*boxes.T[::-1], image, -scores))


def overlaps_of(boxes: NDArray[np.float64], truth: NDArray[np.float64], rules: Rules) -> NDArray[np.float64]:
    """Return (N, M) intersection over union as the rules take it."""
    return corner_iou(boxes, truth) if rules.oriented else box_iou(boxes, truth, rules.rim)


def judge(
    truth: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]],
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    image: NDArray[np.int64],
    rules: Rules,
) -> Judged:
    """Judge the detections of one class.

    Equal scores are ordered by image and then by the boxes' numbers, so that figures do not depend on the order of a
    file.

    Args:
        truth: For each of I images its (M, 4) true boxes, or (M, 8) corners, and which (M,) are difficult.
        boxes: (D, 4), or (D, 8) corners.
        scores: (D,)
        image: (D,) 0..I-1.
        rules: Threshold, matching, and what the numbers mean.
    """
    order = order_of(boxes, scores, image)
    boxes, scores, image = boxes[order], scores[order], image[order]
    verdict = np.zeros(len(boxes), np.int8)
    by_image = np.argsort(image, kind="stable")
    starts = np.searchsorted(image[by_image], np.arange(len(truth) + 1))
    for place, (true_boxes, difficult) in enumerate(truth):
        mine = by_image[starts[place] : starts[place + 1]]
        if len(mine) and len(true_boxes):
            overlaps = overlaps_of(boxes[mine], true_boxes, rules)
            verdict[mine] = match(overlaps, difficult, rules.iou, rules.matching)
    counted = verdict >= 0
    positives = np.array([int((~difficult).sum()) for _, difficult in truth], np.int64)
    return Judged(verdict[counted] == 1, image[counted], scores[counted], positives)


def resampled(classes: Sequence[Judged], area: Area, samples: int, seed: int = 0) -> NDArray[np.float64]:
    """Return (S, C) average precisions, 0..1, of S resamples of the images (Efron's bootstrap)."""
    count = len(classes[0].positives)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    return np.stack([average_precision(judged, weights.astype(np.float64), area) for judged in classes], axis=1)
