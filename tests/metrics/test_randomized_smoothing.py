"""Certificates: exact bounds, the known radius of a linear classifier, and how often they are wrong."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from helpers.pretend_device import PRETEND, Crossings
from rivals.base.errors import UserError
from rivals.base.rng import generator, on_device
from rivals.metrics.randomized_smoothing import (
    ABSTAIN,
    certified_radius,
    certify,
    lower_confidence_bound,
    sample_under_noise,
)


@given(st.integers(1, 500), st.data(), st.floats(1e-4, 0.4))
def test_the_bound_is_the_probability_at_which_the_count_has_probability_alpha(samples, data, alpha):
    count = data.draw(st.integers(1, samples))
    bound = lower_confidence_bound(count, samples, alpha)
    assert binom.sf(count - 1, samples, bound) == pytest.approx(alpha, rel=1e-6)
    assert bound <= count / samples


def test_half_the_samples_or_none_certify_nothing():
    assert lower_confidence_bound(0, 100, 0.001) == 0
    assert certified_radius(0, 100, 1.0, 0.001) == certified_radius(50, 100, 1.0, 0.001) == 0


def test_the_largest_radius_is_that_of_the_paper():
    """Cohen et al. 2019, sec. 3.2.2: if all N samples agree, sigma * Phi^-1(alpha^(1/N)); 3.8 sigma at N = 100,000."""
    assert certified_radius(1000, 1000, 0.5, 0.001) == pytest.approx(0.5 * norm.ppf(0.001 ** (1 / 1000)))
    assert certified_radius(100_000, 100_000, 1.0, 0.001) == pytest.approx(3.81, abs=0.01)


class Linear(torch.nn.Module):
    def __init__(self, dimensions=12):
        super().__init__()
        weights = torch.randn(dimensions, generator=generator("w"), dtype=torch.float64)
        self.weights = torch.nn.Parameter(weights / weights.norm())

    def forward(self, x):
        lead = x.flatten(1) @ self.weights
        return torch.stack([-lead, lead], dim=1)


def test_a_linear_classifier_is_certified_to_just_below_its_exact_radius():
    """Only noise along the normal matters: the prediction has probability Phi(d / sigma) at distance d, so the exact
    radius is d. The bound must be below it, by no more than the error of sampling."""
    model, sigma = Linear(), 0.25
    x = torch.rand(40, 3, 2, 2, generator=generator("x"), dtype=torch.float64)
    with torch.no_grad():
        exact = model(x)[:, 1].abs()
        found = list(certify(model, x, sigma, samples=20_000, alpha=0.001, seed=1))
        truth = model(x).argmax(1)
    most = sigma * norm.ppf(0.001 ** (1 / 20_000))
    certified = 0
    for image, distance in enumerate(exact.tolist()):
        one = found[image]
        if one.label == ABSTAIN:
            assert distance < 0.03
            continue
        certified += 1
        assert one.label == truth[image]
        assert one.radius <= min(distance, most) + 1e-9
        p = norm.cdf(distance / sigma)
        spread = 7 * math.sqrt(p * (1 - p) / 20_000) + 8 / 20_000
        assert one.radius >= min(sigma * norm.ppf(max(p - spread, 0.5)), most) - 1e-9
    assert certified > 20


def test_certificates_are_wrong_no_more_often_than_alpha():
    """At a radius of exactly d, a share alpha of the certificates may be larger; at alpha = 0.2 that can be counted."""
    model, sigma = Linear(), 0.5
    with torch.no_grad():
        wrong = []
        for seed in range(300):
            x = torch.rand(1, 12, generator=generator("x", seed), dtype=torch.float64)
            distance = float(model(x)[0, 1].abs())
            (one,) = certify(model, x, sigma, guesses=10, samples=50, alpha=0.2, seed=seed)
            wrong.append(one.radius > distance)
    assert 0 < sum(wrong) <= binom.ppf(0.999, 300, 0.2)


def test_certificates_do_not_depend_on_order_or_batch_size():
    model = Linear()
    x = torch.rand(5, 12, generator=generator("x"), dtype=torch.float64)
    with torch.no_grad():
        expected = list(certify(model, x, 0.5, samples=100))
        assert list(certify(model, x.flip(0), 0.5, samples=100, batch_size=7))[::-1] == expected
        assert list(certify(model, x[2:3], 0.5, samples=100)) == expected[2:3]
        assert list(certify(model, x, 0.5, samples=100, seed=1)) != expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0}, "a sigma of 0"),
        ({"sigma": 1, "alpha": 0.5}, "an alpha of 0.5"),
        ({"sigma": 1, "samples": 0}, "0 samples"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        next(certify(Linear(), torch.rand(1, 12), **options))


def test_on_the_cpu_the_noise_is_that_of_a_generator_in_blocks_of_100():
    image, seen = torch.rand(1, 2, 2, generator=generator("x")), []

    def model(x):
        seen.append(x)
        return x.flatten(1)

    counts = sample_under_noise(model, image, 0.5, 250, on_device(generator("noise"), image.device), batch_size=70)
    source = generator("noise")
    noise = torch.cat([torch.randn(100, 1, 2, 2, generator=source) for _ in range(3)])[:250]
    assert torch.equal(torch.cat(seen), image + 0.5 * noise)
    assert torch.equal(counts, torch.bincount((image + 0.5 * noise).flatten(1).argmax(1), minlength=4))


def test_nothing_comes_back_from_the_device_while_samples_are_drawn():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).to(PRETEND)
    image = torch.rand(1, 2, 2, device=PRETEND)
    with Crossings() as log, torch.no_grad():
        counts = sample_under_noise(net, image, 0.5, 250, on_device(generator("noise"), PRETEND), batch_size=100)
    assert (counts.shape, counts.device) == ((3,), PRETEND)
    assert log.lines == []
