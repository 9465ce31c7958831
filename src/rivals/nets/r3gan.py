"""R3GAN ("The GAN is dead; long live the GAN!", Huang et al. 2024, sec. 4): residual networks without normalization.

Both networks consist of one kind of block. There is no normalization layer, no style, no noise input and no output
activation: the initialization keeps the variance, and R1 and R2 keep the relativistic game stable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.size import AnySize
from rivals.nets.conditioning import ConditionalLatent, require_labels
from rivals.nets.discriminator import Discriminator
from rivals.nets.generator import Generator
from rivals.nets.padding import MOST_LAYERS, PaddedSize, check_widths, shown, to_channels_last
from rivals.nets.resampling import downsample, upsample

SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # of a leaky ReLU: keeps the variance (He et al. 2015)


class R3Generator(Generator):
    """A learned basis at the lowest resolution, scaled by the latent; then residual blocks and upsampling.

    ``widths`` has one number per resolution, the lowest first. ``groups`` is the number of groups in the 3x3
    convolutions (the cardinality), one for all resolutions or one for each; by default a group has 16 channels, as
    published. ``blocks`` is the number of blocks per resolution, ``expansion`` the factor of the bottleneck's width.
    """

    def __init__(
        self,
        *,
        size: AnySize,
        channels: int,
        classes: int = 0,
        latent_dim: int = 64,
        widths: tuple[int, ...] = (),
        groups: int | Sequence[int] = (),
        blocks: int = 2,
        expansion: int = 2,
    ) -> None:
        padded = PaddedSize.of(size)
        widths = check_widths(f"r3's generator at {size} px", widths, _widths(padded.stages)[::-1])
        cardinality = _groups(groups, widths, blocks, expansion)
        super().__init__(
            "r3",
            size=size,
            channels=channels,
            classes=classes,
            latent_dim=latent_dim,
            widths=widths,
            groups=list(cardinality),
            blocks=blocks,
            expansion=expansion,
        )
        self.padded = padded
        self.input = ConditionalLatent(latent_dim, classes, std=1 / math.sqrt(max(classes, 1)))
        self.basis = nn.Parameter(nn.init.normal_(torch.empty(widths[0], *padded.base)))
        self.scale = _linear(self.input.out_features, widths[0])
        self.stages = _stages(widths, cardinality, blocks, expansion)
        self.transitions = nn.ModuleList(
            _transition(in_channels, out_channels) for in_channels, out_channels in pairwise(widths)
        )
        self.to_image = _conv(widths[-1], channels, 1)
        to_channels_last(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents (B, latent_dim) and labels (B,) or None to images (B, C, H, W) in [-1, 1]."""
        # The modulated basis takes the place of a mapping network and a linear layer to 4x4 pixels.
        h = self.basis * self.scale(self.input(z, labels))[:, :, None, None]
        h = self.stages[0](h)
        for transition, stage in zip(self.transitions, self.stages[1:], strict=True):
            # The 1x1 convolution changes the width at the lower resolution, where it is cheaper.
            h = stage(upsample(transition(h)))
        x: Tensor = self.padded.crop(self.to_image(h))
        return x


class R3Discriminator(Discriminator):
    """The generator reversed: residual blocks with downsampling between, then a depthwise convolution over all pixels.

    ``widths`` has one number per resolution, the highest first; the other arguments are those of the generator.
    """

    def __init__(
        self,
        *,
        size: AnySize,
        channels: int,
        classes: int = 0,
        widths: tuple[int, ...] = (),
        groups: int | Sequence[int] = (),
        blocks: int = 2,
        expansion: int = 2,
    ) -> None:
        padded = PaddedSize.of(size)
        widths = check_widths(f"r3's discriminator at {size} px", widths, _widths(padded.stages))
        cardinality = _groups(groups, widths, blocks, expansion)
        super().__init__(
            "r3",
            size=size,
            channels=channels,
            classes=classes,
            widths=widths,
            groups=list(cardinality),
            blocks=blocks,
            expansion=expansion,
        )
        self.padded = padded
        self.from_image = _conv(channels, widths[0], 1)
        self.stages = _stages(widths, cardinality, blocks, expansion)
        self.transitions = nn.ModuleList(
            _transition(in_channels, out_channels) for in_channels, out_channels in pairwise(widths)
        )
        # A depthwise convolution over all pixels: a learned, weighted global pooling.
        self.basis = _conv(widths[-1], widths[-1], (padded.base.height, padded.base.width), groups=widths[-1])
        self.head = Head(widths[-1], classes)
        to_channels_last(self)

    def blocks_from_image(self) -> list[list[nn.Module]]:
        before = [self.from_image, *self.transitions]
        return [[*parts] for parts in zip(before, self.stages, strict=True)]

    def features(self, x: Tensor) -> Tensor:
        h = self.stages[0](self.from_image(self.padded.pad(x)))
        for transition, stage in zip(self.transitions, self.stages[1:], strict=True):
            h = stage(transition(downsample(h)))
        pooled: Tensor = self.basis(h)
        return pooled.flatten(1)


