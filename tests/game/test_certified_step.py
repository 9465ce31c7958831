"""What certified training sees: batch norm's statistics are those of clean images, and the running ones move once."""

import copy

import pytest
import torch

from helpers.bounded_networks import Residual, randomized
from rivals.base.norm_balls import Linf
from rivals.base.schedules import Clock
from rivals.bounds.regions import region_of
from rivals.bounds.tracing import trace
from rivals.bounds.training_bounds import TrainingBounds
from rivals.game.certified_step import CertifiedStep
from rivals.losses.certified import mtl_ibp, regularized

IMAGES = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(3)) * 255
Y = torch.arange(6) % 5


def step_of(net, attack):
    return CertifiedStep(
        {"classifier": net},
        "classifier",
        lambda: (IMAGES, Y),
        batch_size=6,
        clock=Clock(0),
        augment=None,
        needs_input_grad=False,
        attack=lambda net, x, y, clock: attack(x),
        bound=lambda net, step: TrainingBounds(trace(net, step.x), step.x, step.y, region_of(step.x, Linf(0.05))),
        progress=lambda clock: 0.5,
    )


@pytest.fixture
def net():
    return randomized(Residual(), "certified step").train()


def test_running_statistics_move_once_and_by_clean_images(net):
    other = copy.deepcopy(net)
    loss = regularized(mtl_ibp(0.5))
    sum(loss(step_of(net, lambda x: 1 - x)).values()).backward()
    other(IMAGES / 255)
    for name in ("norm.running_mean", "norm.running_var"):
        buffer = other.get_buffer(name)
        torch.testing.assert_close(net.get_buffer(name), buffer)
    assert all(bool(weight.grad.abs().sum() > 0) for weight in net.parameters())


def test_adversarial_logits_are_by_the_statistics_of_clean_images(net):
    step = step_of(net, lambda x: x.flip(0))
    torch.testing.assert_close(step.logits_adv, step.logits.flip(0))
    # Of other images they are not those of a pass in training, which has statistics of its own.
    changed = step_of(net, lambda x: (x + 0.3).clamp(0, 1))
    own = copy.deepcopy(net)((IMAGES / 255 + 0.3).clamp(0, 1))
    assert not torch.allclose(changed.logits_adv, own, atol=1e-3)
