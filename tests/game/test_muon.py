"""Muon: its matrix step, which weights it takes, and that a player which uses it resumes exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrizations import spectral_norm

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
    optimizer = Muon(model, 1e-3, (0.9, 0.99), 1e-8, 0.0)
    assert [weight.shape for weight in optimizer.matrices] == [model[2].weight.shape]
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    adams = [weight for weight in model.parameters() if "exp_avg" in optimizer.state[weight]]
    assert len(adams) == len(list(model.parameters())) - 1


def test_it_takes_layers_alone_and_not_what_looks_like_a_matrix() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, 4, 1, 1))
            self.embedding = nn.Embedding(3, 4)
            self.first = nn.Linear(4, 8)
            self.hidden = spectral_norm(nn.Linear(8, 6))
            self.up = nn.ConvTranspose2d(6, 5, 2)
            self.last = nn.Conv2d(5, 1, 1)
            self.position = nn.Parameter(torch.zeros(7, 4))

    model = Net()
    optimizer = Muon(model, 1e-3, (0.9, 0.99), 1e-8, 0.0)
    assert [tuple(weight.shape) for weight in optimizer.matrices] == [(6, 8), (6, 5, 2, 2)]
    assert next(iter(optimizer.matrices)) is model.hidden.parametrizations.weight.original


@pytest.mark.parametrize("seed", [0, 1])
def test_a_transposed_convolution_moves_as_the_convolution_of_the_same_matrix(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    plain, up = nn.Conv2d(6, 9, 2, bias=False), nn.ConvTranspose2d(6, 9, 2, bias=False)
    start, gradient = (torch.randn(9, 6, 2, 2, generator=generator) for _ in range(2))
    for layer, turned in ((plain, False), (up, True)):
        layer.weight.data = start.transpose(0, 1).contiguous() if turned else start.clone()
        layer.weight.grad = gradient.transpose(0, 1).contiguous() if turned else gradient.clone()
        Muon(nn.Sequential(nn.Linear(1, 1), layer, nn.Linear(1, 1)), 0.1, (0.9, 0.99), 1e-8, 0.1).step()
    assert not torch.allclose(plain.weight, start, atol=1e-3)
    torch.testing.assert_close(up.weight.transpose(0, 1), plain.weight)


def test_an_entry_moves_as_far_as_under_adam() -> None:
    weight = nn.Parameter(torch.zeros(64, 256))
    hidden = nn.Linear(256, 64, bias=False)
    hidden.weight = weight
    optimizer = Muon(nn.Sequential(nn.Linear(2, 2), hidden, nn.Linear(2, 2)), 1e-2, (0.95, 0.99), 1e-8, 0.0)
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
