"""Fits the map from scores to precision: a curve that never falls, chosen by log loss on scenes that it has not seen.

With x = logit(score), three families stand for choice:

- ``platt``: σ(a x + c), a ≥ 0 (Platt 1999);
- ``beta``: σ(a ln s − b ln (1 − s) + c), a, b ≥ 0 (Kull et al. 2017, AISTATS): a slope for each end;
- ``isotonic``: any curve that never falls (Zadrozny and Elkan 2002), held half an observation away from 0 and 1.

Patches of a scene are alike, so that whole scenes are held out, in folds. Figures of the map are from nested folds:
what a scene is measured with was both fitted and chosen without it. Which fold a scene is in hangs on its name only.

Scores are counted in at most :data:`BINS` bins of equal mass, finer than anything that the map could resolve, so that
a fit takes milliseconds whatever the number of patches.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from scipy.special import expit

from training.data.errors import DataError
from training.evaluation.metrics.calibration import log_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]
    """Log-odds of scores → precisions 0..1, never falling."""

Method = Literal["platt", "beta", "isotonic"]
METHODS: tuple[Method, ...] = get_args(Method)
"""Simplest first: of equals the first is taken."""
FOLDS, LEAST_SCENES = 5, 3
BINS = 2048
_ENDS = 30.0
"""Largest log-odds: scores closer to 0 or 1 are not told apart."""
_RIDGE = 1e-3
"""Of the slopes of a regression, in observations, so that what parts without error has a solution."""
_STEPS, _SMALL = 100, 1e-8
"""Of Newton's method: how many at most, and which changes nothing."""
_GRID = np.arange(-16.0, 16.25, 0.25)
_DIGITS = 7
"""Of knots: what float32 scores resolve."""


@dataclass(frozen=True, slots=True)
class Samples:
    """N places with a score."""

    odds: NDArray[np.float32]
    """(N,) log-odds of the score."""
    truth: NDArray[np.bool_]
    """(N,)"""
    groups: NDArray[np.int32]
    """(N,) place in ``names``."""
    names: tuple[str, ...]
    """Of the scenes, or of whatever belongs together."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was found."""

    method: Method
    scores: tuple[float, ...]
    """Knots, ascending, 0..1."""
    precisions: tuple[float, ...]
    prior: float
    """Share of the samples that is right."""
    held_out: NDArray[np.float64]
    """(N,) precision of each sample by a map that was fitted and chosen without its scene."""
    losses: dict[Method, float]
    """Log loss of each method on held-out scenes, in nats."""


def fit(samples: Samples, methods: Sequence[Method] = METHODS, folds: int = FOLDS) -> Fitted:
    """Fit the map.

    Args:
        samples: Scores and truth.
        methods: What to choose from.
        folds: Into how many parts scenes are drawn, at most.

    Raises:
        DataError: There are fewer than three scenes, or nothing or everything is right.
    """
    _check(samples)
    fold = folds_of(samples.names, folds)[samples.groups]
    table = _Table.of(np.clip(samples.odds.astype(np.float64), -_ENDS, _ENDS), samples.truth, fold)
    everything = range(len(table.yes))
    losses = {method: table.loss(method, everything) for method in methods}
    method = min(methods, key=losses.__getitem__)
    held_out = np.empty(len(samples.odds))
    for number in everything:
        rest = [other for other in everything if other != number]
        chosen = min(methods, key=lambda name: table.loss(name, rest))
        rows = fold == number
        held_out[rows] = table.curve(chosen, rest)(np.clip(samples.odds[rows].astype(np.float64), -_ENDS, _ENDS))
    scores, precisions = _knots(table.curve(method, everything), table.centres)
    prior = float(samples.truth.mean())
    return Fitted(method, scores, precisions, prior, np.clip(held_out, 0, 1), losses)


