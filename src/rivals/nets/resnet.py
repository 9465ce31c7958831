"""Residual classifiers for small colour images."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.nets.canvas import channels_last
from rivals.nets.classifier import Classifier, check_stages


class ResNet(Classifier):
    """A 3x3 convolution, then residual blocks (He et al. 2016), the mean over all pixels, and a linear layer.

    Each of the ``widths`` is a stage of ``blocks`` blocks; the first stage is the convolution alone, which keeps the
    images' size, and each later one halves it. So most of the work is done on small images, and a batch of 32 px
    images passes quickly on a CPU. Batch norm follows each convolution, where an attack can fold it away.

    The default, (32, 64, 128, 256) with one block each, has 7 convolutions in a row and 1.2M parameters; images below
    16 px have room for the first three only.
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        classes: int,
        widths: tuple[int, ...] = (),
        mean: tuple[float, ...] = (),
        std: tuple[float, ...] = (),
        blocks: int = 1,
    ) -> None:
        widths = check_stages("resnet", widths, (32, 64, 128, 256), size, whole=1)
        if not 1 <= blocks <= 100:
            raise UserError(f"a resnet of {blocks} blocks a stage cannot be built: take 1 to 100")
        super().__init__(
            *("resnet",),
            size=size,
            channels=channels,
            classes=classes,
            widths=widths,
            mean=mean,
            std=std,
            blocks=blocks,
        )
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        chain: list[nn.Module] = []
        for wide, next_wide in pairwise(widths):
            chain += [Block(wide, next_wide, 2), *(Block(next_wide, next_wide, 1) for _ in range(blocks - 1))]
        self.blocks = nn.Sequential(*chain)
        self.head = nn.Linear(widths[-1], classes)
        channels_last(self)

    def score(self, x: Tensor) -> Tensor:
        h = self.blocks(self.stem(x))
        logits: Tensor = self.head(h.mean((2, 3)))
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions, the first by ``stride``, beside the identity or, where the shape changes, a 1x1 one.

    The 1x1 convolution is handed every ``stride``-th pixel, by a pooling of one pixel each. Told of the stride itself,
    with fewer channels than a vector register holds (16 at most), oneDNN's backward pass writes beyond its memory
    (uxlfoundation/oneDNN issue 6035).
    """

    def __init__(self, wide: int, next_wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide, next_wide, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(next_wide)
        self.conv2 = nn.Conv2d(next_wide, next_wide, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(next_wide)
        self.thinned: nn.Module = nn.Identity() if stride == 1 else nn.AvgPool2d(1, stride)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or wide != next_wide:
            self.shortcut = nn.Sequential(nn.Conv2d(wide, next_wide, 1, bias=False), nn.BatchNorm2d(next_wide))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(h)) + self.shortcut(self.thinned(x)), inplace=True)
