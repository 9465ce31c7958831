"""Muon: its matrix step, which weights it takes, and that a player which uses it resumes exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from rivals import UserError
from rivals.base.schedules import Clock
from rivals.game.muon import Muon, orthogonalize
from rivals.game.player import Player, muon


def net() -> nn.Module:
    torch.manual_seed(0)
    hidden = nn.Conv2d(4, 6, 3, padding=1)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), hidden, nn.Flatten(), nn.Linear(6 * 64, 3))


def learn(player: Player, steps: range) -> float:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        y = torch.randint(3, (32,), generator=generator)
        x = torch.rand(32, 1, 8, 8, generator=generator) * 0.5 + y.view(-1, 1, 1, 1) / 4
        loss = cross_entropy(player.net(x), y)
        loss.backward()
        player.step(Clock(32 * step), 1.0)
    return loss.item()


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (1, 7)])
def test_singular_values_come_near_to_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalize(matrix)
    values = torch.linalg.svdvals(found)
    assert values.max() < 1.3
    large = s / s.norm() > 0.05  # smaller ones need more rounds than are taken
    assert values[: int(large.sum())].min() > 0.5
    exact = u @ v
    assert torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.95


def test_a_zero_gradient_moves_nothing() -> None:
    assert orthogonalize(torch.zeros(3, 4)).abs().max() == 0


def test_it_takes_hidden_weights_and_leaves_the_rest_to_adam() -> None:
    model = net()
    optimizer = Muon(model.parameters(), 1e-3, (0.9, 0.99), 1e-8, 0.0)
    assert [weight.shape for weight in optimizer.matrices] == [model[2].weight.shape]
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    adams = [weight for weight in model.parameters() if "exp_avg" in optimizer.state[weight]]
    assert len(adams) == len(list(model.parameters())) - 1


def test_an_entry_moves_as_far_as_under_adam() -> None:
    weight = nn.Parameter(torch.zeros(64, 256))
    rest = [nn.Parameter(torch.zeros(2, 2)), weight, nn.Parameter(torch.zeros(2, 2))]
    optimizer = Muon(rest, 1e-2, (0.95, 0.99), 1e-8, 0.0)
    weight.grad = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    # 64 singular values near 1 are spread over 64 x 256 entries: 0.2 sqrt(256) sqrt(64) / sqrt(64 x 256) = 0.2
    assert weight.detach().square().mean().sqrt().item() == pytest.approx(0.2e-2, rel=0.2)


def test_a_player_learns_and_resumes_to_the_same_bytes() -> None:
    whole, first, second = (Player(net(), muon("0.01 -> 0.001 in 600 images"), ema=100) for _ in range(3))
    assert learn(whole, range(20)) < 0.6
    learn(first, range(10))
    second.restore({key: value.clone() for key, value in first.state().items()})
    learn(second, range(10, 20))
    for key, value in whole.state().items():
        assert torch.equal(value, second.state()[key]), key


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="learning rate"):
        muon(0.0)
