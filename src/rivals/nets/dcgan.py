"""DCGAN (Radford, Metz & Chintala 2016): strided convolutions with batch norm."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.base.registry import unknown
from rivals.base.size import AnySize
from rivals.nets.conditioning import ConditionalBatchNorm2d, ProjectionHead
from rivals.nets.discriminator import Discriminator, blocks_of
from rivals.nets.generator import Generator
from rivals.nets.padding import PaddedSize, check_widths, to_channels_last
from rivals.nets.resampling import UpConv2d

NORMS = ("batch", "none")
UPSAMPLES = ("transposed", "nearest")


class DCGANGenerator(Generator):
    """A linear layer to the lowest resolution, then one 4x4 transposed convolution of stride 2 per doubling.

    Batch norm and ReLU precede each of them; tanh is last. Labels enter the batch norms. ``widths`` has one number per
    doubling, the lowest resolution first, and so sets their number.

    The phases of a transposed convolution learn apart, and a short training leaves a checkerboard (Odena et al. 2016).
    ``upsample="nearest"`` has none: a 3x3 convolution of the image enlarged by its nearest pixels, which is computed as
    a 4x4 transposed convolution whose weights are tied.
    """

    def __init__(
        self,
        *,
        size: AnySize,
        channels: int,
        classes: int = 0,
        latent_dim: int = 100,
        widths: tuple[int, ...] = (),
        upsample: str = "transposed",
    ) -> None:
        padded = PaddedSize.of(size, len(widths))
        widths = check_widths(f"dcgan's generator at {size} px", widths, _widths(padded.stages)[::-1])
        if upsample not in UPSAMPLES:
            raise unknown("upsampling", upsample, UPSAMPLES)
        shape: dict[str, Any] = {"size": size, "channels": channels, "classes": classes, "latent_dim": latent_dim}
        super().__init__("dcgan", **shape, widths=widths, upsample=upsample)
        self.padded = padded
        # The label does not enter here: batch norm fixes the variance after this layer, and a label could supply all of
        # it in place of the latent, which would collapse each class to one image.
        self.linear = nn.Linear(latent_dim, widths[0] * padded.base.area, bias=False)
        self.layers = nn.ModuleList(
            UpLayer(in_channels, out_channels, classes, upsample) for in_channels, out_channels in pairwise(widths)
        )
        self.layers.append(UpLayer(widths[-1], channels, classes, upsample, bias=True))
        _init_weights(self)
        to_channels_last(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents (B, latent_dim) and labels (B,) or None to images (B, C, H, W) in [-1, 1]."""
        h = self.linear(z).unflatten(1, (-1, self.padded.base.height, self.padded.base.width))
        for layer in self.layers:
            h = layer(h, labels)
        return torch.tanh(self.padded.crop(h))


class UpLayer(nn.Module):
    """Batch norm, ReLU, and a convolution to twice the size."""

    def __init__(self, in_channels: int, out_channels: int, classes: int, upsample: str, *, bias: bool = False) -> None:
        super().__init__()
        self.norm = ConditionalBatchNorm2d(in_channels, classes)
        if upsample == "nearest":
            self.conv: nn.Module = UpConv2d(in_channels, out_channels, bias=bias)
        else:
            self.conv = nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=bias)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Feature maps (B, C, H, W) and labels (B,) or None to (B, C', 2 H, 2 W)."""
        h: Tensor = self.conv(F.relu(self.norm(x, labels), inplace=True))
        return h


class DCGANDiscriminator(Discriminator):
    """One 4x4 convolution of stride 2 with leaky ReLU per halving, then a linear layer on the flattened features.

    ``norm="batch"`` has batch norm after each convolution but the first, ``"none"`` nowhere. ``widths`` has one number
    per halving, the highest resolution first, and so sets their number.
    """

    def __init__(
        self, *, size: AnySize, channels: int, classes: int = 0, widths: tuple[int, ...] = (), norm: str = "batch"
    ) -> None:
        padded = PaddedSize.of(size, len(widths))
        widths = check_widths(f"dcgan's discriminator at {size} px", widths, _widths(padded.stages))
        if norm not in NORMS:
            raise unknown("norm", norm, NORMS)
        super().__init__("dcgan", size=size, channels=channels, classes=classes, widths=widths, norm=norm)
        self.padded = padded
        self.uses_batch_stats = norm == "batch" and len(widths) > 1
        layers: list[nn.Module] = []
        for stage, (in_channels, out_channels) in enumerate(pairwise([channels, *widths])):
            # No batch norm on the input layer (Radford et al. 2016, sec. 3).
            batch_norm = norm == "batch" and stage > 0
            layers += [nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=not batch_norm)]
            layers += [nn.BatchNorm2d(out_channels)] if batch_norm else []
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.head = ProjectionHead(widths[-1] * padded.base.area, classes)
        _init_weights(self)
        to_channels_last(self)

    def blocks_from_image(self) -> list[list[nn.Module]]:
        return blocks_of(self.layers)

    def features(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(self.padded.pad(x))
        return h.flatten(1)


def _widths(stages: int) -> tuple[int, ...]:
    """64, 128, 256, ..., at most 512, from the highest resolution down."""
    return tuple(min(64 << stage, 512) for stage in range(stages))


def _init_weights(net: nn.Module) -> None:
    """N(0, 0.02) for weights, N(1, 0.02) for the scales of batch norm, 0 for biases (Radford et al. 2016, sec. 4)."""
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
        elif isinstance(part, nn.BatchNorm2d) and part.affine:
            nn.init.normal_(part.weight, mean=1.0, std=0.02)
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)