class Block(nn.Module):
    """x + conv1x1(act(conv3x3(act(conv1x1(x))))), an inverted bottleneck with grouped 3x3 convolution.

    Fixup initialization (Zhang et al. 2019) for m = 3 layers per branch: the last convolution starts at 0, so that the
    block starts as the identity, and the others are scaled by L^(-1 / (2m - 2)) = L^(-1/4), L = ``depth`` blocks.
    """

    def __init__(self, channels: int, groups: int, expansion: int, depth: int) -> None:
        super().__init__()
        inner = channels * expansion
        # Fixup: a sum of L residual branches has bounded variance at the start.
        gain = GAIN * depth**-0.25
        self.conv1 = _conv(channels, inner, 1, gain=gain, bias=True)
        self.conv2 = _conv(inner, inner, 3, gain=gain, groups=groups, bias=True)
        self.conv3 = _conv(inner, channels, 1, gain=0)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (B, C, H, W) to the same shape."""
        h = F.leaky_relu(self.conv1(x), SLOPE, inplace=True)
        h = F.leaky_relu(self.conv2(h), SLOPE, inplace=True)
        y: Tensor = x + self.conv3(h)
        return y


class Head(nn.Module):
    """Features h (B, F) to logits (B,): a linear layer, or with classes e(y).linear(h) (Miyato & Koyama 2018)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = _linear(features, features if classes else 1)
        self.embedding = nn.Embedding(classes, features) if classes else None
        if self.embedding is not None:
            # A linear layer of one-hot labels, N(0, 1 / classes), with the gain 1 / sqrt(features) of the authors'
            # code: a dot product of that many features then has the variance of one of them.
            nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(classes * features))

    def forward(self, h: Tensor, labels: Tensor | None) -> Tensor:
        h = self.linear(h)
        return h.squeeze(1) if self.embedding is None else (self.embedding(require_labels(labels)) * h).sum(1)


def _stages(widths: Sequence[int], groups: Sequence[int], blocks: int, expansion: int) -> nn.ModuleList:
    """One stage of blocks per resolution. Fixup scales each block by the depth of the whole network."""
    depth = blocks * len(widths)
    return nn.ModuleList(
        nn.Sequential(*(Block(width, group, expansion, depth) for _ in range(blocks)))
        for width, group in zip(widths, groups, strict=True)
    )


def _widths(stages: int) -> tuple[int, ...]:
    """32, 64, 96, 128, 128, ... from the highest resolution down: small enough to train on a CPU."""
    return tuple(min(32 * (stage + 1), 128) for stage in range(stages + 1))


def _groups(groups: int | Sequence[int], widths: Sequence[int], blocks: int, expansion: int) -> tuple[int, ...]:
    """The number of groups for each width."""
    if not (1 <= blocks <= MOST_LAYERS and 1 <= expansion <= MOST_LAYERS):
        raise UserError(
            f"r3 needs blocks and expansion of 1 or more, up to {MOST_LAYERS}, not {blocks} and {expansion}"
        )
    inner = [width * expansion for width in widths]
    if isinstance(groups, int):
        chosen = (groups,) * len(widths)
    else:
        chosen = tuple(groups) or tuple(width // math.gcd(width, 16) for width in inner)
    if len(chosen) != len(widths) or any(g < 1 or width % g for g, width in zip(chosen, inner, strict=False)):
        raise UserError(
            f"groups {shown(chosen)} do not divide the {','.join(map(str, inner))} channels "
            "in r3's blocks: give one number that divides all, or one for each"
        )
    return chosen


def _conv(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int],
    gain: float = 1.0,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution with weights N(0, gain^2 / fan_in) and bias 0; kernels 1 and 3 keep the resolution."""
    padding = kernel // 2 if isinstance(kernel, int) else 0
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, groups=groups, bias=bias)
    nn.init.normal_(conv.weight, std=gain / math.sqrt(conv.weight[0].numel()))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _linear(in_channels: int, out_channels: int) -> nn.Linear:
    """A linear layer without bias, with weights N(0, 1 / fan_in)."""
    linear = nn.Linear(in_channels, out_channels, bias=False)
    nn.init.normal_(linear.weight, std=1 / math.sqrt(in_channels))
    return linear


def _transition(in_channels: int, out_channels: int) -> nn.Module:
    """A 1x1 convolution if the width changes, else the identity."""
    return nn.Identity() if in_channels == out_channels else _conv(in_channels, out_channels, 1)
