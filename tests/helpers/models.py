"""Small classifiers in double precision with images and the labels they predict, for tests of the attacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rivals.base.norm_balls import L1, L2, Linf
from rivals.base.rng import generator

BALLS = {"Linf": Linf(0.03), "L2": L2(0.4), "L1": L1(1.5)}  # in which `conv_model` keeps some labels


def uniform(*shape: int, seed: str = "x") -> Tensor:
    """Random numbers in [0, 1)."""
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


def normal(*shape: int, seed: str = "weights") -> Tensor:
    """Random numbers of the standard normal distribution."""
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def linear_model(
    classes: int, shape: tuple[int, ...] = (3, 4, 4), n: int = 12, seed: str = "weights"
) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A linear classifier, ``n`` images, and the labels that it predicts for them."""
    layer = nn.Linear(torch.Size(shape).numel(), classes).double()
    with torch.no_grad():
        layer.weight.copy_(normal(*layer.weight.shape, seed=seed))
        layer.bias.zero_()
    model = nn.Sequential(nn.Flatten(), layer)
    x = uniform(n, *shape)
    return model, x, model(x).argmax(1)


def centered_linear_model(classes: int, shape: tuple[int, ...] = (3, 4, 4)) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A linear classifier whose logits are all 0 in the middle of the box, and 12 images near there."""
    model, x, _ = linear_model(classes, shape)
    with torch.no_grad():
        model[1].bias.copy_(-model[1].weight.sum(1) / 2)
    x = 0.45 + 0.1 * x
    return model, x, model(x).argmax(1)


def conv_model(classes: int = 5, n: int = 16) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A smooth, curved net that predicts every class, ``n`` images of 3 x 6 x 6, and their labels."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 36, classes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(normal(*parameter.shape, seed="conv") * 0.3)
    x = uniform(n, 3, 6, 6)
    return model, x, model(x).argmax(1)
