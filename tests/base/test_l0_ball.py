"""The L0 ball: its exact projection by brute force, samples, and what it refuses."""

import itertools

import pytest
import torch

from helpers.models import normal, uniform
from helpers.pretend_device import PRETEND, WithoutFloat64
from helpers.refusals import named
from rivals import L0
from rivals.base.norm_balls import ball_for
from rivals.base.rng import generator

X = uniform(6, 2, 2, 2)
V = X + normal(6, 2, 2, 2, seed="v")
EVERY = [L0(k, pixels=pixels) for pixels in (False, True) for k in (0, 1, 3)]
every = pytest.mark.parametrize("ball", EVERY, ids=lambda ball: f"{ball} pixels={ball.pixels}")


def test_bounds_and_radii_may_be_on_a_device_without_float64():
    with WithoutFloat64():
        assert L0(torch.ones(2, device=PRETEND), bounds=(0.0, torch.ones((), device=PRETEND))).eps.device == PRETEND


def nearest_by_brute_force(v, x, ball):
    """Of all sets of k places, that with the nearest point of the box; for one image (C, H, W)."""
    places = list(itertools.product(range(2), range(2))) if ball.pixels else list(itertools.product(range(2), repeat=3))
    best, least = None, float("inf")
    for chosen in itertools.combinations(places, int(ball.eps)):
        z = x.clone()
        for place in chosen:
            index = (slice(None), *place) if ball.pixels else place
            z[index] = v[index].clamp(0, 1)
        if (z - v).square().sum() < least:
            best, least = z, (z - v).square().sum()
    return best


@every
def test_the_projection_is_the_nearest_point_of_ball_and_box(ball):
    projected = ball.project(V, X)
    expected = torch.stack([nearest_by_brute_force(v, x, ball) for v, x in zip(V, X, strict=True)])
    torch.testing.assert_close((projected - V).flatten(1).norm(dim=1), (expected - V).flatten(1).norm(dim=1))
    assert ball.contains(projected, X).all()


@every
def test_the_linear_maximum_beats_every_other_point_of_the_ball(ball):
    gradient = normal(6, 2, 2, 2, seed="gradient")
    best = (gradient * (ball.linear_max(X, gradient) - X)).flatten(1).sum(1)
    assert ball.contains(ball.linear_max(X, gradient), X).all()
    for seed in range(20):
        other = ball.sample_sphere(X, [generator(seed, i) for i in range(6)])
        assert (best >= (gradient * (other - X)).flatten(1).sum(1) - 1e-12).all()


@every
def test_samples_change_eps_places_and_lie_in_the_box(ball):
    generators = [generator(i) for i in range(6)]
    for sample in (ball.sample, ball.sample_sphere):
        x_adv = sample(X, generators)
        assert ball.contains(x_adv, X).all()
        assert (ball.distance(x_adv, X) == ball.eps).all()


def test_a_radius_for_each_image_and_pixels_that_count_once():
    ball = L0(torch.tensor([0, 1, 2, 3, 4, 9]))
    assert ball.distance(ball.project(V, X), X).tolist() == [0, 1, 2, 3, 4, 8]
    changed = X.clone()
    changed[:, :, 0, 1] = 0
    assert (L0(1, pixels=True).distance(changed, X) == 1).all()
    assert (L0(1).distance(changed, X) == 2).all()
    assert not L0(1).contains(changed, X).any()


def test_bad_radii_are_refused_in_one_line():
    with named("an L0 eps of 0.5 is no whole number of components: give one, such as 10"):
        L0(0.5)
    with named("no whole number of pixels"):
        L0(torch.tensor([1.0, 1.5]), pixels=True)
    with named("without channels: count components"):
        L0(1, pixels=True).project(torch.rand(2, 5), torch.rand(2, 5))
    with named("pixels are counted in L0, the norm is linf: leave --pixels out"):
        ball_for("linf", 0.1, pixels=True)
