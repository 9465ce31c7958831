"""The Fréchet distance and FID-infinity: closed forms, singular covariances, bias."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rivals
from rivals.base.errors import UserError
from rivals.metrics import Moments, frechet_distance, frechet_infinity, frechet_of, moments_of


def normal(n, d, seed=0, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * scale + shift


def covariance(d, seed, rank=None):
    rows = np.random.default_rng(seed).standard_normal((rank or 2 * d, d))
    return rows.T @ rows / len(rows)


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


def test_moments_merge_and_are_saved(tmp_path):
    x = normal(50, 3)
    first, second, empty = moments_of(x[:20]), moments_of(x[20:]), Moments()
    np.savez(tmp_path / "m.npz", **first.arrays())
    with np.load(tmp_path / "m.npz") as saved:
        both = Moments.from_arrays(saved)
    for other in (empty, second):
        both.merge(other)
    empty.merge(both)
    for found in (both, empty):
        assert found.n == 50
        torch.testing.assert_close(found.mean, x.mean(0))
        torch.testing.assert_close(found.cov, torch.cov(x.T))
    assert second.n == 30
    torch.testing.assert_close(second.cov, torch.cov(x[20:].T))


def test_moments_of_float32_features_are_accumulated_in_double_precision():
    """The variance of numbers near 1000 in float32 is lost if squares are summed in float32."""
    x = normal(5000, 2, shift=1000.0).float()
    np.testing.assert_allclose(moments_of(x).cov, np.cov(x.numpy().astype(np.float64), rowvar=False), rtol=1e-9)


def test_the_distance_of_gaussians_with_diagonal_covariances_has_a_closed_form():
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
def test_the_distance_agrees_with_the_matrix_square_root(d, seed):
    one, two = covariance(d, seed), covariance(d, seed + 1)
    root = scipy.linalg.sqrtm(one @ two)
    expected = np.trace(one + two - 2 * root.real)
    zero = np.zeros(d)
    assert frechet_distance(zero, one, zero, two) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert frechet_distance(zero, two, zero, one) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("ranks", [(3, 40), (40, 3), (3, 5), (3, 3)])
def test_singular_covariances_are_exact(ranks):
    """Rotated diagonal covariances: of known rank, but with no eigenvalue of exactly 0."""
    d = 40
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))[0]
    spreads = [np.where(np.arange(d) < rank, np.linspace(1, 2, d), 0) for rank in ranks]
    one, two = (rotation @ np.diag(spread**2) @ rotation.T for spread in spreads)
    expected = ((spreads[0] - spreads[1]) ** 2).sum()
    found = frechet_distance(np.zeros(d), one, np.zeros(d), two)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_constant_features_change_nothing():
    """Features that are the same for all images, as of dead units."""
    x, y = normal(300, 20), normal(300, 20, 1, shift=0.2)
    dead = torch.zeros(300, 5, dtype=torch.float64)
    expected = frechet_of(x, y)
    assert frechet_of(torch.cat([dead, x], 1), torch.cat([dead, y], 1)) == pytest.approx(expected, rel=1e-9)
    assert frechet_of(torch.cat([dead, x], 1), torch.cat([dead + 1, y], 1)) == pytest.approx(expected + 5, rel=1e-9)


def test_without_variance_the_distance_is_that_of_the_means():
    zero = np.zeros((3, 3))
    assert frechet_distance(np.zeros(3), zero, np.ones(3), zero) == 3
    assert frechet_distance(np.zeros(3), zero, np.ones(3), np.eye(3)) == pytest.approx(6)


def test_identical_shifted_and_swapped_sets():
    x, y = normal(500, 8), normal(400, 8, 1, shift=0.3)
    assert frechet_of(x, x) == pytest.approx(0, abs=1e-12)
    assert frechet_of(x, x + 2) == pytest.approx(8 * 4)
    assert frechet_of(x, y) == pytest.approx(frechet_of(y, x))
    assert frechet_of(x.numpy(), y.flip(0).float()) == pytest.approx(frechet_of(x, y), rel=1e-4)


@pytest.mark.parametrize("sizes", [(20, 30), (20, 300), (300, 20), (50, 51)])
def test_with_fewer_images_than_dimensions_the_distance_is_exact_with_a_warning(sizes):
    x, y = normal(sizes[0], 50), normal(sizes[1], 50, 1, shift=0.1)
    with pytest.warns(UserWarning, match=r"images for 50 dimensions: the Fréchet distance is biased upward"):
        found = frechet_of(x, y)
    a, b = moments_of(x), moments_of(y)
    assert found == pytest.approx(frechet_distance(a.mean, a.cov, b.mean, b.cov), rel=1e-9)
    # And by definition, from the symmetric S1^(1/2) S2 S1^(1/2).
    values, vectors = np.linalg.eigh(a.cov.numpy())
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    inner = np.linalg.svd(root @ scipy.linalg.sqrtm(b.cov.numpy()).real, compute_uv=False).sum()
    expected = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * inner
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_the_distance_to_one_repeated_image_includes_the_whole_variance():
    x = normal(500, 4)
    expected = x.mean(0).square().sum() + moments_of(x).cov.trace()
    assert frechet_of(x, torch.zeros(500, 4)) == pytest.approx(float(expected), rel=1e-6)


def test_noise_is_farther_than_the_other_half_of_the_data():
    x = normal(2000, 16)
    assert frechet_of(x[:1000], x[1000:]) < 1 < frechet_of(x[:1000], torch.rand(1000, 16, dtype=torch.float64) * 20)


def test_fid_infinity_removes_the_bias_of_few_images():
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
    "50 images of 16 dimensions are too few to extrapolate: give 64": lambda: frechet_infinity(
        normal(99, 16), normal(50, 16)
    ),
    "2 sizes do not determine a line": lambda: frechet_infinity(TWO, TWO, sizes=2),
    "real features have 3 dimensions and fake ones 2": lambda: frechet_infinity(moments_of(THREE), normal(99, 2)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_in_one_line(message):
    with pytest.raises(UserError, match=message) as raised:
        BAD[message]()
    assert "\n" not in str(raised.value)


def test_the_lazily_resolved_names_exist():
    for name in rivals.metrics.__all__:
        assert getattr(rivals.metrics, name) is not None
        assert name in dir(rivals.metrics)
    with pytest.raises(AttributeError, match="no attribute 'frechett'"):
        rivals.metrics.frechett  # noqa: B018
