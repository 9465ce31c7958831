"""A U-Net translator (Ronneberger et al. 2015; pix2pix, Isola et al. 2017, sec. 3.2.1)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.nets.perturber import Residual
from rivals.nets.resampling import DownConv2d, UpConv2d
from rivals.nets.translator import Translator, enlarged


class UNetTranslator(Translator):
    """An encoder that halves the resolution stage by stage; a decoder that gets each stage's features beside its own.

    ``widths`` are the channels of the stages from the full resolution down, by default (24, 48, 96, 128), as far as the
    images in training can be halved. Each stage has ``blocks`` residual blocks on either side. An image that is to be
    enlarged is interpolated first.
    """

    net = "unet"
    default_blocks = 1

    def default_widths(self) -> tuple[int, ...]:
        return (24, 48, 96, 128)[: max(1, self.size.shorter.bit_length() - 2)]

    def build(self, widths: tuple[int, ...], blocks: int) -> None:
        halvings, scale = len(widths) - 1, self.scale
        self.multiple = max(1, 2**halvings // scale)
        self.stem = nn.Conv2d(self.in_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(DownConv2d(inputs, outputs) for inputs, outputs in pairwise(widths))
        self.encoder = nn.ModuleList(_stage(width, blocks) for width in widths)
        self.up = nn.ModuleList(UpConv2d(inputs, outputs) for inputs, outputs in pairwise(widths[::-1]))
        # The decoder's features and those of the encoder at the same resolution, joined by a 1x1 convolution.
        self.join = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in widths[-2::-1])
        self.decoder = nn.ModuleList(_stage(width, blocks) for width in widths[-2::-1])
        self.last = nn.Conv2d(widths[0], self.channels, 3, padding=1)
        # As of the residual translator, in pixels of the full resolution: the blocks of every stage, and the halvings.
        blocks_see = sum(2 * blocks << step for step in range(halvings + 1)) * 2
        fine = 2 + blocks_see + 2 * sum(2 << step for step in range(halvings)) + 2**halvings
        self.reach = -(-fine // scale) + (2 if scale > 1 else 0)

    def maps(self, x: Tensor) -> list[Tensor]:
        fine = enlarged(x, self.scale) if self.scale > 1 else x
        h = F.relu(self.stem(fine * 2 - 1), inplace=True)
        maps = []
        for number, stage in enumerate(self.encoder):
            if number:
                h = F.relu(self.down[number - 1](h), inplace=True)
            h = stage(h)
            maps.append(h)
        return maps

    def raw(self, x: Tensor) -> Tensor:
        *skipped, h = self.maps(x)
        for up, join, stage, other in zip(self.up, self.join, self.decoder, skipped[::-1], strict=True):
            h = F.relu(up(h), inplace=True)
            h = stage(F.relu(join(torch.cat([h, other], 1)), inplace=True))
        y: Tensor = self.last(h)
        return y


def _stage(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(width) for _ in range(blocks)))
