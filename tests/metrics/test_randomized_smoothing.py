"""Certificates: exact bounds, the exact answer for a linear classifier, and what is certain about them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from rivals.base.errors import UserError
from rivals.base.seeds import generator
from rivals.metrics.certification import ABSTAINS, certify, lower_bound, radius


@given(st.integers(1, 500), st.data(), st.floats(1e-4, 0.4))
def test_the_bound_is_the_chance_at_which_the_count_has_probability_alpha(samples, data, alpha):
    count = data.draw(st.integers(1, samples))
    bound = lower_bound(count, samples, alpha)
    assert binom.sf(count - 1, samples, bound) == pytest.approx(alpha, rel=1e-6)
    assert bound <= count / samples


def test_no_success_and_half_the_draws_certify_nothing():
    assert lower_bound(0, 100, 0.001) == 0
    assert radius(0, 100, 1.0, 0.001) == radius(50, 100, 1.0, 0.001) == 0


def test_the_largest_radius_is_that_of_the_paper():
    """Cohen et al. 2019, sec. 3.2.2: with N draws all alike, sigma * Phi^-1(alpha^(1/N)); 3.8 sigma at N = 100,000."""
    assert radius(1000, 1000, 0.5, 0.001) == pytest.approx(0.5 * norm.ppf(0.001 ** (1 / 1000)))
    assert radius(100_000, 100_000, 1.0, 0.001) == pytest.approx(3.81, abs=0.01)


class Linear(torch.nn.Module):
    def __init__(self, dimensions=12):
        super().__init__()
        weights = torch.randn(dimensions, generator=generator("w"), dtype=torch.float64)
        self.weights = torch.nn.Parameter(weights / weights.norm())

    def forward(self, x):
        lead = x.flatten(1) @ self.weights
        return torch.stack([-lead, lead], dim=1)


def test_a_linear_classifier_is_certified_to_just_below_its_exact_radius():
    """Noise along the normal alone matters: the answer has probability Phi(d / sigma) at distance d, so the exact
    radius is d. The bound must be below it, and by no more than counting costs."""
    model, sigma = Linear(), 0.25
    x = torch.rand(40, 3, 2, 2, generator=generator("x"), dtype=torch.float64)
    with torch.no_grad():
        exact = model(x)[:, 1].abs()
        found = list(certify(model, x, sigma, samples=20_000, alpha=0.001, seed=1))
        truth = model(x).argmax(1)
    most = sigma * norm.ppf(0.001 ** (1 / 20_000))
    certain = 0
    for image, distance in enumerate(exact.tolist()):
        one = found[image]
        if one.label == ABSTAINS:
            assert distance < 0.03
            continue
        certain += 1
        assert one.label == truth[image]
        assert one.radius <= min(distance, most) + 1e-9
        p = norm.cdf(distance / sigma)
        spread = 7 * math.sqrt(p * (1 - p) / 20_000) + 8 / 20_000
        assert one.radius >= min(sigma * norm.ppf(max(p - spread, 0.5)), most) - 1e-9
    assert certain > 20


def test_a_certificate_is_wrong_as_rarely_as_it_says():
    """At a radius of exactly d, alpha of the certificates may claim more; with alpha = 0.2 that can be counted."""
    model, sigma = Linear(), 0.5
    with torch.no_grad():
        wrong = []
        for seed in range(300):
            x = torch.rand(1, 12, generator=generator("x", seed), dtype=torch.float64)
            distance = float(model(x)[0, 1].abs())
            (one,) = certify(model, x, sigma, guesses=10, samples=50, alpha=0.2, seed=seed)
            wrong.append(one.radius > distance)
    assert 0 < sum(wrong) <= binom.ppf(0.999, 300, 0.2)


def test_order_and_batches_change_nothing():
    model = Linear()
    x = torch.rand(5, 12, generator=generator("x"), dtype=torch.float64)
    with torch.no_grad():
        whole = list(certify(model, x, 0.5, samples=100))
        assert list(certify(model, x.flip(0), 0.5, samples=100, batch_size=7))[::-1] == whole
        assert list(certify(model, x[2:3], 0.5, samples=100)) == whole[2:3]
        assert list(certify(model, x, 0.5, samples=100, seed=1)) != whole


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"sigma": 0}, "a sigma of 0"),
        ({"sigma": 1, "alpha": 0.5}, "an alpha of 0.5"),
        ({"sigma": 1, "samples": 0}, "0 samples"),
    ],
)
def test_numbers_that_certify_nothing_are_refused(knobs, says):
    with pytest.raises(UserError, match=says):
        next(certify(Linear(), torch.rand(1, 12), **knobs))
