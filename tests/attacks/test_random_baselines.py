"""Noise and everyday distortions."""

import math

import pytest
import torch
from torch import nn

from rivals.attacks import AugmentRanges, augment, noise
from rivals.base.norm_balls import L1, L2, Linf
from rivals.base.rng import generator


class Level(nn.Module):
    """Class 1 where the mean value lies above a level."""

    def __init__(self, level):
        super().__init__()
        self.level = level

    def forward(self, x):
        height = x.flatten(1).mean(1) - self.level
        return torch.stack([-height, height], 1)


ZERO = torch.zeros(20, dtype=torch.int64)


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5), L1(2.0)], ids=str)
def test_the_best_of_many_draws_is_better_than_one(kind, ball):
    x = torch.full((20, 3, 4, 4), 0.5)
    heights = []
    for trials in (1, 30):
        x_adv = noise(Level(0.9), x, ZERO, ball, kind=kind, trials=trials)
        assert ball.contains(x_adv, x).all()
        heights.append(x_adv.flatten(1).mean(1))
    assert (heights[1] >= heights[0]).all()
    assert (heights[1] > heights[0]).double().mean() > 0.8


@pytest.mark.parametrize(("ball", "length"), [(Linf(0.1), 0.1), (L2(0.5), 0.5), (L1(3.0), 3 * math.sqrt(2 / math.pi))])
def test_gaussian_noise_reaches_about_the_edge_of_the_ball(ball, length):
    x = torch.full((20, 3, 16, 16), 0.5)
    x_adv = noise(Level(0.9), x, ZERO, ball, kind="gaussian")
    assert torch.allclose(ball.distance(x_adv, x), torch.tensor(length), rtol=0.1)


def test_noise_stops_at_the_first_draw_that_fools():
    x = torch.full((20, 3, 4, 4), 0.5)
    calls = []
    model = Level(0.5 + 1e-9)
    model.register_forward_hook(lambda *_: calls.append(1))
    x_adv = noise(model, x, ZERO, Linf(0.1), trials=500)
    assert (model(x_adv).argmax(1) == 1).all()
    assert len(calls) < 50


def distort(reach, x):
    return reach.distort(x, [generator("distort", i) for i in range(len(x))])


def test_ranges_of_zero_change_nothing():
    x = torch.rand(4, 3, 9, 7, generator=generator("pictures"))
    assert torch.allclose(distort(AugmentRanges(0, 0, 0, 0), x), x, atol=1e-5)


def test_brightness_is_one_bounded_offset_an_image():
    x = 0.4 + 0.2 * torch.rand(50, 3, 8, 8, generator=generator("pictures"))
    change = (distort(AugmentRanges(0, 0, 0.1, 0), x) - x).flatten(1)
    assert (change.amax(1) - change.amin(1) < 1e-5).all()
    assert 0.08 < change.abs().max() <= 0.1 + 1e-6
    assert (change.mean(1) > 0).any()
    assert (change.mean(1) < 0).any()


def spot(*at, height=32, width=32):
    """50 images, black but for a small square round a place."""
    x = torch.zeros(50, 1, height, width)
    x[:, :, at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2] = 1
    return x


def center(x):
    """Where the light of each image is, in pixels from its middle (down, across)."""
    rows, columns = (torch.arange(size) - (size - 1) / 2 for size in x.shape[2:])
    light = x.sum((1, 2, 3))
    return torch.stack([(x.sum((1, 3)) * rows).sum(1) / light, (x.sum((1, 2)) * columns).sum(1) / light], 1)


def test_shifts_are_bounded_shares_of_the_sides():
    moved = center(distort(AugmentRanges(0.2, 0, 0, 0), spot(20, 30, height=40, width=60))) - torch.tensor([0.5, 0.5])
    assert (moved.abs() <= torch.tensor([8.01, 12.01])).all()
    assert (moved.abs().amax(0) > torch.tensor([7.0, 10.5])).all()


@pytest.mark.parametrize(("height", "width"), [(33, 33), (33, 65)])
def test_turns_are_rotations_by_a_bounded_angle_also_of_oblong_pictures(height, width):
    before = spot(8, width // 2, height=height, width=width)
    after = center(distort(AugmentRanges(0, 30, 0, 0), before))
    radius = center(before).norm(dim=1)
    assert torch.allclose(after.norm(dim=1), radius, rtol=0.02)
    angles = torch.atan2(after[:, 1], -after[:, 0]).rad2deg()
    assert angles.abs().max() <= 30.5
    assert angles.max() > 25
    assert angles.min() < -25


def test_crops_magnify_by_a_bounded_factor():
    before = spot(12, 12)
    grown = center(distort(AugmentRanges(0, 0, 0, 0.25), before)) / center(before)
    assert (grown > 0.98).all()
    assert (grown < 1 / 0.75 + 0.03).all()
    assert grown.max() > 1.25
    assert torch.allclose(grown[:, 0], grown[:, 1], atol=0.02)


def test_augment_keeps_the_worst_of_its_trials():
    x = torch.full((20, 3, 8, 8), 0.5)
    reach = AugmentRanges(0, 0, 0.2, 0)
    model = Level(0.65)
    assert (model(augment(model, x, ZERO, reach, trials=60)).argmax(1) == 1).all()
    heights = [augment(Level(0.9), x, ZERO, reach, trials=trials).mean((1, 2, 3)) for trials in (1, 10)]
    assert (heights[1] >= heights[0]).all()
    assert heights[1].mean() > 0.64
    assert heights[1].max() <= 0.7 + 1e-6
    aimed = augment(model, x, 1 - ZERO, reach, targets=1 - ZERO, trials=60)
    assert (model(aimed).argmax(1) == 1).all()
