"""Entropy from its definitions: against torch and scipy, and on cases that can be worked out on paper."""

import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from rivals.base.errors import UserError
from rivals.metrics.entropy import (
    CLIP,
    binary_cross_entropy,
    cross_entropy,
    entropy,
    histogram_entropy,
    jsd,
    kl,
)

sizes = st.tuples(st.integers(1, 6), st.integers(2, 7), st.integers(0, 10_000))


def rows(seed, n, classes, zeros=False):
    """Random distributions (n, C), float64; with ``zeros``, some outcomes never happen."""
    random = np.random.default_rng(seed)
    values = random.dirichlet(np.full(classes, 0.7), n)
    if zeros:
        values[random.random((n, classes)) < 0.3] = 0
        values[:, 0] += 1e-3
    return values / values.sum(1, keepdims=True)


@given(sizes, st.sampled_from(["mean", "sum", "none"]))
def test_cross_entropy_is_torchs_for_labels_and_for_soft_targets(size, reduction):
    n, classes, seed = size
    q = torch.from_numpy(rows(seed, n, classes))
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, classes, n))
    onehot = torch.nn.functional.one_hot(labels, classes)
    soft = torch.from_numpy(rows(seed + 1, n, classes, zeros=True))
    for target, peer in ((labels, labels), (onehot, labels), (onehot.double(), labels), (soft, soft)):
        expected = torch.nn.functional.cross_entropy(q.log(), peer, reduction=reduction)
        assert torch.allclose(cross_entropy(target, q, reduction=reduction), expected, rtol=1e-12)


@given(sizes)
def test_entropy_divergence_and_jsd_are_scipys(size):
    n, classes, seed = size
    p, q = rows(seed, n, classes, zeros=True), rows(seed + 1, n, classes)
    assert entropy(p) == pytest.approx(scipy.stats.entropy(p, axis=1), rel=1e-10, abs=1e-12)
    assert kl(p, q) == pytest.approx(scipy.stats.entropy(p, q, axis=1), rel=1e-9, abs=1e-12)
    root = scipy.spatial.distance.jensenshannon(p, q, axis=1)
    assert jsd(p, q) == pytest.approx(root**2, rel=1e-9, abs=1e-12)
    assert jsd(p, q, unit="bits") == pytest.approx(root**2 / math.log(2), rel=1e-9, abs=1e-12)


@given(sizes)
def test_the_identities_that_bind_them(size):
    n, classes, seed = size
    p, q = rows(seed, n, classes), rows(seed + 1, n, classes)
    whole = cross_entropy(p, q, reduction="none", clip=0)
    assert whole == pytest.approx(entropy(p) + kl(p, q), rel=1e-9)
    assert jsd(p, q) == pytest.approx(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, abs=1e-12)
    assert jsd(p, q) == pytest.approx(jsd(q, p), rel=1e-12)
    assert (jsd(p, q) <= math.log(2) + 1e-12).all()
    assert (entropy(p) <= math.log(classes) + 1e-12).all()


@given(sizes)
def test_a_question_is_a_distribution_of_two_outcomes(size):
    n, _, seed = size
    p, q = rows(seed, n, 2)[:, 0], rows(seed + 1, n, 2)[:, 0]
    both = cross_entropy(np.stack([p, 1 - p], 1), np.stack([q, 1 - q], 1), reduction="none")
    assert binary_cross_entropy(p, q, reduction="none") == pytest.approx(both, rel=1e-9)
    peer = torch.nn.functional.binary_cross_entropy(torch.from_numpy(q), torch.from_numpy(p))
    assert binary_cross_entropy(torch.from_numpy(p), torch.from_numpy(q)).item() == pytest.approx(peer.item(), rel=1e-9)


def test_the_two_shapes_and_the_two_reductions_of_the_textbook():
    # Four answers to "is it real?": one number each, (n,).
    truth, said = [1, 0, 0, 1], [0.9, 0.1, 0.2, 0.8]
    expected = -math.log(0.9) - math.log(0.9) - math.log(0.8) - math.log(0.8)
    assert binary_cross_entropy(truth, said, reduction="sum") == pytest.approx(expected)
    assert binary_cross_entropy(truth, said) == pytest.approx(expected / 4)
    # Two answers to "which of three?": a row each, (n, C).
    said = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]
    expected = -math.log(0.7) - math.log(0.8)
    assert cross_entropy([[1, 0, 0], [0, 1, 0]], said, reduction="sum") == pytest.approx(expected)
    assert cross_entropy([0, 1], said) == pytest.approx(expected / 2)
    # One row alone, (C,).
    assert cross_entropy([0, 1, 0], [0.2, 0.5, 0.3]) == pytest.approx(math.log(2))