def _check(samples: Samples) -> None:
    if len(np.unique(samples.groups)) < LEAST_SCENES:
        raise DataError(
            "has too few images to hold some out", measured=f"{len(np.unique(samples.groups))}",
            remedy=f"give at least {LEAST_SCENES}, better hundreds",
        )  # fmt: skip
    if not np.isfinite(samples.odds).all():
        raise DataError("scores must be finite")
    if samples.truth.all() or not samples.truth.any():
        what = "everything is" if samples.truth.all() else "nothing is"
        raise DataError(f"{what} what was asked for, so there is no precision to learn", remedy="check the words")


def folds_of(names: Sequence[str], folds: int) -> NDArray[np.int64]:
    """Return the fold of each name: sorted by their SHA-256, dealt out in turn."""
    order = sorted(range(len(names)), key=lambda place: hashlib.sha256(names[place].encode()).digest())
    found = np.empty(len(names), np.int64)
    found[order] = np.arange(len(names)) % min(folds, len(names))
    return found


@dataclass(frozen=True, slots=True)
class _Table:
    """How many samples of each fold and bin are right, and how many are not."""

    centres: NDArray[np.float64]
    """(B,) mean log-odds."""
    yes: NDArray[np.float64]
    """(K, B)"""
    no: NDArray[np.float64]
    made: dict[tuple[Method, tuple[int, ...]], Curve] = field(default_factory=dict)
    """Curves by method and folds: nested folds ask for most of them twice."""

    @classmethod
    def of(cls, odds: NDArray[np.float64], truth: NDArray[np.bool_], fold: NDArray[np.int64]) -> _Table:
        edges = np.unique(np.quantile(odds, np.linspace(0, 1, BINS + 1)[1:-1]))
        bins, count = np.searchsorted(edges, odds, side="right"), len(edges) + 1
        there = np.bincount(bins, minlength=count)
        centres = np.bincount(bins, odds, count) / np.maximum(there, 1)
        cells, folds = fold * count + bins, int(fold.max()) + 1
        sums = [
            np.bincount(cells[part], minlength=folds * count).reshape(folds, count)[:, there > 0].astype(np.float64)
            for part in (truth, ~truth)
        ]
        return cls(centres[there > 0], sums[0], sums[1])

    def curve(self, method: Method, folds: Iterable[int]) -> Curve:
        """Return the curve that is fitted on folds."""
        some = tuple(folds)
        if (method, some) not in self.made:
            yes, no = (part[list(some)].sum(axis=0) for part in (self.yes, self.no))
            self.made[method, some] = fit_curve(method, self.centres, yes, no)
        return self.made[method, some]

    def loss(self, method: Method, folds: Iterable[int]) -> float:
        """Return the log loss over folds, each by a curve that was fitted on the others."""
        some = list(folds)
        total = 0.0
        for number in some:
            rest = [other for other in some if other != number]
            weight = self.yes[number].sum() + self.no[number].sum()
            predicted = self.curve(method, rest)(self.centres)
            total += weight * log_loss(predicted, self.yes[number], self.no[number])
        return float(total / (self.yes[some].sum() + self.no[some].sum()))


def fit_curve(method: Method, odds: NDArray[np.float64], yes: NDArray[np.float64], no: NDArray[np.float64]) -> Curve:
    """Fit one family.

    Args:
        method: Its name.
        odds: (B,) log-odds of the score.
        yes: (B,) how many are right.
        no: (B,) how many are not.

    Returns:
        The curve; a constant where all are right, or none.
    """
    there = yes + no > 0
    odds, yes, no = odds[there], yes[there], no[there]
    if not yes.sum() or not no.sum():
        share = (yes.sum() + 0.5) / (yes.sum() + no.sum() + 1)
        return lambda x: np.full(np.shape(x), share)
    if method == "isotonic":
        return _isotonic(odds, yes, no)
    return _regression(odds, yes, no, _PARTS[method])


