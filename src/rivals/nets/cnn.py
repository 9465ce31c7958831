"""A plain convolutional classifier for small grey images, in the shape that the field measures MNIST with."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from rivals.nets.canvas import channels_last
from rivals.nets.classifier import Classifier, check_stages

_HIDDEN = 200


class CNN(Classifier):
    """Stages of two 3x3 convolutions and a max-pool, then two hidden layers of 200 (Carlini & Wagner 2017, table I).

    ``widths`` has one number a stage: (32, 64) by default, as published. Here the convolutions are padded, so that any
    size of images works, and nothing drops out. There is no batch norm: the net is the same in training and after.
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
    ) -> None:
        widths = check_stages("cnn", widths, (32, 64), size)
        super().__init__("cnn", size=size, channels=channels, classes=classes, widths=widths, mean=mean, std=std)
        layers: list[nn.Module] = []
        for wide, next_wide in pairwise((channels, *widths)):
            layers += [nn.Conv2d(wide, next_wide, 3, padding=1), nn.ReLU(inplace=True)]
            layers += [nn.Conv2d(next_wide, next_wide, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.stages = nn.Sequential(*layers)
        flat = widths[-1] * (size >> len(widths)) ** 2
        self.head = nn.Sequential(
            *(nn.Linear(flat, _HIDDEN), nn.ReLU(inplace=True)),
            *(nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU(inplace=True)),
            nn.Linear(_HIDDEN, classes),
        )
        channels_last(self)

    def score(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stages(x).flatten(1))
        return logits
