"""Residual players without normalisation: R3GAN ("The GAN is dead; long live the GAN!", Huang et al. 2024).

Both nets are made of one block. No normalisation layer, no style, no noise inputs, no output activation: the
initial values keep the variance, and the regularised relativistic game does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.nets.canvas import Canvas, channels_last, check_widths
from rivals.nets.discriminator import Discriminator
from rivals.nets.generator import Generator
from rivals.nets.labels import LabelledLatent, needed
from rivals.nets.resampling import downsample, upsample

SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # what a leaky ReLU takes from the variance (He et al. 2015)


class R3Generator(Generator):
    """A learned picture of basis features, scaled by the latent; then blocks, and doublings between them.

    ``widths`` has one number per resolution, the lowest first; ``groups`` is the number of groups in the 3x3
    convolutions, one for all resolutions or one for each; without, groups have 16 channels as in the paper.
    ``blocks`` is the number of blocks per resolution.
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        classes: int = 0,
        latent: int = 64,
        widths: tuple[int, ...] = (),
        groups: int | Sequence[int] = (),
        blocks: int = 2,
        expansion: int = 2,
    ) -> None:
        canvas = Canvas.of(size)
        widths = check_widths(f"r3's generator at {size} px", widths, _widths(canvas.stages)[::-1])
        cardinality = _groups(groups, widths, blocks, expansion)
        super().__init__(
            "r3",
            size=size,
            channels=channels,
            classes=classes,
            latent=latent,
            widths=widths,
            groups=list(cardinality),
            blocks=blocks,
            expansion=expansion,
        )
        self.canvas = canvas
        self.input = LabelledLatent(latent, classes, std=1 / math.sqrt(max(classes, 1)))
        self.basis = nn.Parameter(torch.randn(widths[0], canvas.base, canvas.base))
        self.scale = _linear(self.input.out_features, widths[0])
        self.stages = _stages(widths, cardinality, blocks, expansion)
        self.turns = nn.ModuleList(_widen(wide, next_wide) for wide, next_wide in pairwise(widths))
        self.image = _conv(widths[-1], channels, 1)
        channels_last(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.basis * self.scale(self.input(z, labels))[:, :, None, None]
        h = self.stages[0](h)
        for turn, stage in zip(self.turns, self.stages[1:], strict=True):
            h = stage(upsample(turn(h)))
        x: Tensor = self.canvas.crop(self.image(h))
        return x


class R3Discriminator(Discriminator):
    """The generator's mirror: blocks, halvings between, then each feature's weighted sum over its pixels.

    ``widths`` has one number per resolution, the highest first; the other knobs are the generator's.
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        classes: int = 0,
        widths: tuple[int, ...] = (),
        groups: int | Sequence[int] = (),
        blocks: int = 2,
        expansion: int = 2,
    ) -> None:
        canvas = Canvas.of(size)
        widths = check_widths(f"r3's discriminator at {size} px", widths, _widths(canvas.stages))
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
        self.canvas = canvas
        self.image = _conv(channels, widths[0], 1)
        self.stages = _stages(widths, cardinality, blocks, expansion)
        self.turns = nn.ModuleList(_widen(wide, next_wide) for wide, next_wide in pairwise(widths))
        self.basis = _conv(widths[-1], widths[-1], canvas.base, groups=widths[-1])
        self.head = Head(widths[-1], classes)
        channels_last(self)

    def features(self, x: Tensor) -> Tensor:
        h = self.stages[0](self.image(self.canvas.pad(x)))
        for turn, stage in zip(self.turns, self.stages[1:], strict=True):
            h = stage(turn(downsample(h)))
        pooled: Tensor = self.basis(h)
        return pooled.flatten(1)


class Block(nn.Module):
    """x + conv1x1(act(conv3x3(act(conv1x1(x))))), wider inside by ``expansion``.

    The last convolution starts at 0, so that the block starts as the identity; the others' gain has the
    factor L^(-1/4) for ``depth`` = L blocks in the net (Fixup, Zhang et al. 2019).
    """

    def __init__(self, wide: int, groups: int, expansion: int, depth: int) -> None:
        super().__init__()
        inside = wide * expansion
        gain = GAIN * depth**-0.25
        self.conv1 = _conv(wide, inside, 1, gain=gain, bias=True)
        self.conv2 = _conv(inside, inside, 3, gain=gain, groups=groups, bias=True)
        self.conv3 = _conv(inside, wide, 1, gain=0)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.conv1(x), SLOPE, inplace=True)
        h = F.leaky_relu(self.conv2(h), SLOPE, inplace=True)
        y: Tensor = x + self.conv3(h)
        return y


class Head(nn.Module):
    """Features h (B, F) to logits (B,): a linear layer, or with classes e(y).linear(h)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = _linear(features, features if classes else 1)
        self.embedding = nn.Embedding(classes, features) if classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(classes))

    def forward(self, h: Tensor, labels: Tensor | None) -> Tensor:
        h = self.linear(h)
        return h.squeeze(1) if self.embedding is None else (self.embedding(needed(labels)) * h).sum(1)


def _stages(widths: Sequence[int], groups: Sequence[int], blocks: int, expansion: int) -> nn.ModuleList:
    """One stage of blocks per resolution; how deep the whole net is decides how each block begins."""
    depth = blocks * len(widths)
    return nn.ModuleList(
        nn.Sequential(*(Block(wide, group, expansion, depth) for _ in range(blocks)))
        for wide, group in zip(widths, groups, strict=True)
    )


def _widths(stages: int) -> tuple[int, ...]:
    """32, 64, 96, 128, 128, ... from the highest resolution downwards: small enough to learn on a CPU."""
    return tuple(min(32 * (stage + 1), 128) for stage in range(stages + 1))


def _groups(groups: int | Sequence[int], widths: Sequence[int], blocks: int, expansion: int) -> tuple[int, ...]:
    """The number of groups for each width."""
    if blocks < 1 or expansion < 1:
        raise UserError(f"r3 needs blocks and expansion of 1 or more, not {blocks} and {expansion}")
    inside = [wide * expansion for wide in widths]
    if isinstance(groups, int):
        chosen = (groups,) * len(widths)
    else:
        chosen = tuple(groups) or tuple(wide // math.gcd(wide, 16) for wide in inside)
    if len(chosen) != len(widths) or any(g < 1 or wide % g for g, wide in zip(chosen, inside, strict=False)):
        raise UserError(
            f"groups {','.join(map(str, chosen))} do not divide the {','.join(map(str, inside))} channels "
            "in r3's blocks: give one number that divides all, or one for each"
        )
    return chosen


def _conv(wide: int, next_wide: int, taps: int, gain: float = 1.0, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution, N(0, gain^2 / fan_in), that keeps the resolution if ``taps`` are 1 or 3. A bias starts at 0."""
    conv = nn.Conv2d(wide, next_wide, taps, padding=taps // 2 if taps <= 3 else 0, groups=groups, bias=bias)
    nn.init.normal_(conv.weight, std=gain / math.sqrt(conv.weight[0].numel()))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _linear(wide: int, next_wide: int) -> nn.Linear:
    """A linear layer without bias, N(0, 1 / fan_in)."""
    linear = nn.Linear(wide, next_wide, bias=False)
    nn.init.normal_(linear.weight, std=1 / math.sqrt(wide))
    return linear


def _widen(wide: int, next_wide: int) -> nn.Module:
    """A 1x1 convolution where the width changes."""
    return nn.Identity() if wide == next_wide else _conv(wide, next_wide, 1)
