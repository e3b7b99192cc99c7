"""The values that travel between the panel and its controller (no Qt)."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

THRESHOLD_MIN = 10
THRESHOLD_MAX = 95
THRESHOLD_STEP = 5


def snap_threshold(percent: float) -> int:
    """Return the nearest threshold the engine has prepared: 10, 15, … 95 percent."""
    step = round(percent / THRESHOLD_STEP) * THRESHOLD_STEP
    return max(THRESHOLD_MIN, min(THRESHOLD_MAX, step))


@dataclass(frozen=True)
class SearchOptions:
    """How to look at the image.

    Attributes:
        gsd_m: Ground resolution in metres per pixel, None for the model's own.
        bands: The three bands shown as red, green and blue (1-based), None for the layer's.
        stretch_as_shown: Brighten the image as the layer shows it on the canvas.
        avoid: Words that lower the match.
        model: Name of the model, "" for the default.
        device: Name of the device, "" for the best one.
        min_area_m2: Matches smaller than this are left out.
    """

    gsd_m: float | None = None
    bands: tuple[int, ...] | None = None
    stretch_as_shown: bool = True
    avoid: tuple[str, ...] = ()
    model: str = ""
    device: str = ""
    min_area_m2: float = 0.0


@dataclass(frozen=True)
class Row:
    """One match in the list; the verdict is "yes", "no" or ""."""

    id: int
    score: float
    place: str
    verdict: str = ""


@dataclass(frozen=True)
class Curve:
    """How often places of a score are right, as it was counted: straight lines between knots.

    Attributes:
        scores: The knots, ascending, 0..1.
        precisions: Their shares of right places, never falling, 0..1.
        prior: The share of all places that was asked for, between 0 and 1.
        data: What it was counted on.
    """

    scores: tuple[float, ...]
    precisions: tuple[float, ...]
    prior: float
    data: str = ""

    @classmethod
    def read(cls, item: object) -> Curve | None:
        """Return the `calibration` of an answer; None where there is none, or it is not as the protocol says."""
        if not isinstance(item, dict):
            return None
        scores, precisions, prior = _shares(item.get("scores")), _shares(item.get("precisions")), item.get("prior")
        if len(scores) != len(precisions) or len(scores) < 2 or not _shares([prior]) or not 0 < prior < 1:
            return None
        if any(b <= a for a, b in zip(scores, scores[1:])) or any(b < a for a, b in zip(precisions, precisions[1:])):
            return None
        data = item.get("data")
        return cls(scores, precisions, float(prior), data if isinstance(data, str) else "")

    def precision(self, score: float) -> float:
        """Return the share of right places, 0..1, among those of a score."""
        after = bisect_right(self.scores, score)
        if after in (0, len(self.scores)):
            return self.precisions[0 if after == 0 else -1]
        (left, right), (low, high) = self.scores[after - 1 : after + 1], self.precisions[after - 1 : after + 1]
        return low + (high - low) * (score - left) / (right - left)


def _shares(values: object) -> tuple[float, ...]:
    """Return a list of numbers from 0 to 1, or nothing where it is not one."""
    if not isinstance(values, list) or not all(isinstance(one, (int, float)) for one in values):
        return ()
    return tuple(map(float, values)) if all(0 <= one <= 1 for one in values) else ()


@dataclass(frozen=True)
class Results:
    """What the result block shows: rows may hold fewer matches than `count`.

    Attributes:
        rows: The best matches.
        count: How many there are.
        histogram: Heatmap pixels by score.
        threshold_pct: The minimum match.
        curve: What the scores mean, as far as that was counted.
        by_example: Examples had a say in the scores.
    """

    rows: tuple[Row, ...] = ()
    count: int = 0
    histogram: tuple[int, ...] = ()
    threshold_pct: int = 55
    curve: Curve | None = None
    by_example: bool = False
