"""Residual players, the discriminator with spectral normalisation: SNGAN (Miyato et al. 2018, appendix B.4).

At 32 px the widths are the paper's: 256 and 128. From 64 px on each doubling of the size adds a block, with
64 channels at the image's own resolution and up to 1024 at the lowest.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from rivals.nets.canvas import Canvas, channels_last, check_widths
from rivals.nets.discriminator import Discriminator
from rivals.nets.generator import Generator
from rivals.nets.labels import LabelledBatchNorm2d, ProjectionHead
from rivals.nets.resampling import DownConv2d, UpConv2d

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.Embedding)


class SNGANGenerator(Generator):
    """A linear layer to the lowest resolution, then a residual block per doubling.

    Labels enter the batch norms. ``widths`` has one number more than there are doublings, the lowest first.
    """

    def __init__(
        self, *, size: int, channels: int, classes: int = 0, latent: int = 128, widths: tuple[int, ...] = ()
    ) -> None:
        canvas = Canvas.of(size)
        k = canvas.stages
        default = [256] * (k + 1) if k <= 3 else [min(64 << stage, 1024) for stage in range(k, -1, -1)]
        widths = check_widths(f"sngan's generator at {size} px", widths, default)
        super().__init__("sngan", size=size, channels=channels, classes=classes, latent=latent, widths=widths)
        self.canvas = canvas
        self.linear = _xavier(nn.Linear(latent, widths[0] * canvas.base**2))
        self.blocks = nn.ModuleList(UpBlock(wide, next_wide, classes) for wide, next_wide in pairwise(widths))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.image = _xavier(nn.Conv2d(widths[-1], channels, 3, padding=1))
        channels_last(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.linear(z).unflatten(1, (-1, self.canvas.base, self.canvas.base))
        for block in self.blocks:
            h = block(h, labels)
        return torch.tanh(self.canvas.crop(self.image(F.relu(self.norm(h), inplace=True))))


class UpBlock(nn.Module):
    """Twice batch norm, ReLU, convolution, the first doubling; beside it a 1x1 convolution, doubled."""

    def __init__(self, wide: int, next_wide: int, classes: int) -> None:
        super().__init__()
        self.norm1 = LabelledBatchNorm2d(wide, classes)
        self.conv1 = _xavier(UpConv2d(wide, next_wide), math.sqrt(2))
        self.norm2 = LabelledBatchNorm2d(next_wide, classes)
        self.conv2 = _xavier(nn.Conv2d(next_wide, next_wide, 3, padding=1), math.sqrt(2))
        self.shortcut = _xavier(nn.Conv2d(wide, next_wide, 1))

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        h: Tensor = self.conv1(F.relu(self.norm1(x, labels), inplace=True))
        h = self.conv2(F.relu(self.norm2(h, labels), inplace=True))
        # A 1x1 convolution and repetition change places freely; before it, there are 4 times fewer pixels.
        return h + F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")


class SNGANDiscriminator(Discriminator):
    """Residual blocks, ReLU, the sum over all pixels, and a projection head, all with spectral normalisation.

    ``widths`` has one number per block, the highest resolution first. As published, 2 of the
    blocks halve the resolution at 32 px, and 5 at 64 and at 128 px; the others, at the end, keep it.
    """

    def __init__(self, *, size: int, channels: int, classes: int = 0, widths: tuple[int, ...] = ()) -> None:
        canvas = Canvas.of(size)
        k = canvas.stages
        default = [128] * (k + 1) if k <= 3 else [min(64 << stage, 1024) for stage in range(k + 1)]
        widths = check_widths(f"sngan's discriminator at {size} px", widths, default)
        super().__init__("sngan", size=size, channels=channels, classes=classes, widths=widths)
        self.canvas = canvas
        halvings = max(1, k - 1) if k <= 3 else max(k, 5)
        self.blocks = nn.Sequential(
            FirstBlock(channels, widths[0]),
            *(
                DownBlock(wide, next_wide) if stage < halvings else FlatBlock(wide, next_wide)
                for stage, (wide, next_wide) in enumerate(pairwise(widths), start=1)
            ),
        )
        self.head = ProjectionHead(widths[-1], classes)
        _normalised(self.head.linear)
        if self.head.embedding is not None:
            _normalised(self.head.embedding)
        channels_last(self)

    def features(self, x: Tensor) -> Tensor:
        h = self.blocks(self.canvas.pad(x))
        return F.relu(h, inplace=True).sum((2, 3))


class FirstBlock(nn.Module):
    """Convolution, ReLU, convolution, halving; beside it halving and a 1x1 convolution. x is an image."""

    def __init__(self, wide: int, next_wide: int) -> None:
        super().__init__()
        self.conv1 = _normalised(nn.Conv2d(wide, next_wide, 3, padding=1), math.sqrt(2))
        self.conv2 = _normalised(DownConv2d(next_wide, next_wide), math.sqrt(2))
        self.shortcut = _normalised(nn.Conv2d(wide, next_wide, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x), inplace=True))
        y: Tensor = h + self.shortcut(F.avg_pool2d(x, 2))
        return y


class DownBlock(nn.Module):
    """Twice ReLU, convolution, and halving; beside it a 1x1 convolution, halved."""

    def __init__(self, wide: int, next_wide: int) -> None:
        super().__init__()
        self.conv1 = _normalised(nn.Conv2d(wide, wide, 3, padding=1), math.sqrt(2))
        self.conv2 = _normalised(DownConv2d(wide, next_wide), math.sqrt(2))
        self.shortcut = _normalised(nn.Conv2d(wide, next_wide, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(F.relu(x)), inplace=True))
        # A 1x1 convolution and averaging change places freely; after it, there are 4 times fewer pixels.
        y: Tensor = h + self.shortcut(F.avg_pool2d(x, 2))
        return y


class FlatBlock(nn.Module):
    """Twice ReLU, convolution; beside it x itself, or a 1x1 convolution where the width changes."""

    def __init__(self, wide: int, next_wide: int) -> None:
        super().__init__()
        self.conv1 = _normalised(nn.Conv2d(wide, wide, 3, padding=1), math.sqrt(2))
        self.conv2 = _normalised(nn.Conv2d(wide, next_wide, 3, padding=1), math.sqrt(2))
        self.shortcut = nn.Identity() if wide == next_wide else _normalised(nn.Conv2d(wide, next_wide, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(F.relu(x)), inplace=True))
        y: Tensor = h + self.shortcut(x)
        return y


def _xavier(layer: Layer, gain: float = 1.0) -> Layer:
    nn.init.xavier_uniform_(layer.weight, gain)
    return layer


def _normalised(layer: Layer, gain: float = 1.0) -> Layer:
    spectral_norm(_xavier(layer, gain))
    return layer
