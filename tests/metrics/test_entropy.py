"""Entropy and divergences, against torch, scipy and values computed by hand."""

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
    """Random distributions (n, C), float64; with ``zeros``, some probabilities are 0."""
    random = np.random.default_rng(seed)
    values = random.dirichlet(np.full(classes, 0.7), n)
    if zeros:
        values[random.random((n, classes)) < 0.3] = 0
        values[:, 0] += 1e-3
    return values / values.sum(1, keepdims=True)


@given(sizes, st.sampled_from(["mean", "sum", "none"]))
def test_cross_entropy_equals_that_of_torch_for_labels_and_soft_targets(size, reduction):
    n, classes, seed = size
    q = torch.from_numpy(rows(seed, n, classes))
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, classes, n))
    onehot = torch.nn.functional.one_hot(labels, classes)
    soft = torch.from_numpy(rows(seed + 1, n, classes, zeros=True))
    for target, peer in ((labels, labels), (onehot, labels), (onehot.double(), labels), (soft, soft)):
        expected = torch.nn.functional.cross_entropy(q.log(), peer, reduction=reduction)
        assert torch.allclose(cross_entropy(target, q, reduction=reduction), expected, rtol=1e-12)


@given(sizes)
def test_entropy_kl_and_jsd_equal_those_of_scipy(size):
    n, classes, seed = size
    p, q = rows(seed, n, classes, zeros=True), rows(seed + 1, n, classes)
    assert entropy(p) == pytest.approx(scipy.stats.entropy(p, axis=1), rel=1e-10, abs=1e-12)
    assert kl(p, q) == pytest.approx(scipy.stats.entropy(p, q, axis=1), rel=1e-9, abs=1e-12)
    root = scipy.spatial.distance.jensenshannon(p, q, axis=1)
    assert jsd(p, q) == pytest.approx(root**2, rel=1e-9, abs=1e-12)
    assert jsd(p, q, unit="bits") == pytest.approx(root**2 / math.log(2), rel=1e-9, abs=1e-12)


@given(sizes)
def test_identities_between_entropies_and_divergences(size):
    n, classes, seed = size
    p, q = rows(seed, n, classes), rows(seed + 1, n, classes)
    total = cross_entropy(p, q, reduction="none", clip=0)
    assert total == pytest.approx(entropy(p) + kl(p, q), rel=1e-9)
    assert jsd(p, q) == pytest.approx(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, abs=1e-12)
    assert jsd(p, q) == pytest.approx(jsd(q, p), rel=1e-12)
    assert (jsd(p, q) <= math.log(2) + 1e-12).all()
    assert (entropy(p) <= math.log(classes) + 1e-12).all()


@given(sizes)
def test_binary_cross_entropy_is_cross_entropy_of_two_outcomes(size):
    n, _, seed = size
    p, q = rows(seed, n, 2)[:, 0], rows(seed + 1, n, 2)[:, 0]
    both = cross_entropy(np.stack([p, 1 - p], 1), np.stack([q, 1 - q], 1), reduction="none")
    assert binary_cross_entropy(p, q, reduction="none") == pytest.approx(both, rel=1e-9)
    peer = torch.nn.functional.binary_cross_entropy(torch.from_numpy(q), torch.from_numpy(p))
    assert binary_cross_entropy(torch.from_numpy(p), torch.from_numpy(q)).item() == pytest.approx(peer.item(), rel=1e-9)


def test_both_shapes_and_both_reductions_by_hand():
    # Four binary questions: one probability each, (n,).
    truth, predicted = [1, 0, 0, 1], [0.9, 0.1, 0.2, 0.8]
    expected = -math.log(0.9) - math.log(0.9) - math.log(0.8) - math.log(0.8)
    assert binary_cross_entropy(truth, predicted, reduction="sum") == pytest.approx(expected)
    assert binary_cross_entropy(truth, predicted) == pytest.approx(expected / 4)
    # Two questions with three classes: one row each, (n, C).
    predicted = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]
    expected = -math.log(0.7) - math.log(0.8)
    assert cross_entropy([[1, 0, 0], [0, 1, 0]], predicted, reduction="sum") == pytest.approx(expected)
    assert cross_entropy([0, 1], predicted) == pytest.approx(expected / 2)
    # A single row, (C,).
    assert cross_entropy([0, 1, 0], [0.2, 0.5, 0.3]) == pytest.approx(math.log(2))


