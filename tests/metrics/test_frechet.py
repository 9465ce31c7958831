"""Distances and scores of sets of features: closed forms, known cases, and what does not matter to them."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rivals
from rivals.base.errors import UserError
from rivals.metrics import (
    Moments,
    cmmd,
    frechet_distance,
    frechet_infinity,
    frechet_of,
    inception_score,
    kid,
    moments_of,
)


def normal(n, d, seed=0, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * scale + shift


def covariance(d, seed, rank=None):
    rows = np.random.default_rng(seed).standard_normal((rank or 2 * d, d))
    return rows.T @ rows / len(rows)


# Moments


@given(st.integers(2, 60), st.lists(st.integers(1, 59), max_size=5), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_moments_do_not_depend_on_the_batches(n, cuts, seed):
    x = normal(n, 4, seed, shift=100.0)
    moments = Moments()
    for part in torch.tensor_split(x, sorted({cut for cut in cuts if cut < n})):
        moments.add(part)
    assert moments.n == n
    np.testing.assert_allclose(moments.mean, x.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.cov, np.cov(x.numpy(), rowvar=False), rtol=1e-9, atol=1e-12)


def test_moments_merge_and_are_kept(tmp_path):
    x = normal(50, 3)
    first, second, none = moments_of(x[:20]), moments_of(x[20:]), Moments()
    np.savez(tmp_path / "m.npz", **first.arrays())
    with np.load(tmp_path / "m.npz") as kept:
        both = Moments.from_arrays(kept)
    for other in (none, second):
        both.merge(other)
    none.merge(both)
    for found in (both, none):
        assert found.n == 50
        torch.testing.assert_close(found.mean, x.mean(0))
        torch.testing.assert_close(found.cov, torch.cov(x.T))
    assert second.n == 30
    torch.testing.assert_close(second.cov, torch.cov(x[20:].T))


def test_moments_of_single_precision_keep_what_it_would_lose():
    """The variance of numbers near 1000 in float32 is lost if squares are summed in float32."""
    x = normal(5000, 2, shift=1000.0).float()
    np.testing.assert_allclose(moments_of(x).cov, np.cov(x.numpy().astype(np.float64), rowvar=False), rtol=1e-9)


# The Frechet distance


def test_the_distance_of_normals_with_diagonal_covariances_is_known():
    """``|m1 - m2|^2 + sum (s1 - s2)^2``."""
    a, b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.5, 0.0])
    shift = np.array([1.0, -2.0, 0.5])
    expected = (shift**2).sum() + ((a - b) ** 2).sum()
    zero = np.zeros(3)
    assert frechet_distance(zero, np.diag(a**2), shift, np.diag(b**2)) == pytest.approx(expected, rel=1e-12)
    as_tensors = [torch.from_numpy(each) for each in (zero, np.diag(a**2), shift, np.diag(b**2))]
    assert frechet_distance(*as_tensors) == pytest.approx(expected, rel=1e-12)


@given(st.integers(1, 12), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_distance_agrees_with_the_root_of_the_matrix(d, seed):
    one, two = covariance(d, seed), covariance(d, seed + 1)
    root = scipy.linalg.sqrtm(one @ two)
    expected = np.trace(one + two - 2 * root.real)
    zero = np.zeros(d)
    assert frechet_distance(zero, one, zero, two) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert frechet_distance(zero, two, zero, one) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("ranks", [(3, 40), (40, 3), (3, 5), (3, 3)])
def test_singular_covariances_are_exact(ranks):
    """A turned space, in which the covariances are known: zeros beyond the rank, and no eigenvalue is exactly 0."""
    d = 40
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))[0]
    spreads = [np.where(np.arange(d) < rank, np.linspace(1, 2, d), 0) for rank in ranks]
    one, two = (turn @ np.diag(spread**2) @ turn.T for spread in spreads)
    expected = ((spreads[0] - spreads[1]) ** 2).sum()
    found = frechet_distance(np.zeros(d), one, np.zeros(d), two)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_dead_features_change_nothing():
    """Values that are the same for all images, as a network's dead units or a picture's black rim."""
    x, y = normal(300, 20), normal(300, 20, 1, shift=0.2)
    dead = torch.zeros(300, 5, dtype=torch.float64)
    expected = frechet_of(x, y)
    assert frechet_of(torch.cat([dead, x], 1), torch.cat([dead, y], 1)) == pytest.approx(expected, rel=1e-9)
    assert frechet_of(torch.cat([dead, x], 1), torch.cat([dead + 1, y], 1)) == pytest.approx(expected + 5, rel=1e-9)


def test_no_variance_at_all_leaves_the_means():
    zero = np.zeros((3, 3))
    assert frechet_distance(np.zeros(3), zero, np.ones(3), zero) == 3
    assert frechet_distance(np.zeros(3), zero, np.ones(3), np.eye(3)) == pytest.approx(6)


def test_identical_shifted_and_exchanged_sets():
    x, y = normal(500, 8), normal(400, 8, 1, shift=0.3)
    assert frechet_of(x, x) == pytest.approx(0, abs=1e-12)
    assert frechet_of(x, x + 2) == pytest.approx(8 * 4)
    assert frechet_of(x, y) == pytest.approx(frechet_of(y, x))
    assert frechet_of(x.numpy(), y.flip(0).float()) == pytest.approx(frechet_of(x, y), rel=1e-4)


@pytest.mark.parametrize("sizes", [(20, 30), (20, 300), (300, 20), (50, 51)])
def test_fewer_images_than_dimensions_are_exact_and_warned_of(sizes):
    x, y = normal(sizes[0], 50), normal(sizes[1], 50, 1, shift=0.1)
    with pytest.warns(UserWarning, match=r"images for 50 dimensions: the Frechet distance is biased upwards"):
        found = frechet_of(x, y)
    a, b = moments_of(x), moments_of(y)
    assert found == pytest.approx(frechet_distance(a.mean, a.cov, b.mean, b.cov), rel=1e-9)
    # And by the definition: the eigenvalues of a root, of S1^(1/2) S2 S1^(1/2), that is symmetric.
    values, vectors = np.linalg.eigh(a.cov.numpy())
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    inner = np.linalg.svd(root @ scipy.linalg.sqrtm(b.cov.numpy()).real, compute_uv=False).sum()
    expected = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * inner
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_one_image_repeated_is_as_far_as_the_whole_variance():
    x = normal(500, 4)
    expected = x.mean(0).square().sum() + moments_of(x).cov.trace()
    assert frechet_of(x, torch.zeros(500, 4)) == pytest.approx(float(expected), rel=1e-6)


def test_noise_is_farther_than_the_other_half():
    x = normal(2000, 16)
    assert frechet_of(x[:1000], x[1000:]) < 1 < frechet_of(x[:1000], torch.rand(1000, 16, dtype=torch.float64) * 20)


# FID-infinity


def test_the_bias_of_few_images_is_taken_out():
    d, spread = 16, 1.2
    real = Moments(10**9, torch.zeros(d, dtype=torch.float64), (10**9 - 1) * torch.eye(d, dtype=torch.float64))
    truth, fake = d * (spread - 1) ** 2, normal(2000, d, scale=spread)
    found, part = frechet_infinity(real, fake), moments_of(fake[:400])
    plain = frechet_distance(real.mean, real.cov, part.mean, part.cov)
    assert abs(found.value - truth) < 0.1 < plain - truth
    assert 0 < found.error < 0.1
    assert found == frechet_infinity(real, fake)
    assert found != frechet_infinity(real, fake, seed=1)
    sample = normal(4000, d, 7)
    assert frechet_infinity(sample, fake) == frechet_infinity(moments_of(sample), fake)


# KID and CMMD


def plain_mmd(x, y, kernel, unbiased):
    """By three double loops over the definition."""
    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j or not unbiased)
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j or not unbiased)
    xy = sum(kernel(a, b) for a in x for b in y)
    ways = (n * (n - 1), m * (m - 1)) if unbiased else (n * n, m * m)
    return xx / ways[0] + yy / ways[1] - 2 * xy / (n * m)


def test_kid_is_its_definition():
    x, y = normal(12, 3).numpy(), normal(12, 3, 1, shift=0.5).numpy()
    expected = plain_mmd(x, y, lambda a, b: (a @ b / 3 + 1) ** 3, unbiased=True)
    assert kid(x, y, subsets=3, size=12).value == pytest.approx(expected, rel=1e-12)


def test_kid_is_unbiased_and_its_error_is_honest():
    """Over fresh sets of equal distributions the mean is 0, and values spread as the error says."""
    found = [kid(normal(200, 4, 2 * i), normal(200, 4, 2 * i + 1), 10, 100, seed=i) for i in range(60)]
    values, error = np.array([each.value for each in found]), np.mean([each.error for each in found])
    assert abs(values.mean()) < 3 * values.std() / 60**0.5
    assert values.min() < 0
    assert 0.7 < values.std() / error < 1.4


def test_kid_of_a_shift_and_of_a_seed():
    x, y = normal(600, 4), normal(500, 4, 1, shift=1.0)
    found = kid(x, y, size=200)
    assert found.value > 5 * found.error
    assert found == kid(x, y, size=200)
    assert found.value != kid(x, y, size=200, seed=1).value
    assert kid(x.float(), y.float(), size=200).value == pytest.approx(found.value, rel=1e-5)
    assert kid(x, x, size=600, subsets=2).value < 0  # unbiased: a set meets itself nearer than it should


def test_cmmd_is_its_definition():
    x, y = normal(9, 5).numpy(), normal(7, 5, 1, shift=0.5).numpy()
    units = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (x, y)]
    expected = plain_mmd(*units, lambda a, b: math.exp(-((a - b) ** 2).sum() / 200), unbiased=False)
    assert cmmd(x, y) == pytest.approx(1000 * expected, rel=1e-9)
    assert cmmd(3 * x, y) == pytest.approx(cmmd(x, y), rel=1e-12)
    assert cmmd(x, x) == pytest.approx(0, abs=1e-12)


def test_cmmd_in_blocks_is_the_same(monkeypatch):
    x, y = normal(50, 5), normal(40, 5, 1, shift=0.5)
    whole = cmmd(x, y)
    monkeypatch.setattr("rivals.metrics.kernel._BLOCK", 7)
    assert cmmd(x, y) == pytest.approx(whole, rel=1e-9)
    assert cmmd(x.flip(0), y) == pytest.approx(whole, rel=1e-9)


# The Inception Score


def test_the_score_is_the_number_of_classes_at_best_and_one_at_worst():
    sure = torch.eye(8).repeat(30, 1)
    assert inception_score(sure, splits=1) == (pytest.approx(8), None)
    assert inception_score(torch.full((100, 8), 1 / 8)).value == pytest.approx(1)
    assert inception_score(sure[:1].repeat(100, 1)).value == pytest.approx(1)


def test_the_score_is_its_definition():
    logits = normal(43, 5)
    p = scipy.special.softmax(logits.numpy(), axis=1)
    parts = [p[i * 43 // 4 : (i + 1) * 43 // 4] for i in range(4)]
    expected = [np.exp(scipy.stats.entropy(part, part.mean(0), axis=1).mean()) for part in parts]
    found = inception_score(logits, 4, logits=True, seed=None)
    assert found.value == pytest.approx(np.mean(expected), rel=1e-9)
    assert found.error * 3**0.5 == pytest.approx(np.std(expected), rel=1e-9)
    assert inception_score(p, 4, seed=None) == pytest.approx(found, rel=1e-9)


def test_images_sorted_by_class_are_shuffled_first():
    by_class = torch.eye(10).repeat_interleave(200, 0)
    assert inception_score(by_class, seed=None).value == pytest.approx(1)
    assert inception_score(by_class).value > 9
    assert inception_score(by_class) == inception_score(by_class)


# Bad input


NAN = torch.tensor([[0.0, 1.0], [0.0, torch.nan], [1.0, 1.0]])
TWO, THREE = torch.zeros(5, 2), torch.zeros(5, 3)
BAD = {
    "the fake set is empty: give 1 image or more": lambda: frechet_of(TWO, TWO[:0]),
    "the fake set has 1 image: give 2 or more, since one has no covariance": lambda: frechet_of(TWO, TWO[:1]),
    "no covariance of 1 image: give 2 or more": lambda: moments_of(TWO[:1]).cov,
    "real features have 2 dimensions and fake ones 3: take both from one layer": lambda: frechet_of(TWO, THREE),
    "features of 3 dimensions after features of 2": lambda: moments_of(TWO).add(THREE),
    "the real features of image 1 are not finite": lambda: frechet_of(NAN, TWO),
    "real features have the shape .2, 3, 4.: give a matrix": lambda: frechet_of(torch.zeros(2, 3, 4), TWO),
    "cov2 has the shape .3, 3. and mean1 .2,.": lambda: frechet_distance(TWO[0], np.eye(2), TWO[0], np.eye(3)),
    "cov1 has the shape .2,.: give a square matrix": lambda: frechet_distance(TWO[0], TWO[0], TWO[0], np.eye(2)),
    "mean2 has values that are not finite": lambda: frechet_distance(TWO[0], np.eye(2), NAN[1], np.eye(2)),
    "cov2 has the negative variance -1": lambda: frechet_distance(TWO[0], np.eye(2), TWO[0], -np.eye(2)),
    "the fake set has 5 images: give 1000 or more, or take smaller subsets": lambda: kid(normal(1000, 2), TWO),
    "1 subsets of 1000: take 2 or more": lambda: kid(TWO, TWO, subsets=1),
    "a sigma of 0 compares nothing": lambda: cmmd(TWO + 1, TWO + 1, sigma=0),
    "5 images of the fake set have embeddings of length 0": lambda: cmmd(TWO + 1, TWO),
    "the probability set has 5 images: give 10 or more": lambda: inception_score(TWO + 0.5),
    "0 splits": lambda: inception_score(TWO + 0.5, 0),
    "pass logits=True": lambda: inception_score(TWO, 2),
    "50 images of 16 dimensions are too few to extrapolate: give 64": lambda: frechet_infinity(
        normal(99, 16), normal(50, 16)
    ),
    "2 sizes make no line": lambda: frechet_infinity(TWO, TWO, sizes=2),
    "real features have 3 dimensions and fake ones 2": lambda: frechet_infinity(moments_of(THREE), normal(99, 2)),
}


@pytest.mark.parametrize("says", BAD)
def test_bad_input_gets_one_line(says):
    with pytest.raises(UserError, match=says) as raised:
        BAD[says]()
    assert "\n" not in str(raised.value)


def test_the_names_are_there():
    for name in rivals.metrics.__all__:
        assert getattr(rivals.metrics, name) is not None
        assert name in dir(rivals.metrics)
    with pytest.raises(AttributeError, match="no attribute 'frechett'"):
        rivals.metrics.frechett  # noqa: B018