def _isotonic(odds: NDArray[np.float64], yes: NDArray[np.float64], no: NDArray[np.float64]) -> Curve:
    from sklearn.isotonic import IsotonicRegression

    half = 0.5 / (yes.sum() + no.sum() + 1)
    model = IsotonicRegression(y_min=half, y_max=1 - half, out_of_bounds="clip")
    model.fit(odds, yes / (yes + no), sample_weight=yes + no)
    knots, values = np.asarray(model.X_thresholds_), np.asarray(model.y_thresholds_)
    return _Stepwise(knots, values)


@dataclass(frozen=True, slots=True)
class _Stepwise:
    """Straight lines between knots, flat beyond them."""

    knots: NDArray[np.float64]
    values: NDArray[np.float64]

    def __call__(self, odds: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.interp(odds, self.knots, self.values)


def _of_score(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x."""
    return x


def _of_high(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return −ln (1 − s)."""
    return np.logaddexp(0, x)


def _of_low(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ln s."""
    return -np.logaddexp(0, -x)


_PARTS = {"platt": (_of_score,), "beta": (_of_low, _of_high)}
"""What precision's log-odds rise with, linearly, in each family; all of it rises with the score."""


def _regression(
    odds: NDArray[np.float64], yes: NDArray[np.float64], no: NDArray[np.float64], parts: tuple[Curve, ...]
) -> Curve:
    """Fit logistic regression; a part that precision would fall with is left out, as Kull et al. do."""
    slopes, offset = logistic(np.column_stack([np.zeros((len(odds), 0)), *(part(odds) for part in parts)]), yes, no)
    if (slopes < 0).any():
        return _regression(odds, yes, no, tuple(p for p, slope in zip(parts, slopes, strict=True) if slope >= 0))
    return lambda x: expit(offset + sum(slope * part(x) for slope, part in zip(slopes, parts, strict=True)) + 0 * x)


def logistic(
    rows: NDArray[np.float64], yes: NDArray[np.float64], no: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Fit the log-odds of what is right as a linear function, by Newton's method with halved steps.

    Args:
        rows: (B, f) features.
        yes: (B,) how many of each row are right.
        no: (B,) how many are not.

    Returns:
        Slopes (f,) and offset.
    """
    count, spread = yes + no, np.maximum(rows.std(axis=0), 1e-9)
    x = np.column_stack([np.ones(len(rows)), (rows - rows.mean(axis=0)) / spread])
    ridge = np.diag([0.0, *[_RIDGE] * rows.shape[1]])
    weights = np.zeros(x.shape[1])

    def loss(w: NDArray[np.float64]) -> float:
        return float(count @ np.logaddexp(0, x @ w) - yes @ (x @ w) + w @ ridge @ w / 2)

    for _ in range(_STEPS):
        share = expit(x @ weights)
        hessian = (x * (count * share * (1 - share))[:, None]).T @ x + ridge + 1e-9 * np.eye(len(weights))
        step = np.linalg.solve(hessian, x.T @ (count * share - yes) + ridge @ weights)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > _SMALL:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() <= _SMALL:
            break
    slopes = weights[1:] / spread
    return slopes, float(weights[0] - slopes @ rows.mean(axis=0))


def _knots(curve: Curve, centres: NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return scores and precisions between which straight lines follow a curve."""
    own = curve.knots if isinstance(curve, _Stepwise) else np.quantile(centres, np.linspace(0, 1, 65))
    places = np.unique(np.concatenate([own, _GRID]))
    scores = np.concatenate([[0.0], np.round(expit(places), _DIGITS), [1.0]])
    values = curve(np.concatenate([[-_ENDS], places, [_ENDS]]))
    scores, first = np.unique(scores, return_index=True)
    values = np.maximum.accumulate(np.round(np.clip(values[first], 0, 1), _DIGITS))
    needed = np.ones(len(scores), np.bool_)
    needed[1:-1] = (values[1:-1] != values[:-2]) | (values[1:-1] != values[2:])  # nothing in the middle of a level
    return tuple(scores[needed].tolist()), tuple(values[needed].tolist())