def test_the_draw_is_a_fair_coin_for_each_half():
    coin = [0.5, 0.5]
    assert 2 * entropy(coin) == pytest.approx(2 * math.log(2))
    assert entropy(coin, unit="bits") == pytest.approx(1)
    # The best D loses 2 log 2 - 2 JSD (Goodfellow et al. 2014, theorem 1): here on three outcomes.
    p, g = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5])
    best = p / (p + g)
    loss = -(p * np.log(best, where=best > 0, out=np.zeros(3))).sum()
    loss -= (g * np.log(1 - best, where=best < 1, out=np.zeros(3))).sum()
    assert loss == pytest.approx(2 * math.log(2) - 2 * jsd(p, g))


def test_clipping_is_as_stated():
    assert cross_entropy([0], [[0.0, 1.0]]) == pytest.approx(-math.log(CLIP))
    assert cross_entropy([0], [[0.0, 1.0]], clip=1e-3) == pytest.approx(-math.log(1e-3))
    assert cross_entropy([0], [[0.0, 1.0]], clip=0) == math.inf
    assert cross_entropy([[0, 1]], [[0.0, 1.0]], clip=0) == 0  # what never happens costs nothing
    assert binary_cross_entropy([0.0], [1.0]) == pytest.approx(-math.log(CLIP))
    assert kl([0.5, 0.5], [0.0, 1.0]) == math.inf


def test_kinds_and_types_come_back_as_they_went_in():
    p, q = rows(0, 4, 3), rows(1, 4, 3)
    for function in (cross_entropy, kl, jsd):
        ours = function(torch.from_numpy(p), torch.from_numpy(q))
        assert isinstance(ours, torch.Tensor) and ours.dtype == torch.float64
        assert np.allclose(ours.numpy(), function(p, q), rtol=1e-12)
        single = function(torch.from_numpy(p).float(), torch.from_numpy(q).float())
        assert single.dtype == torch.float32
        half = function(torch.from_numpy(p).half(), torch.from_numpy(q).half())
        assert half.dtype == torch.float32 and torch.allclose(half, single, atol=0.05)
    assert isinstance(cross_entropy(p, q), np.float64) and isinstance(entropy(p), np.ndarray)
    assert entropy(p.astype(np.float32)).dtype == np.float32
    assert cross_entropy(torch.tensor([0, 1]), torch.full((2, 3), 1 / 3)).dtype == torch.float32


def test_it_can_be_learnt_from():
    logits = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1])
    (ours,) = torch.autograd.grad(cross_entropy(labels, logits.softmax(1)), logits)
    (peer,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels), logits)
    assert torch.allclose(ours, peer, rtol=1e-9)
    assert torch.autograd.gradcheck(lambda x: jsd(x.softmax(1), torch.full_like(x, 1 / 3)), logits)


def test_histograms():
    assert histogram_entropy([1] * 256) == pytest.approx(8)
    assert histogram_entropy([0, 0, 7]) == 0
    assert histogram_entropy(torch.tensor([[1, 1, 0], [2, 1, 1]])).tolist() == pytest.approx([1, 1.5])
    assert histogram_entropy([3, 3], unit="nats") == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: cross_entropy([[1, 0]], [[0.5, 0.3, 0.2]]), "do not fit"),
        (lambda: cross_entropy([0, 1, 0], [[0.5, 0.5]]), "do not fit"),
        (lambda: cross_entropy([0.0, 1.0], [[0.5, 0.5], [0.5, 0.5]]), "whole numbers"),
        (lambda: cross_entropy([2], [[0.5, 0.5]]), "label 2 is out of range"),
        (lambda: cross_entropy([0], [[0.5, 1.5]]), "no probabilities"),
        (lambda: cross_entropy([0], [[0.5, math.nan]]), "no probabilities"),
        (lambda: cross_entropy([1, 0, 0, 1], [0.9, 0.1, 0.2, 0.8]), "binary_cross_entropy"),
        (lambda: cross_entropy(0, 0.5), "no distribution"),
        (lambda: cross_entropy([0], [[0.5, 0.5]], reduction="average"), "unknown reduction"),
        (lambda: cross_entropy([0], [[0.5, 0.5]], clip=1), "clip"),
        (lambda: entropy([0.5, 0.5], unit="bit"), "did you mean bits"),
        (lambda: binary_cross_entropy([1], [0.5, 0.5]), "differ"),
        (lambda: kl([0.5, 0.5], [1.0]), "differ"),
        (lambda: histogram_entropy([0, 0]), "no counts"),
        (lambda: histogram_entropy([-1, 2]), "no counts"),
    ],
)
def test_what_cannot_be_is_one_line(call, word):
    with pytest.raises(UserError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
