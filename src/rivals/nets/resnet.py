"""A residual classifier for small color images (He et al. 2016)."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.size import AnySize
from rivals.nets.classifier import Classifier, check_stages
from rivals.nets.padding import MOST_LAYERS, to_channels_last


class ResNet(Classifier):
    """A 3x3 convolution, residual blocks, global average pooling and a linear layer.

    Each of the ``widths`` is a stage of ``blocks`` blocks. The first stage is the convolution alone, at full
    resolution; each later one halves it, so most of the work is at low resolution and fast on a CPU. Batch norm
    follows each convolution, so that attacks can fold it into the weights.

    The default, (32, 64, 128, 256) with one block each, is 7 convolutions deep and has 1.2M parameters; images below
    16 px allow the first three stages only.
    """

    def __init__(
        self,
        *,
        size: AnySize,
        channels: int,
        classes: int,
        widths: tuple[int, ...] = (),
        mean: tuple[float, ...] = (),
        std: tuple[float, ...] = (),
        blocks: int = 1,
    ) -> None:
        widths = check_stages("resnet", widths, (32, 64, 128, 256), size, full_size=1)
        if not 1 <= blocks <= MOST_LAYERS:
            raise UserError(f"a resnet of {blocks} blocks per stage cannot be built: take 1 to {MOST_LAYERS}")
        super().__init__(
            "resnet",
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
        layers: list[nn.Module] = []
        for in_channels, out_channels in pairwise(widths):
            layers += [
                Block(in_channels, out_channels, 2),
                *(Block(out_channels, out_channels, 1) for _ in range(blocks - 1)),
            ]
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], classes)
        to_channels_last(self)

    def forward_normalized(self, x: Tensor) -> Tensor:
        """Normalized images (B, C, H, W) to logits (B, classes)."""
        h = self.blocks(self.stem(x))
        logits: Tensor = self.head(h.mean((2, 3)))
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions, the first with ``stride``, and a shortcut: the identity or a 1x1 convolution.

    The stride of the shortcut is an average pooling of single pixels before the 1x1 convolution. With a strided 1x1
    convolution of fewer channels than a vector register holds (16 at most), oneDNN's backward pass writes out of
    bounds (uxlfoundation/oneDNN issue 6035).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        # Average pooling of 1x1 windows takes every stride-th pixel.
        self.subsample: nn.Module = nn.Identity() if stride == 1 else nn.AvgPool2d(1, stride)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (B, C, H, W) to (B, C', H / stride, W / stride), rounded up."""
        h = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(h)) + self.shortcut(self.subsample(x)), inplace=True)
