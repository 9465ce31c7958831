"""Fully connected players on flattened images: the first GAN that articles show."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.nets.discriminator import Discriminator
from rivals.nets.dropout import Dropout
from rivals.nets.generator import Generator
from rivals.nets.labels import LabelledLatent, ProjectionHead


class MLPGenerator(Generator):
    """Latent to 256 to 512 to 1024 to C*H*W, with leaky ReLU between and tanh at the end.

    ``widths`` are the hidden layers', any number of them. The initial values are torch's own.
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        classes: int = 0,
        latent: int = 100,
        widths: tuple[int, ...] = (256, 512, 1024),
    ) -> None:
        widths = _hidden(widths, (256, 512, 1024))
        super().__init__("mlp", size=size, channels=channels, classes=classes, latent=latent, widths=widths)
        self.input = LabelledLatent(latent, classes)
        sizes = [self.input.out_features, *widths]
        layers: list[nn.Module] = []
        for wide, next_wide in pairwise(sizes):
            layers += [nn.Linear(wide, next_wide), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], channels * size * size))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = torch.tanh(self.layers(self.input(z, labels)))
        return x.view(-1, self.channels, self.size, self.size)


class MLPDiscriminator(Discriminator):
    """C*H*W to 1024 to 512 to 256 to one logit, with leaky ReLU and dropout after each hidden layer."""

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        classes: int = 0,
        widths: tuple[int, ...] = (1024, 512, 256),
        dropout: float = 0.3,
    ) -> None:
        widths = _hidden(widths, (1024, 512, 256))
        if not 0 <= dropout <= 0.99:
            raise UserError(f"dropout {dropout} is out of range: take a number from 0 to 0.99")
        super().__init__("mlp", size=size, channels=channels, classes=classes, widths=widths, dropout=dropout)
        sizes = [channels * size * size, *widths]
        layers: list[nn.Module] = []
        for wide, next_wide in pairwise(sizes):
            layers += [nn.Linear(wide, next_wide), nn.LeakyReLU(0.2, inplace=True), Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.head = ProjectionHead(sizes[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(x.flatten(1))
        return h


def _hidden(widths: tuple[int, ...], default: tuple[int, ...]) -> tuple[int, ...]:
    widths = tuple(widths) or default
    if min(widths) < 1:
        raise UserError(f"widths {','.join(map(str, widths))} do not fit mlp: give positive numbers")
    return widths
