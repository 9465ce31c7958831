"""SNGAN (Miyato et al. 2018, appendix B.4): residual networks, the discriminator with spectral normalization.

At 32 px the widths are the published ones, 256 and 128. From 64 px on each doubling of the size adds a block, with
64 channels at full resolution and up to 1024 at the lowest.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from rivals.base.size import AnySize
from rivals.nets.conditioning import ConditionalBatchNorm2d, ProjectionHead
from rivals.nets.discriminator import Discriminator
from rivals.nets.generator import Generator
from rivals.nets.padding import PaddedSize, check_widths, to_channels_last
from rivals.nets.resampling import DownConv2d, UpConv2d

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.Embedding)


class SNGANGenerator(Generator):
    """A linear layer to the lowest resolution, then one residual block per doubling.

    Labels enter the batch norms. ``widths`` has one number per resolution, the lowest first.
    """

    def __init__(
        self, *, size: AnySize, channels: int, classes: int = 0, latent_dim: int = 128, widths: tuple[int, ...] = ()
    ) -> None:
        padded = PaddedSize.of(size)
        k = padded.stages
        default = [256] * (k + 1) if k <= 3 else [min(64 << stage, 1024) for stage in range(k, -1, -1)]
        widths = check_widths(f"sngan's generator at {size} px", widths, default)
        super().__init__("sngan", size=size, channels=channels, classes=classes, latent_dim=latent_dim, widths=widths)
        self.padded = padded
        self.linear = _xavier_init(nn.Linear(latent_dim, widths[0] * padded.base.area))
        self.blocks = nn.ModuleList(
            UpBlock(in_channels, out_channels, classes) for in_channels, out_channels in pairwise(widths)
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.to_image = _xavier_init(nn.Conv2d(widths[-1], channels, 3, padding=1))
        to_channels_last(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents (B, latent_dim) and labels (B,) or None to images (B, C, H, W) in [-1, 1]."""
        h = self.linear(z).unflatten(1, (-1, self.padded.base.height, self.padded.base.width))
        for block in self.blocks:
            h = block(h, labels)
        return torch.tanh(self.padded.crop(self.to_image(F.relu(self.norm(h), inplace=True))))


class UpBlock(nn.Module):
    """Twice batch norm, ReLU and convolution, the first upsampling; the shortcut is a 1x1 convolution, upsampled."""

    def __init__(self, in_channels: int, out_channels: int, classes: int) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm2d(in_channels, classes)
        self.conv1 = _xavier_init(UpConv2d(in_channels, out_channels), math.sqrt(2))
        self.norm2 = ConditionalBatchNorm2d(out_channels, classes)
        self.conv2 = _xavier_init(nn.Conv2d(out_channels, out_channels, 3, padding=1), math.sqrt(2))
        self.shortcut = _xavier_init(nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Feature maps (B, C, H, W) and labels (B,) or None to (B, C', 2 H, 2 W)."""
        h: Tensor = self.conv1(F.relu(self.norm1(x, labels), inplace=True))
        h = self.conv2(F.relu(self.norm2(h, labels), inplace=True))
        # A 1x1 convolution commutes with nearest upsampling, and before it there are 4 times fewer pixels.
        return h + F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")


class SNGANDiscriminator(Discriminator):
    """Residual blocks, ReLU, global sum pooling and a projection head, all with spectral normalization.

    ``widths`` has one number per block, the highest resolution first. As published, the first 2 blocks halve the
    resolution at 32 px, the first 5 at 64 and at 128 px; the others keep it.
    """

    def __init__(self, *, size: AnySize, channels: int, classes: int = 0, widths: tuple[int, ...] = ()) -> None:
        padded = PaddedSize.of(size)
        k = padded.stages
        default = [128] * (k + 1) if k <= 3 else [min(64 << stage, 1024) for stage in range(k + 1)]
        widths = check_widths(f"sngan's discriminator at {size} px", widths, default)
        super().__init__("sngan", size=size, channels=channels, classes=classes, widths=widths)
        self.padded = padded
        # Blocks that halve the resolution, as published for 32, 64 and 128 px.
        halvings = max(1, k - 1) if k <= 3 else max(k, 5)
        self.blocks = nn.Sequential(
            FirstBlock(channels, widths[0]),
            *(
                DownBlock(in_channels, out_channels) if stage < halvings else FlatBlock(in_channels, out_channels)
                for stage, (in_channels, out_channels) in enumerate(pairwise(widths), start=1)
            ),
        )
        self.head = ProjectionHead(widths[-1], classes)
        _spectral_norm(self.head.linear)
        if self.head.embedding is not None:
            _spectral_norm(self.head.embedding)
        to_channels_last(self)

    def blocks_from_image(self) -> list[list[nn.Module]]:
        return [[block] for block in self.blocks]

    def features(self, x: Tensor) -> Tensor:
        h = self.blocks(self.padded.pad(x))
        return F.relu(h, inplace=True).sum((2, 3))


class FirstBlock(nn.Module):
    """Convolution, ReLU, convolution, pooling; the shortcut is pooling and a 1x1 convolution. No ReLU on the image."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _spectral_norm(nn.Conv2d(in_channels, out_channels, 3, padding=1), math.sqrt(2))
        self.conv2 = _spectral_norm(DownConv2d(out_channels, out_channels), math.sqrt(2))
        self.shortcut = _spectral_norm(nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to feature maps (B, C', H / 2, W / 2)."""
        h = self.conv2(F.relu(self.conv1(x), inplace=True))
        y: Tensor = h + self.shortcut(F.avg_pool2d(x, 2))
        return y


class DownBlock(nn.Module):
    """Twice ReLU and convolution, then pooling; the shortcut is a pooled 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _spectral_norm(nn.Conv2d(in_channels, in_channels, 3, padding=1), math.sqrt(2))
        self.conv2 = _spectral_norm(DownConv2d(in_channels, out_channels), math.sqrt(2))
        self.shortcut = _spectral_norm(nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (B, C, H, W) to (B, C', H / 2, W / 2)."""
        h = self.conv2(F.relu(self.conv1(F.relu(x)), inplace=True))
        # A 1x1 convolution commutes with average pooling, and after it there are 4 times fewer pixels.
        y: Tensor = h + self.shortcut(F.avg_pool2d(x, 2))
        return y


class FlatBlock(nn.Module):
    """Twice ReLU and convolution; the shortcut is the identity, or a 1x1 convolution if the width changes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _spectral_norm(nn.Conv2d(in_channels, in_channels, 3, padding=1), math.sqrt(2))
        self.conv2 = _spectral_norm(nn.Conv2d(in_channels, out_channels, 3, padding=1), math.sqrt(2))
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else _spectral_norm(nn.Conv2d(in_channels, out_channels, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (B, C, H, W) to (B, C', H, W)."""
        h = self.conv2(F.relu(self.conv1(F.relu(x)), inplace=True))
        y: Tensor = h + self.shortcut(x)
        return y


def _xavier_init(layer: Layer, gain: float = 1.0) -> Layer:
    nn.init.xavier_uniform_(layer.weight, gain)
    return layer


def _spectral_norm(layer: Layer, gain: float = 1.0) -> Layer:
    # One power iteration per training forward pass (Miyato et al. 2018, alg. 1).
    spectral_norm(_xavier_init(layer, gain))
    return layer
