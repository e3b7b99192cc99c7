"""Ranks and nearest rows against a brute-force reference, with ties, duplicates and wrong input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiling.errors import CancelledError
from tiling.progress import CancelToken
from training.data.errors import DataError
from training.evaluation.ranking import Block, ranks, topk

SMALL = Block(3, 4)


def brute_ranks(queries, candidates, positives, ties):
    table = np.asarray(queries, np.float64) @ np.asarray(candidates, np.float64).T
    out = []
    for row, right in zip(table, positives, strict=True):
        wrong = np.delete(row, sorted(set(right)))
        best = max(row[place] for place in right)
        before = wrong >= best if ties == "pessimistic" else wrong > best
        out.append(1 + int(before.sum()))
    return out


def brute_topk(queries, candidates, k):
    table = np.asarray(queries, np.float64) @ np.asarray(candidates, np.float64).T
    order = np.argsort(-table, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(table, order, axis=1), order


@st.composite
def problems(draw):
    # Few values, so that many similarities are exactly equal.
    n, m, width = draw(st.integers(1, 9)), draw(st.integers(1, 13)), draw(st.integers(1, 4))
    cell = st.sampled_from([-0.5, 0.0, 0.25, 0.5])
    rows = st.lists(cell, min_size=width, max_size=width)
    queries = np.array(draw(st.lists(rows, min_size=n, max_size=n)), np.float32)
    candidates = np.array(draw(st.lists(rows, min_size=m, max_size=m)), np.float32)
    one = st.lists(st.integers(0, m - 1), min_size=1, max_size=5)
    return queries, candidates, draw(st.lists(one, min_size=n, max_size=n))


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(["pessimistic", "optimistic"]), st.integers(1, 10), st.integers(1, 14))
def test_ranks_are_those_of_the_whole_table_in_any_blocks(problem, ties, high, wide):
    queries, candidates, positives = problem
    found = ranks(queries, candidates, positives, ties=ties, block=Block(high, wide))
    assert found.tolist() == brute_ranks(queries, candidates, positives, ties)


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(1, 15), st.integers(1, 10), st.integers(1, 14))
def test_nearest_rows_are_those_of_the_whole_table_in_any_blocks(problem, k, high, wide):
    queries, candidates, _ = problem
    values, indices = topk(queries, candidates, k, block=Block(high, wide))
    expected, order = brute_topk(queries, candidates, k)
    assert indices.tolist() == order.tolist()
    np.testing.assert_array_equal(values, expected)


@settings(max_examples=60, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_candidates_is_of_no_consequence(problem, random):
    queries, candidates, positives = problem
    order = list(range(len(candidates)))
    random.shuffle(order)
    moved = [[order.index(place) for place in right] for right in positives]
    for ties in ("pessimistic", "optimistic"):
        before = ranks(queries, candidates, positives, ties=ties, block=SMALL)
        assert ranks(queries, candidates[order], moved, ties=ties, block=SMALL).tolist() == before.tolist()


def test_a_hand_worked_table():
    # Cosines of the query with the candidates: 1, 0.8, 0.8, 0.
    candidates = np.array([[1, 0], [0.8, 0.6], [0.8, -0.6], [0, 1]], np.float32)
    query = np.array([[1, 0]], np.float32)
    assert ranks(query, candidates, [[1]]).tolist() == [3]
    assert ranks(query, candidates, [[1]], ties="optimistic").tolist() == [2]
    assert ranks(query, candidates, [[1, 2]]).tolist() == [2]  # right ones are not in each other's way
    assert ranks(query, candidates, [[3, 0]]).tolist() == [1]


def test_a_blind_model_is_last_by_one_rule_and_first_by_the_other():
    rows = np.full((7, 4), 0.5, np.float32)
    assert ranks(rows, rows, [[i] for i in range(7)], block=SMALL).tolist() == [7] * 7
    assert ranks(rows, rows, [[i] for i in range(7)], ties="optimistic", block=SMALL).tolist() == [1] * 7


def test_equal_vectors_tie_wherever_they_lie():
    # Sums of 512 products differ in the last bits by the place of a column in its block.
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 512)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    candidates = np.concatenate([rows] * 5)
    for block in (Block(7, 13), Block(40, 200), Block(1, 3)):
        right = [[i] for i in range(40)]
        asked = rows + 0.02 * rng.normal(size=rows.shape).astype(np.float32)
        assert set(ranks(asked, candidates, right, block=block)) == {5}
        assert set(ranks(asked, candidates, right, ties="optimistic", block=block)) == {1}


def test_candidates_of_one_label_count_once():
    candidates = np.array([[0.9, 0], [0.9, 0], [0.9, 0], [0.5, 0], [0.5, 0], [0.1, 0]], np.float32)
    texts = ["river", "river", "river", "harbour", "harbour", "field"]
    query = np.array([[1, 0]] * 3, np.float32)
    right = [[5], [4], [1]]
    assert ranks(query, candidates, right).tolist() == [6, 5, 3]
    assert ranks(query, candidates, right, same=texts, block=SMALL).tolist() == [3, 2, 1]
    assert ranks(query, candidates, right, same=np.array([1, 1, 1, 2, 2, 0]), block=Block(1, 2)).tolist() == [3, 2, 1]


@settings(max_examples=40, deadline=None)
@given(problems())
def test_repeating_every_candidate_changes_nothing_when_labels_count_once(problem):
    queries, candidates, positives = problem
    labels = list(range(len(candidates)))
    once = ranks(queries, candidates, positives, block=SMALL)
    twice = ranks(queries, np.concatenate([candidates, candidates]), positives, same=labels * 2, block=SMALL)
    assert twice.tolist() == once.tolist()


def test_random_directions_agree_with_float64_and_scikit_learn():
    top = pytest.importorskip("sklearn.metrics").top_k_accuracy_score
    rng = np.random.default_rng(3)
    queries, candidates = (rng.normal(size=(n, 48)).astype(np.float32) for n in (300, 40))
    queries, candidates = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, candidates))
    truth = rng.integers(40, size=300)
    found = ranks(queries, candidates, truth[:, None], budget_bytes=40_000)
    assert found.tolist() == brute_ranks(queries, candidates, truth[:, None].tolist(), "pessimistic")
    for k in (1, 5, 10):
        assert (found <= k).mean() == pytest.approx(top(truth, queries @ candidates.T, k=k, labels=np.arange(40)))


def test_wrong_input_is_named():
    rows = np.eye(4, dtype=np.float32)
    with pytest.raises(DataError, match="query 2 has no right candidate"):
        ranks(rows, rows, [[0], [1], [], [3]])
    with pytest.raises(DataError, match=r"query 1 names a candidate that there is not \(4 of 4\)"):
        ranks(rows, rows, [[0], [4], [2], [3]])
    with pytest.raises(DataError, match="4 queries, 1 lists"):
        ranks(rows, rows, [[0]])
    with pytest.raises(DataError, match="not of one model"):
        ranks(rows, np.eye(3, dtype=np.float32), [[0]] * 4)
    with pytest.raises(DataError, match="no candidate"):
        topk(rows, np.zeros((0, 4), np.float32), 1)
    with pytest.raises(DataError, match="every candidate needs a label"):
        ranks(rows, rows, [[0]] * 4, same=[1, 2])
    damaged = rows.copy()
    damaged[3, 1] = np.nan
    with pytest.raises(DataError, match="candidate 3 has no finite vector"):
        ranks(rows, damaged, [[0]] * 4, block=SMALL)
    with pytest.raises(DataError, match="query 3 has no finite vector"):
        topk(damaged, rows, 2, block=SMALL)


def test_nothing_to_ask_and_more_than_there_is():
    rows = np.eye(3, dtype=np.float32)
    assert ranks(rows[:0], rows, []).shape == (0,)
    values, indices = topk(rows, rows, 99)
    assert indices.shape == values.shape == (3, 3)
    assert topk(rows, rows, 0)[1].shape == (3, 0)


def test_ranking_can_be_stopped_and_tells_how_far_it_is():
    rows, token, told = np.eye(8, dtype=np.float32), CancelToken(), []

    def progress(done, total, stage):
        told.append((done, total))
        if done >= 6:
            token.cancel()

    with pytest.raises(CancelledError):
        ranks(rows, rows, [[i] for i in range(8)], block=SMALL, progress=progress, cancel=token)
    assert told == [(3, 8), (6, 8)]


@pytest.mark.parametrize("width", [1, 32, 768, 4096])
@pytest.mark.parametrize("each", [5, 40])
def test_blocks_stay_within_the_budget(width, each):
    for budget in (1 << 20, 1 << 26, 1 << 30):
        block = Block.within(budget, width, each)
        used = 12 * width * (block.queries + block.candidates) + each * block.queries * block.candidates
        assert block.queries >= 1
        assert block.candidates >= 1
        assert used <= budget
