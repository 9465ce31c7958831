"""Fully connected generator and discriminator (Goodfellow et al. 2014, as in introductory articles)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.size import AnySize
from rivals.nets.conditioning import ConditionalLatent, ProjectionHead
from rivals.nets.discriminator import Discriminator, blocks_of
from rivals.nets.dropout import Dropout
from rivals.nets.generator import Generator
from rivals.nets.linear import Linear
from rivals.nets.padding import MOST_LAYERS, WIDEST, shown, widths_fit


class MLPGenerator(Generator):
    """Linear layers latent_dim-256-512-1024-C*H*W with leaky ReLU between and tanh at the end.

    ``widths`` are those of the hidden layers, 1 to 100 of them. The initialization is torch's.
    """

    def __init__(
        self,
        *,
        size: AnySize,
        channels: int,
        classes: int = 0,
        latent_dim: int = 100,
        widths: tuple[int, ...] = (256, 512, 1024),
    ) -> None:
        widths = _hidden(widths, (256, 512, 1024))
        super().__init__("mlp", size=size, channels=channels, classes=classes, latent_dim=latent_dim, widths=widths)
        self.input = ConditionalLatent(latent_dim, classes)
        sizes = [self.input.out_features, *widths]
        layers: list[nn.Module] = []
        for in_features, out_features in pairwise(sizes):
            layers += [Linear(in_features, out_features), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, Linear(sizes[-1], channels * self.size.area))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents (B, latent_dim) and labels (B,) or None to images (B, C, H, W) in [-1, 1]."""
        # tanh maps to the range of the images, [-1, 1].
        x = torch.tanh(self.layers(self.input(z, labels)))
        return x.view(-1, self.channels, self.size.height, self.size.width)


class MLPDiscriminator(Discriminator):
    """Linear layers C*H*W-1024-512-256-1 with leaky ReLU and dropout after each hidden layer."""

    def __init__(
        self,
        *,
        size: AnySize,
        channels: int,
        classes: int = 0,
        widths: tuple[int, ...] = (1024, 512, 256),
        dropout: float = 0.3,
    ) -> None:
        widths = _hidden(widths, (1024, 512, 256))
        if not 0 <= dropout <= 0.99:
            raise UserError(f"dropout {dropout} is out of range: take a number from 0 to 0.99")
        super().__init__("mlp", size=size, channels=channels, classes=classes, widths=widths, dropout=dropout)
        sizes = [channels * self.size.area, *widths]
        layers: list[nn.Module] = []
        for in_features, out_features in pairwise(sizes):
            layers += [Linear(in_features, out_features), nn.LeakyReLU(0.2, inplace=True), Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.head = ProjectionHead(sizes[-1], classes)

    def blocks_from_image(self) -> list[list[nn.Module]]:
        return blocks_of(self.layers)

    def features(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(x.flatten(1))
        return h


def _hidden(widths: tuple[int, ...], default: tuple[int, ...]) -> tuple[int, ...]:
    widths = tuple(widths) or default
    if len(widths) > MOST_LAYERS or not widths_fit(widths):
        raise UserError(
            f"widths {shown(widths)} do not fit mlp: give 1 to {MOST_LAYERS} positive numbers up to {WIDEST:,}"
        )
    return widths
