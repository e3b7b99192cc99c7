"""Marks correct the words' answer: they come out as marked, and the rest of the map keeps what it had."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import expit

from geoalign_core.errors import ExamplesError
from geoalign_core.grounding.correction import _ANCHOR, _RIDGE, _solve, fit_correction
from geoalign_core.indexing import LinearQuery, cells_of_place, draw_rows, rows_in_boxes, score_maps
from tests.index_tools import TinyEncoder, build, picture, save, square


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A raster with an index, and made-up log-odds of a question on its map."""
    path = save(tmp_path_factory.mktemp("correction") / "a.tif", picture())
    index = build(path, TinyEncoder())
    anything = LinearQuery.from_raw(np.ones((1, index.spec.channels), np.float32))
    cells = score_maps(index, anything)[0]
    odds = np.random.default_rng(3).normal(-1.0, 1.5, cells.scores.shape[1:]).astype(np.float32)
    return path, index, cells, np.where(np.isfinite(cells.scores[0]), odds, np.nan)


def corrected(asked, right, wrong):
    _, index, cells, odds = asked
    query = fit_correction(index, cells, odds, right, wrong, draw_rows(index, 1000, seed=0))
    return expit(odds + score_maps(index, query)[0].scores[0]), query


def mean_at(asked, scores, place):
    row, col = cells_of_place(asked[1], place).T
    return float(np.nanmean(scores[row, col]))


def test_marked_places_come_out_as_marked(asked):
    path, _, _, odds = asked
    right, wrong = square(path, 200, 200, 40), square(path, 300, 100, 40)
    scores, _ = corrected(asked, [right], [wrong])
    before = expit(odds)
    assert mean_at(asked, scores, right) > max(0.5, mean_at(asked, before, right))
    assert mean_at(asked, scores, wrong) < min(0.5, mean_at(asked, before, wrong))


def test_the_size_of_a_mark_does_not_matter_for_the_others(asked):
    path = asked[0]
    small = square(path, 320, 300, 20)
    for size in (20, 120):
        scores, _ = corrected(asked, [square(path, 150, 150, size), small], [])
        assert mean_at(asked, scores, small) > 0.5


def test_marks_that_agree_with_the_words_change_little(asked):
    path, index, cells, odds = asked
    sure = np.where(np.isfinite(odds), np.float32(6.0), odds)
    query = fit_correction(index, cells, sure, [square(path, 200, 200, 40)], [], draw_rows(index, 500, seed=0))
    change = score_maps(index, query)[0].scores[0]
    assert np.nanmax(np.abs(change)) < 0.5


def test_the_fit_is_the_minimum_of_the_printed_loss(asked):
    path, index, _, odds = asked
    places, said = [square(path, 200, 200, 40), square(path, 300, 100, 60)], [1.0, 0.0]
    drawn = draw_rows(index, 1000, seed=0)
    _, query = corrected(asked, places[:1], places[1:])
    mean = drawn.features.mean(axis=0)
    marked = rows_in_boxes(index, places)

    def cross_entropy(target, z):
        return np.logaddexp(0, z) - target * z

    def loss(w):
        total = _RIDGE / 2 * w @ w
        for number, place in enumerate(places):
            row, col = cells_of_place(index, place).T
            prior = np.nanmean(odds[row, col])
            features = marked.features[marked.box == number] - mean
            total += cross_entropy(said[number], prior + features @ w).mean()
        prior = odds[drawn.cells[:, 0], drawn.cells[:, 1]]
        known = np.isfinite(prior)
        z = prior[known] + (drawn.features[known] - mean) @ w
        return total + _ANCHOR * cross_entropy(expit(prior[known]), z).mean()

    w = query.patch[0].astype(np.float64)
    assert loss(w) < loss(np.zeros_like(w))
    assert np.abs(approx_fprime(w, loss, 1e-6)).max() < 5e-3
    np.testing.assert_allclose(query.bias[0], -w @ mean, rtol=1e-4)


def test_a_mark_off_the_image_is_refused(asked):
    with pytest.raises(ExamplesError, match="touches no image"):
        corrected(asked, [square(asked[0], 5000, 5000, 20)], [])


def test_thousands_of_rows_are_solved_at_once():
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(4000, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    offsets, weights = rng.normal(-2, 2, 4000), np.full(4000, _ANCHOR / 4000)
    targets = expit(offsets)
    targets[:8], weights[:8] = 1.0, 0.25
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        w = _solve(rows, offsets, targets, weights)
        seconds.append(time.perf_counter() - begun)
    z = offsets + rows @ w.astype(np.float64)
    slope = rows.T @ (weights * (expit(z) - targets)) + _RIDGE * w
    assert np.abs(slope).max() < 1e-4
    assert min(seconds) < 0.15
