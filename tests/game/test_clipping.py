"""Clipping: gradients above a norm are scaled down to it, over all weights together; the record has the norm before."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rivals import UserError
from rivals.api.training.classifier_factory import build_player
from rivals.base.duration import Duration
from rivals.base.schedules import Clock
from rivals.game.player import Player, adam, muon
from rivals.nets.factory import build_classifier
from rivals.recipes import HARDENING, ClassifierConfig


def stepped(max_norm: float) -> tuple[Player, float]:
    """A player of two weights after one step with the gradients (3, 0) and 4, and the norm that the step returned."""
    net = nn.Linear(2, 1)
    player = Player(net, adam(1e-3, beta1=0.5, max_norm=max_norm))
    net.weight.grad, net.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    return player, player.step(Clock(0), 1.0).item()


@pytest.mark.parametrize(("max_norm", "scale"), [(1.0, 0.2), (2.5, 0.5), (5.1, 1.0), (math.inf, 1.0)])
def test_the_optimizer_sees_gradients_of_at_most_the_norm(max_norm: float, scale: float) -> None:
    player, norm = stepped(max_norm)
    assert norm == pytest.approx(5.0)  # before clipping
    moments = [player.optimizer.state[weight]["exp_avg"] / 0.5 for weight in (player.net.weight, player.net.bias)]
    torch.testing.assert_close(moments[0], scale * torch.tensor([[3.0, 0.0]]), rtol=1e-5, atol=0)
    torch.testing.assert_close(moments[1], scale * torch.tensor([4.0]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("optimizer", [adam, muon])
@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan])
def test_a_norm_that_leaves_no_gradient_is_refused(optimizer, max_norm: float) -> None:
    with pytest.raises(UserError, match="leaves no gradient"):
        optimizer(1e-3, max_norm=max_norm)


def test_a_negative_clip_is_refused() -> None:
    with pytest.raises(UserError, match="clip"):
        ClassifierConfig(clip=-1.0)


def test_certified_training_clips() -> None:
    assert HARDENING["certified"]().clip > 0


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_a_run_clips_what_its_settings_say(clip: float) -> None:
    net = build_classifier("strided", size=8, channels=1, classes=2, widths=(2,))
    player = build_player(ClassifierConfig(clip=clip), net, Duration.parse("4 images"))
    assert player.optimizer_config.max_norm == (clip or math.inf)