def test_the_loss_of_the_optimal_discriminator_is_two_log_two_minus_two_jsd():
    coin = [0.5, 0.5]
    assert 2 * entropy(coin) == pytest.approx(2 * math.log(2))
    assert entropy(coin, unit="bits") == pytest.approx(1)
    # Goodfellow et al. 2014, theorem 1, on three outcomes.
    p, g = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5])
    best = p / (p + g)
    loss = -(p * np.log(best, where=best > 0, out=np.zeros(3))).sum()
    loss -= (g * np.log(1 - best, where=best < 1, out=np.zeros(3))).sum()
    assert loss == pytest.approx(2 * math.log(2) - 2 * jsd(p, g))


def test_clipping_bounds_the_loss():
    assert cross_entropy([0], [[0.0, 1.0]]) == pytest.approx(-math.log(CLIP))
    assert cross_entropy([0], [[0.0, 1.0]], clip=1e-3) == pytest.approx(-math.log(1e-3))
    assert cross_entropy([0], [[0.0, 1.0]], clip=0) == math.inf
    assert cross_entropy([[0, 1]], [[0.0, 1.0]], clip=0) == 0  # 0 log 0 is 0
    assert binary_cross_entropy([0.0], [1.0]) == pytest.approx(-math.log(CLIP))
    assert kl([0.5, 0.5], [0.0, 1.0]) == math.inf


def test_results_have_the_type_and_dtype_of_the_input():
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


def test_gradients_equal_those_of_torch():
    logits = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1])
    (ours,) = torch.autograd.grad(cross_entropy(labels, logits.softmax(1)), logits)
    (peer,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels), logits)
    assert torch.allclose(ours, peer, rtol=1e-9)
    assert torch.autograd.gradcheck(lambda x: jsd(x.softmax(1), torch.full_like(x, 1 / 3)), logits)


def test_histogram_entropy_in_bits_and_nats():
    assert histogram_entropy([1] * 256) == pytest.approx(8)
    assert histogram_entropy([0, 0, 7]) == 0
    assert histogram_entropy(torch.tensor([[1, 1, 0], [2, 1, 1]])).tolist() == pytest.approx([1, 1.5])
    assert histogram_entropy([3, 3], unit="nats") == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cross_entropy([[1, 0]], [[0.5, 0.3, 0.2]]), "do not fit"),
        (lambda: cross_entropy([0, 1, 0], [[0.5, 0.5]]), "do not fit"),
        (lambda: cross_entropy([0.0, 1.0], [[0.5, 0.5], [0.5, 0.5]]), "give integers"),
        (lambda: cross_entropy([2], [[0.5, 0.5]]), "label 2 is out of range"),
        (lambda: cross_entropy([0], [[0.5, 1.5]]), "not probabilities"),
        (lambda: cross_entropy([0], [[0.5, math.nan]]), "not probabilities"),
        (lambda: cross_entropy([1, 0, 0, 1], [0.9, 0.1, 0.2, 0.8]), "binary_cross_entropy"),
        (lambda: cross_entropy(0, 0.5), "not a distribution"),
        (lambda: cross_entropy([0], [[0.5, 0.5]], reduction="average"), "unknown reduction"),
        (lambda: cross_entropy([0], [[0.5, 0.5]], clip=1), "clip"),
        (lambda: entropy([0.5, 0.5], unit="bit"), "did you mean bits"),
        (lambda: binary_cross_entropy([1], [0.5, 0.5]), "differ"),
        (lambda: kl([0.5, 0.5], [1.0]), "differ"),
        (lambda: histogram_entropy([0, 0]), "not counts"),
        (lambda: histogram_entropy([-1, 2]), "not counts"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
