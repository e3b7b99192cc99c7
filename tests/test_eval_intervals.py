"""Bootstrap intervals: their coverage, scipy's, and the shortcuts against plain resampling."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.errors import DataError
from training.evaluation.intervals import bootstrap, bootstrap_sums


def plain_mean(items):  # not the function that has a shortcut
    return np.mean(items, axis=0)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = 0
    for trial in range(400):
        low, high = bootstrap(rng.random(120) < 0.3, samples=400, level=0.9, seed=trial)
        held += low <= 0.3 <= high
    assert 0.86 < held / 400 < 0.94


def test_intervals_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    for items in (np.random.default_rng(2).exponential(size=80), np.repeat([0.0, 1.0], [60, 140])):
        low, high = bootstrap(items, samples=4000)
        theirs = stats.bootstrap(
            (items,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(5)
        ).confidence_interval
        width = theirs.high - theirs.low
        assert low == pytest.approx(theirs.low, abs=0.06 * width)
        assert high == pytest.approx(theirs.high, abs=0.06 * width)


@pytest.mark.parametrize("items", [np.repeat([0.0, 1.0], [30, 50]), np.random.default_rng(3).normal(size=80)])
def test_the_shortcuts_agree_with_resampling_item_by_item(items):
    quick, slow = (np.array(bootstrap(items, how, samples=4000)) for how in (bootstrap.__defaults__[0], plain_mean))
    assert np.abs(quick - slow).max() < 0.08 * (slow[1] - slow[0])


def test_groups_of_copies_are_worth_one_item_each():
    rng = np.random.default_rng(4)
    scenes = rng.normal(size=60)
    items, groups = np.repeat(scenes, 5), np.repeat(np.arange(60), 5)
    order = rng.permutation(300)
    alone, together = bootstrap(items, samples=3000), bootstrap(items[order], groups=groups[order], samples=3000)
    scene = bootstrap(scenes, samples=3000)
    width = scene[1] - scene[0]
    assert np.array(together) == pytest.approx(np.array(scene), abs=0.08 * width)
    assert (alone[1] - alone[0]) * 2 < together[1] - together[0]
    assert np.array(bootstrap(items, plain_mean, groups=groups, samples=3000)) == pytest.approx(
        np.array(scene), abs=0.08 * width
    )


def test_intervals_of_clustered_items_hold_the_truth():
    rng, groups, held = np.random.default_rng(6), np.repeat(np.arange(50), 4), [0, 0]
    for trial in range(300):
        items = np.repeat(rng.normal(size=50), 4) + 0.3 * rng.normal(size=200)
        for number, by in enumerate((groups, None)):
            low, high = bootstrap(items, groups=by, samples=300, seed=trial)
            held[number] += low <= 0 <= high
    assert held[0] / 300 > 0.89
    assert held[1] / 300 < 0.80  # what forgetting the groups costs


def test_several_columns_and_labels_of_any_kind():
    hits = np.array([[1, 1], [0, 1], [0, 0], [1, 1]] * 20, float)
    low, high = bootstrap(hits)
    assert low.shape == high.shape == (2,)
    assert (low < hits.mean(axis=0)).all()
    assert (hits.mean(axis=0) < high).all()
    names = np.array(["a", "b", "c", "d"] * 20)
    grouped = bootstrap(hits[:, 0], groups=names)
    assert 0 <= grouped[0] < 0.5 < grouped[1] <= 1


def test_a_ratio_of_sums_is_not_the_mean_of_ratios():
    rng = np.random.default_rng(7)
    union = rng.integers(1, 50, size=300).astype(float)
    inside = rng.binomial(union.astype(int), 0.4).astype(float)
    sums = np.column_stack([inside, union])
    low, high = bootstrap_sums(sums, lambda total: total[:, 0] / total[:, 1], samples=2000)
    slow = bootstrap(sums, lambda rows: rows[:, 0].sum() / rows[:, 1].sum(), samples=2000)
    assert low < inside.sum() / union.sum() < high
    assert (low, high) == pytest.approx(slow, abs=0.1 * (high - low))


def test_figures_that_a_resample_does_not_have_are_left_out():
    sums = np.zeros((6, 2))
    sums[0] = 1, 2  # only one image shows the class
    low, high = bootstrap_sums(sums, lambda total: total[:, 0] / total[:, 1])
    assert low == high == 0.5
    nothing = bootstrap_sums(np.zeros((6, 2)), lambda total: total[:, 0] / total[:, 1])
    assert np.isnan(nothing).all()


def test_equal_seeds_give_equal_intervals():
    items = np.random.default_rng(8).random(50)
    assert bootstrap(items, seed=3) == bootstrap(items, seed=3)
    assert bootstrap(items, seed=3) != bootstrap(items, seed=4)
    assert bootstrap(items[::-1], np.median, samples=50, seed=1)[0] <= np.median(items)


def test_one_item_and_equal_items_have_no_width():
    assert bootstrap([0.7]) == pytest.approx((0.7, 0.7))
    assert bootstrap(np.ones(500)) == (1.0, 1.0)


def test_wrong_input_is_refused():
    with pytest.raises(DataError, match="nothing to resample"):
        bootstrap([])
    with pytest.raises(DataError, match="every item needs its group"):
        bootstrap([1.0, 2.0], groups=[1])
    with pytest.raises(DataError, match="level between 0 and 1"):
        bootstrap([1.0, 2.0], level=95)
