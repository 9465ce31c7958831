"""VGG16, trained on ImageNet, whose features define improved precision and recall (Kynkäänniemi et al. 2019)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.extractors.base import Extractor
from rivals.extractors.resize import IMAGENET, antialiased_bilinear, normalize
from rivals.extractors.weights import PublishedWeights, Weights, conv2d, linear, read

PUBLISHED = PublishedWeights(
    "vgg16", "https://download.pytorch.org/models/vgg16-397923af.pth", ("vgg16-397923af.pth",), digests=("397923af",)
)
SIZE = 224
STAGES = (2, 2, 3, 3, 3)  # convolutions before each pool (Simonyan & Zisserman 2015, table 1, D)


def open_vgg16(path: Path | None = None) -> Extractor:
    """The extractor ``vgg16``: the 4096 values after the second hidden layer's ReLU, and 1000 logits.

    Args:
        path: torchvision's weights; from the usual caches by default.

    Raises:
        MissingWeights: there is no such file.
        UserError: it holds another network.
    """
    file = PUBLISHED.find(path)
    try:
        net = VGG16(read(file))
    except KeyError as error:
        raise UserError(f"'{file}' holds no VGG16, as it lacks {error}: fetch {PUBLISHED.url}") from None
    official = PUBLISHED.is_official(file)
    return Extractor("vgg16", net, _prepare, size=SIZE, resize="antialiased bilinear", official=official)


def _prepare(x: Tensor) -> Tensor:
    return normalize(antialiased_bilinear(x, SIZE), *IMAGENET)


class VGG16(nn.Module):
    """The network, its layers numbered as in torchvision's state dict."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for convolutions in STAGES:
            for _ in range(convolutions):
                name = f"features.{len(layers)}"
                conv = conv2d(weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)
                layers += [conv, nn.ReLU(True)]
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)
        first, second, self.head = (
            linear(weights[f"classifier.{i}.weight"], weights[f"classifier.{i}.bias"]) for i in (0, 3, 6)
        )
        self.hidden = nn.Sequential(first, nn.ReLU(True), second, nn.ReLU(True))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, 224, 224), normalized, to features (B, 4096) and logits (B, 1000)."""
        features = self.hidden(self.layers(x).flatten(1))
        return features, self.head(features)
