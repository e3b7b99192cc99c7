"""The losses against their equations written out in float64 numpy, and their gradients against differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp

from training.embedded.objectives import balanced_bce, log_odds, shared_positive_nce, soft_bce, top_mean


def unit(rng, *shape):
    values = rng.standard_normal(shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def reference_nce(images, texts, groups, scale):
    logits = scale * images @ texts.T
    total = 0.0
    for matrix in (logits, logits.T):
        logp = log_softmax(matrix, axis=1)
        for i, group in enumerate(groups):
            own = [j for j, other in enumerate(groups) if other == group]
            total -= np.mean([logp[i, j] for j in own])
    return total / (2 * len(groups))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 9), kinds=st.integers(1, 9), scale=st.floats(0.5, 50))
def test_nce_equals_the_sum_written_out(seed, count, kinds, scale):
    rng = np.random.default_rng(seed)
    images, texts, groups = unit(rng, count, 5), unit(rng, count, 5), rng.integers(kinds, size=count)
    got = shared_positive_nce(torch.tensor(images), torch.tensor(texts), torch.tensor(groups), scale)
    assert float(got) == pytest.approx(reference_nce(images, texts, groups, scale), rel=1e-10)


def test_nce_without_repeats_is_the_usual_infonce():
    rng = np.random.default_rng(1)
    images, texts = torch.tensor(unit(rng, 6, 4)), torch.tensor(unit(rng, 6, 4))
    logits = 10 * images @ texts.T
    own = torch.arange(6)
    usual = (torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)) / 2
    assert torch.allclose(shared_positive_nce(images, texts, own, 10.0), usual)


def test_log_odds_is_what_the_product_computes():
    from geoalign_core.grounding.relevance import log_odds as product

    rng = np.random.default_rng(2)
    patches, phrases, contrast = unit(rng, 12, 6), unit(rng, 3, 6), unit(rng, 4, 6)
    got = log_odds(torch.tensor(patches), torch.tensor(phrases), torch.tensor(contrast), 20.0).numpy()
    cosines = np.concatenate([phrases, contrast]) @ patches.T
    want = product(cosines.reshape(7, 3, 4).astype(np.float32), np.ones((3, 4), bool), 20.0).reshape(3, 12).T
    assert np.allclose(got, want, atol=1e-4)
    assert np.allclose(got, 20 * patches @ phrases.T - logsumexp(20 * patches @ contrast.T, axis=1)[:, None])


def test_balanced_bce_counts_both_sides_equally_and_skips_the_unknown():
    odds = np.array([[2.0, -1.0], [0.5, 3.0], [-2.0, 0.0], [9.0, 9.0]])
    labels = np.array([[1, 0], [0, 0], [0, -1], [-1, -1]])
    first = (np.log1p(np.exp(-2.0)) + (np.log1p(np.exp(0.5)) + np.log1p(np.exp(-2.0))) / 2) / 2
    second = (np.log1p(np.exp(-1.0)) + np.log1p(np.exp(3.0))) / 2 / 2
    got = balanced_bce(torch.tensor(odds), torch.tensor(labels))
    assert float(got) == pytest.approx((first + second) / 2)
    rare = balanced_bce(torch.tensor(odds), torch.tensor(labels), 0.1)
    negative = (np.log1p(np.exp(0.5)) + np.log1p(np.exp(-2.0))) / 2
    first = 0.1 * np.log1p(np.exp(-2.0)) + 0.9 * negative
    second = 0.9 * (np.log1p(np.exp(-1.0)) + np.log1p(np.exp(3.0))) / 2
    assert float(rare) == pytest.approx((first + second) / 2)


def test_the_prior_is_where_even_odds_lie():
    """With evidence x ~ N(±1, 1), the best z is 2x + log(prior odds): zero at the prior's likelihood ratio."""
    rng = np.random.default_rng(0)
    x = torch.tensor(np.concatenate([rng.normal(1, 1, 40_000), rng.normal(-1, 1, 40_000)]))
    labels = torch.cat([torch.ones(40_000), torch.zeros(40_000)])[:, None]
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([line], max_iter=50)

    def closure():
        optimiser.zero_grad()
        loss = balanced_bce((line[0] * x + line[1])[:, None], labels, 0.2)
        loss.backward()
        return loss

    optimiser.step(closure)
    assert line.detach().numpy() == pytest.approx([2.0, np.log(0.25)], abs=0.05)


def test_balanced_bce_of_nothing_known_is_zero():
    assert float(balanced_bce(torch.ones(3, 2), torch.full((3, 2), -1))) == 0.0


@given(seed=st.integers(0, 1000), count=st.integers(1, 30), share=st.floats(0.01, 1.0))
@settings(max_examples=30, deadline=None)
def test_top_mean_is_the_mean_of_the_largest(seed, count, share):
    values = np.random.default_rng(seed).standard_normal((2, count, 3))
    largest = max(1, int(np.ceil(share * count)))
    want = np.sort(values, axis=1)[:, -largest:].mean(axis=1)
    assert np.allclose(top_mean(torch.tensor(values), share).numpy(), want)


def test_gradients_agree_with_differences():
    rng = np.random.default_rng(3)
    images = torch.tensor(unit(rng, 5, 4), requires_grad=True)
    texts = torch.tensor(unit(rng, 5, 4), requires_grad=True)
    groups = torch.tensor([0, 1, 1, 2, 0])
    assert torch.autograd.gradcheck(lambda x, t: shared_positive_nce(x, t, groups, 7.0), (images, texts))
    contrast = torch.tensor(unit(rng, 3, 4), requires_grad=True)
    labels = torch.tensor(rng.integers(-1, 2, size=(5, 5)))
    assert torch.autograd.gradcheck(
        lambda x, t, c: balanced_bce(log_odds(x, t, c, 5.0), labels), (images, texts, contrast)
    )
    grid = torch.tensor(rng.standard_normal((2, 7, 3)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: top_mean(z, 0.4), (grid,))


def test_soft_targets_by_hand_and_least_where_nothing_changed():
    before = torch.tensor([[0.0, 2.0]])
    odds = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = soft_bce(odds, before)
    by_hand = (np.log1p(np.exp(1.0)) - 0.5 * 1.0 + np.log1p(np.exp(2.0)) - 2.0 / (1 + np.exp(-2.0))) / 2
    assert loss.item() == pytest.approx(by_hand, abs=1e-6)
    loss.backward()
    assert odds.grad[0, 0] > 0
    assert odds.grad[0, 1].abs() < 1e-7
