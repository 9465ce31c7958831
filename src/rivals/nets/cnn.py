"""The convolutional classifier of Carlini & Wagner (2017), customary for MNIST."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from rivals.base.size import AnySize
from rivals.nets.classifier import Classifier, check_stages
from rivals.nets.padding import to_channels_last

_HIDDEN = 200


class CNN(Classifier):
    """Stages of two 3x3 convolutions and a max-pool, then two hidden layers of 200 (Carlini & Wagner 2017, table I).

    ``widths`` has one number per stage: (32, 64) by default, as published. Here the convolutions are padded, so that
    any image size works, and there is no dropout and no batch norm: training and evaluation mode are the same.
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
        widths = check_stages("cnn", widths, (32, 64), size)
        super().__init__("cnn", size=size, channels=channels, classes=classes, widths=widths, mean=mean, std=std)
        layers: list[nn.Module] = []
        for in_channels, out_channels in pairwise((channels, *widths)):
            layers += [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True)]
            layers += [nn.Conv2d(out_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.stages = nn.Sequential(*layers)
        flat = widths[-1] * (self.size.height >> len(widths)) * (self.size.width >> len(widths))
        self.head = nn.Sequential(
            nn.Linear(flat, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(_HIDDEN, classes),
        )
        to_channels_last(self)

    def forward_normalized(self, x: Tensor) -> Tensor:
        """Normalized images (B, C, H, W) to logits (B, classes)."""
        logits: Tensor = self.head(self.stages(x).flatten(1))
        return logits
