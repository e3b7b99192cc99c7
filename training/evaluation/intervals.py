"""Percentile bootstrap intervals (Efron 1979), by items or by groups of items that belong together.

Captions of one image, and patches of one scene, are not independent: resampled one by one they give intervals that
are too narrow. Given their groups, whole groups are drawn (the cluster bootstrap; Davison and Hinkley 1997, §3.8).
Intervals say how much a figure depends on which items the data set happens to hold, and nothing about training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

SAMPLES, LEVEL = 1000, 0.95
_DISTINCT_COLUMNS = 8
_CELLS = 1 << 22
"""Of a block of weights: 32 MB."""


def mean(items: NDArray[Any]) -> Any:  # noqa: ANN401 - a number, or one for each column
    """Return the mean over the first axis."""
    return items.mean(axis=0)


def bootstrap(
    items: ArrayLike,
    statistic: Callable[[NDArray[Any]], Any] = mean,
    *,
    groups: ArrayLike | None = None,
    samples: int = SAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Give the ends of an interval.

    The default, the mean, is computed for all resamples at once. For ratios and other figures of sums, such as a mean
    IoU, :func:`bootstrap_sums` is as quick; anything else is called once for every resample.

    Args:
        items: (N,) or (N, k) values. For a figure that needs more than numbers, the items' own numbers 0..N−1.
        statistic: Resampled items → a number, or an array.
        groups: (N,) label of the group that each item belongs to.
        samples: Resamples.
        level: Share of resamples inside, between 0 and 1.
        seed: Of the drawing: equal seeds, equal intervals.

    Returns:
        Low and high, floats, or arrays as the statistic gives them. Resamples whose figure is NaN are left out.

    Raises:
        DataError: There are no items, groups do not match, or a setting is out of range.
    """
    array = np.asarray(items)
    _check(array, groups, samples, level)
    if statistic is mean:
        values = array.reshape(len(array), -1).astype(np.float64)
        sums = np.column_stack([values, np.ones(len(values))])
        low, high = bootstrap_sums(sums, _ratio_to_last, groups=groups, samples=samples, level=level, seed=seed)
        if array.ndim == 1:
            return float(low[0]), float(high[0])
        return low.reshape(array.shape[1:]), high.reshape(array.shape[1:])
    rng, members = np.random.default_rng(seed), None if groups is None else _members(groups)
    count, figures = len(array) if members is None else len(members), []
    for _ in range(samples):
        drawn = rng.integers(count, size=count)
        rows = drawn if members is None else np.concatenate([members[number] for number in drawn])
        figures.append(np.asarray(statistic(array[rows]), np.float64))
    return _ends(np.stack(figures), level)


def bootstrap_sums(
    sums: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    groups: ArrayLike | None = None,
    samples: int = SAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Give the ends of the interval of a figure that is made of sums over items, for all resamples at once.

    Args:
        sums: (N, k) what each item adds: intersections and unions of an image, say.
        statistic: (samples, k) sums of resamples → (samples,) or (samples, m) figures.
        groups: (N,) label of the group that each item belongs to.
        samples: Resamples.
        level: Share of resamples inside.
        seed: Of the drawing.

    Raises:
        DataError: As :func:`bootstrap`.
    """
    array = np.asarray(sums, np.float64)
    array = array[:, None] if array.ndim == 1 else array
    _check(array, groups, samples, level)
    if groups is not None:
        _, inverse = np.unique(np.asarray(groups), return_inverse=True)
        totals = np.zeros((int(inverse.max()) + 1, array.shape[1]))
        np.add.at(totals, inverse, array)
        array = totals
    drawn = np.concatenate(list(_resampled(array, samples, np.random.default_rng(seed))))
    with np.errstate(divide="ignore", invalid="ignore"):
        return _ends(np.asarray(statistic(drawn), np.float64), level)


def _resampled(array: NDArray[np.float64], samples: int, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """Yield (s, k) sums of resamples.

    How often a resample holds each of N items is multinomial. Items of equal values may be drawn as one: hits and
    misses are two kinds of item, however many there are.
    """
    count = len(array)
    if array.shape[1] <= _DISTINCT_COLUMNS:
        firsts, sizes = _kinds(array, count // 8)
        if len(firsts):
            yield rng.multinomial(count, sizes / count, size=samples) @ array[firsts]
            return
    step = max(1, _CELLS // count)
    for start in range(0, samples, step):
        part = min(step, samples - start)
        drawn = rng.integers(count, size=(part, count)) + np.arange(part)[:, None] * count
        weights = np.bincount(drawn.ravel(), minlength=part * count).reshape(part, count)
        yield weights.astype(np.float64) @ array


def _kinds(array: NDArray[np.float64], most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a row of each kind and how many there are of it; nothing when there are more than ``most`` kinds."""
    codes = np.zeros(len(array), np.int64)
    for column in array.T:
        values, places = np.unique(column, return_inverse=True)
        kinds, firsts, codes, sizes = np.unique(
            codes * len(values) + places, return_index=True, return_inverse=True, return_counts=True
        )
        if len(kinds) > most:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return firsts, sizes


def _ratio_to_last(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return sums[:, :-1] / sums[:, -1:]


def _ends(figures: NDArray[np.float64], level: float) -> tuple[Any, Any]:
    """Return the quantiles over the first axis; NaN where all are NaN."""
    tail = (1 - level) / 2
    flat = figures.reshape(len(figures), -1)
    ends = np.full((2, flat.shape[1]), np.nan)
    some = ~np.isnan(flat).all(axis=0)
    if some.any():
        ends[:, some] = np.nanquantile(flat[:, some], [tail, 1 - tail], axis=0)
    if figures.ndim == 1:
        return float(ends[0, 0]), float(ends[1, 0])
    return ends[0].reshape(figures.shape[1:]), ends[1].reshape(figures.shape[1:])


def _check(array: NDArray[Any], groups: ArrayLike | None, samples: int, level: float) -> None:
    if not array.ndim or not len(array):
        raise DataError("there is nothing to resample", remedy="leave the interval out")
    if samples < 1 or not 0 < level < 1:
        raise DataError("an interval needs a resample and a level between 0 and 1", measured=f"{samples}, {level}")
    if groups is not None and np.shape(groups) != (len(array),):
        raise DataError("every item needs its group", measured=f"{len(array)} items, {np.shape(groups)} groups")


def _members(labels: ArrayLike) -> list[NDArray[np.int64]]:
    """Return the items of each group."""
    _, inverse = np.unique(np.asarray(labels), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    return np.split(order, np.cumsum(np.bincount(inverse))[:-1])
