"""Strided convolutions with batch norm: DCGAN (Radford, Metz & Chintala 2016)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.base.registry import unknown
from rivals.nets.canvas import Canvas, channels_last, check_widths
from rivals.nets.discriminator import Discriminator
from rivals.nets.generator import Generator
from rivals.nets.labels import LabelledBatchNorm2d, ProjectionHead

NORMS = ("batch", "none")


class DCGANGenerator(Generator):
    """A linear layer to the lowest resolution, then a 4x4 transposed convolution of stride 2 per doubling.

    Batch norm and ReLU before each of them, tanh at the end. Labels enter the batch norms. ``widths`` has one
    number per doubling, the lowest resolution first, and so says how many there are.
    """

    def __init__(
        self, *, size: int, channels: int, classes: int = 0, latent: int = 100, widths: tuple[int, ...] = ()
    ) -> None:
        canvas = Canvas.of(size, len(widths))
        widths = check_widths(f"dcgan's generator at {size} px", widths, _widths(canvas.stages)[::-1])
        super().__init__("dcgan", size=size, channels=channels, classes=classes, latent=latent, widths=widths)
        self.canvas = canvas
        # Of the latent alone: batch norm then holds its share of what varies, which a label beside it would take over.
        self.linear = nn.Linear(latent, widths[0] * canvas.base**2, bias=False)
        self.layers = nn.ModuleList(UpLayer(wide, next_wide, classes) for wide, next_wide in pairwise(widths))
        self.layers.append(UpLayer(widths[-1], channels, classes, bias=True))
        _start(self)
        channels_last(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.linear(z).unflatten(1, (-1, self.canvas.base, self.canvas.base))
        for layer in self.layers:
            h = layer(h, labels)
        return torch.tanh(self.canvas.crop(h))


class UpLayer(nn.Module):
    """Batch norm, ReLU, and a transposed convolution to twice the size."""

    def __init__(self, wide: int, next_wide: int, classes: int, *, bias: bool = False) -> None:
        super().__init__()
        self.norm = LabelledBatchNorm2d(wide, classes)
        self.conv = nn.ConvTranspose2d(wide, next_wide, 4, 2, 1, bias=bias)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        h: Tensor = self.conv(F.relu(self.norm(x, labels), inplace=True))
        return h


class DCGANDiscriminator(Discriminator):
    """A 4x4 convolution of stride 2 per halving, with leaky ReLU, then one linear layer on all that is left.

    ``norm="batch"`` has batch norm after each convolution but the first; ``"none"`` has none. ``widths`` has
    one number per halving, the highest resolution first, and so says how many there are.
    """

    def __init__(
        self, *, size: int, channels: int, classes: int = 0, widths: tuple[int, ...] = (), norm: str = "batch"
    ) -> None:
        canvas = Canvas.of(size, len(widths))
        widths = check_widths(f"dcgan's discriminator at {size} px", widths, _widths(canvas.stages))
        if norm not in NORMS:
            raise unknown("norm", norm, NORMS)
        super().__init__("dcgan", size=size, channels=channels, classes=classes, widths=widths, norm=norm)
        self.canvas = canvas
        self.couples_batch = norm == "batch" and len(widths) > 1
        layers: list[nn.Module] = []
        for stage, (wide, next_wide) in enumerate(pairwise([channels, *widths])):
            normed = norm == "batch" and stage > 0
            layers += [nn.Conv2d(wide, next_wide, 4, 2, 1, bias=not normed)]
            layers += [nn.BatchNorm2d(next_wide)] if normed else []
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.head = ProjectionHead(widths[-1] * canvas.base**2, classes)
        _start(self)
        channels_last(self)

    def features(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(self.canvas.pad(x))
        return h.flatten(1)


def _widths(stages: int) -> tuple[int, ...]:
    """64, 128, 256, ..., at most 512, from the highest resolution downwards."""
    return tuple(min(64 << stage, 512) for stage in range(stages))


def _start(net: nn.Module) -> None:
    """Initial values: N(0, 0.02) for weights, N(1, 0.02) for batch norm's scales, 0 for what is added."""
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
        elif isinstance(part, nn.BatchNorm2d) and part.affine:
            nn.init.normal_(part.weight, mean=1.0, std=0.02)
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)
