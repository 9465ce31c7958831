"""A residual translator (Johnson et al. 2016, CycleGAN's), which also enlarges, as EDSR does (Lim et al. 2017)."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from rivals.nets.perturber import Residual
from rivals.nets.resampling import DownConv2d, UpConv2d
from rivals.nets.translator import Translator


class ResNetTranslator(Translator):
    """A convolution, halvings, residual blocks at the lowest resolution, doublings, a convolution.

    ``widths`` are the channels from the resolution of the input down: each but the first halves it. By default there
    are (64,) where the image is enlarged, so that most of the work is done at the input's resolution, else (32, 64,
    96).
    """

    net = "resnet"
    default_blocks = 4

    def default_widths(self) -> tuple[int, ...]:
        return (64,) if self.scale > 1 else (32, 64, 96)

    def build(self, widths: tuple[int, ...], blocks: int) -> None:
        halvings, doublings = len(widths) - 1, self.scale.bit_length() - 1
        self.multiple = 2**halvings
        self.stem = nn.Conv2d(self.in_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(DownConv2d(inputs, outputs) for inputs, outputs in pairwise(widths))
        self.blocks = nn.ModuleList(Residual(widths[-1]) for _ in range(blocks))
        # Beyond the input's resolution each doubling has half the channels, down to 16: it has four times the pixels.
        larger = [max(min(16, widths[0]), widths[0] >> step) for step in range(doublings + 1)]
        self.up = nn.ModuleList(
            UpConv2d(inputs, outputs) for inputs, outputs in [*pairwise(widths[::-1]), *pairwise(larger)]
        )
        self.last = nn.Conv2d(larger[-1], self.channels, 3, padding=1)
        # Convolutions of 3 pixels see 1 to each side, at the resolution where they are; a block has two. An UpConv2d
        # sees one pixel of the lower resolution, a DownConv2d two of the higher one. Half a coarse pixel may be added
        # by where it begins, and bicubic interpolation sees 2 pixels.
        down = sum(2 << step for step in range(halvings))
        up = sum(2 << step for step in range(halvings)) + doublings
        self.reach = 2 + down + 2 * blocks * self.multiple + up + self.multiple

    def maps(self, x: Tensor) -> list[Tensor]:
        maps = [F.relu(self.stem(x * 2 - 1))]
        for layer in self.down:
            maps.append(F.relu(layer(maps[-1])))
        h = maps[-1]
        for number, block in enumerate(self.blocks, 1):
            h = block(h)
            if number in (len(self.blocks) // 2, len(self.blocks)):
                maps.append(h)
        return maps

    def raw(self, x: Tensor) -> Tensor:
        h = self.stem(x * 2 - 1)
        for layer in self.down:
            h = layer(F.relu(h, inplace=True))
        h = F.relu(h, inplace=True)
        for block in self.blocks:
            h = block(h)
        for layer in self.up:
            h = F.relu(layer(h), inplace=True)
        y: Tensor = self.last(h)
        return y
