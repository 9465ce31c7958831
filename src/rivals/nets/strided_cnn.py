"""A convolutional classifier for training with interval bounds."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from rivals.base.size import AnySize
from rivals.nets.classifier import Classifier, check_stages
from rivals.nets.padding import to_channels_last

_HIDDEN = 256


class StridedCNN(Classifier):
    """Stages of two 3x3 convolutions, the first with stride 2, then a hidden layer of 256; batch norm after each.

    The kind of network that certified training uses (Gowal et al. 2018, table 1; Shi et al. 2021, CNN-7): strides
    instead of pooling, and batch norm, which keeps units from being always on or off. Here already the first
    convolution halves the resolution, for a quarter of the compute.

    ``widths`` has one number per stage: (32, 64) by default.
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
    ) -> None:
        widths = check_stages("strided", widths, (32, 64), size)
        super().__init__("strided", size=size, channels=channels, classes=classes, widths=widths, mean=mean, std=std)
        layers: list[nn.Module] = []
        height, width = self.size
        for in_channels, out_channels in pairwise((channels, *widths)):
            layers += [
                nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
            height, width = (height + 1) // 2, (width + 1) // 2
        self.stages = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(widths[-1] * height * width, _HIDDEN, bias=False),
            nn.BatchNorm1d(_HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(_HIDDEN, classes),
        )
        to_channels_last(self)

    def forward_normalized(self, x: Tensor) -> Tensor:
        """Normalized images (B, C, H, W) to logits (B, classes)."""
        logits: Tensor = self.head(self.stages(x).flatten(1))
        return logits
