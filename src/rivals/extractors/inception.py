"""Inception of 2015-12-05, whose features define FID, KID and the Inception Score.

TensorFlow's frozen graph differs from torchvision's network: average pooling does not count the padding, the last block
has max pooling, the epsilon of batch norm is 1e-3, and there are 1008 classes. The input is (x - 128) / 128 after
TensorFlow 1's bilinear resize.
"""

from __future__ import annotations

import warnings
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.extractors.base import Extractor
from rivals.extractors.resize import tf1_bilinear
from rivals.extractors.weights import PublishedWeights, Weights, folded_conv, linear, read

PUBLISHED = PublishedWeights(
    "inception",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    (
        "weights-inception-2015-12-05-6726825d.pth",  # torch-fidelity's name
        "pt_inception-2015-12-05-6726825d.pth",  # pytorch-fid's, of the same bytes
        "inception-2015-12-05.pt",  # NVIDIA's, scripted
    ),
    digests=("6726825d", "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"),
)
SIZE = 299
EPS = 1e-3


def open_inception(path: Path | None = None) -> Extractor:
    """The extractor ``inception``: features of length 2048 and logits of 1008 classes without their bias.

    Args:
        path: A state dict as torch-fidelity and pytorch-fid publish it, or the scripted module of StyleGAN2-ADA; from
            the usual caches by default. A scripted module is executable code: use only its publisher's.

    Raises:
        MissingWeights: there is no such file.
        UserError: it holds another network.
    """
    file = PUBLISHED.find(path)
    try:
        net = Scripted(file) if _is_script(file) else Inception(read(file))
    except KeyError as error:
        raise UserError(
            f"'{file}' holds no Inception of 2015-12-05, as it lacks {error}: fetch {PUBLISHED.url}"
        ) from None
    return Extractor("inception", net, _prepare, size=SIZE, resize="TF1 bilinear", official=PUBLISHED.is_official(file))


def _prepare(x: Tensor) -> Tensor:
    return (tf1_bilinear(x, SIZE) - 128) / 128


def _is_script(path: Path) -> bool:
    """Whether it is a TorchScript archive, which holds code, not one of torch.save."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


class Scripted(nn.Module):
    """NVIDIA's scripted network, which takes images in [0, 255] and itself subtracts 128 and divides by 128.

    Its input has the right size already. That it scales so is taken from independent transcriptions of the network: the
    file is not at hand to check it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():  # TorchScript is deprecated
                warnings.simplefilter("ignore")
                self.script: Any = torch.jit.load(path, "cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the module '{path}' cannot be read ({str(error).splitlines()[0][:120]}): fetch it anew"
            ) from None
        self.head = linear(self.script.state_dict()["output.weight"], None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, 299, 299) in [-1, 1] to features (B, 2048) and logits without bias (B, 1008)."""
        features: Tensor = self.script(x * 128 + 128, return_features=True)
        return features, self.head(features)


class Inception(nn.Module):
    """The network (Szegedy et al. 2016), with batch norms folded in; its layers are named as in the state dict."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        conv = partial(_conv_relu, weights)
        self.stem = nn.Sequential(
            conv("Conv2d_1a_3x3", stride=2, padded=False),
            conv("Conv2d_2a_3x3", padded=False),
            conv("Conv2d_2b_3x3"),
            nn.MaxPool2d(3, 2),
            conv("Conv2d_3b_1x1"),
            conv("Conv2d_4a_3x3", padded=False),
            nn.MaxPool2d(3, 2),
        )
        self.mixed = nn.Sequential(
            *(_a(partial(_conv_relu, weights, f"Mixed_5{letter}")) for letter in "bcd"),
            _b(partial(_conv_relu, weights, "Mixed_6a")),
            *(_c(partial(_conv_relu, weights, f"Mixed_6{letter}")) for letter in "bcde"),
            _d(partial(_conv_relu, weights, "Mixed_7a")),
            _e(partial(_conv_relu, weights, "Mixed_7b"), _average()),
            _e(partial(_conv_relu, weights, "Mixed_7c"), nn.MaxPool2d(3, 1, padding=1)),
        )
        # The Inception Score omits the bias (in the code of Salimans et al. 2016).
        self.head = linear(weights["fc.weight"], None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, 299, 299) in [-1, 1] to features (B, 2048) and logits without bias (B, 1008)."""
        features = self.mixed(self.stem(x)).mean((2, 3))
        return features, self.head(features)


class Concat(nn.Module):
    """Parallel branches, concatenated along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def _conv_relu(weights: Weights, *names: str, stride: int = 1, padded: bool = True) -> nn.Sequential:
    """A convolution with folded batch norm, and ReLU; ``padded`` keeps the resolution."""
    name = ".".join(names)
    height, width = weights[f"{name}.conv.weight"].shape[2:]
    padding = (height // 2, width // 2) if padded else (0, 0)
    layer = folded_conv(weights, f"{name}.conv", f"{name}.bn", eps=EPS, stride=stride, padding=padding)
    return nn.Sequential(layer, nn.ReLU(True))


def _average() -> nn.AvgPool2d:
    return nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)


def _a(conv: partial[nn.Sequential]) -> Concat:
    return Concat(
        conv("branch1x1"),
        nn.Sequential(conv("branch5x5_1"), conv("branch5x5_2")),
        nn.Sequential(conv("branch3x3dbl_1"), conv("branch3x3dbl_2"), conv("branch3x3dbl_3")),
        nn.Sequential(_average(), conv("branch_pool")),
    )


def _b(conv: partial[nn.Sequential]) -> Concat:
    last = conv("branch3x3dbl_3", stride=2, padded=False)
    return Concat(
        conv("branch3x3", stride=2, padded=False),
        nn.Sequential(conv("branch3x3dbl_1"), conv("branch3x3dbl_2"), last),
        nn.MaxPool2d(3, 2),
    )


def _c(conv: partial[nn.Sequential]) -> Concat:
    return Concat(
        conv("branch1x1"),
        nn.Sequential(*(conv(f"branch7x7_{i}") for i in (1, 2, 3))),
        nn.Sequential(*(conv(f"branch7x7dbl_{i}") for i in (1, 2, 3, 4, 5))),
        nn.Sequential(_average(), conv("branch_pool")),
    )


def _d(conv: partial[nn.Sequential]) -> Concat:
    last = conv("branch7x7x3_4", stride=2, padded=False)
    return Concat(
        nn.Sequential(conv("branch3x3_1"), conv("branch3x3_2", stride=2, padded=False)),
        nn.Sequential(*(conv(f"branch7x7x3_{i}") for i in (1, 2, 3)), last),
        nn.MaxPool2d(3, 2),
    )


def _e(conv: partial[nn.Sequential], pool: nn.Module) -> Concat:
    split = Concat(conv("branch3x3_2a"), conv("branch3x3_2b"))
    double = Concat(conv("branch3x3dbl_3a"), conv("branch3x3dbl_3b"))
    return Concat(
        conv("branch1x1"),
        nn.Sequential(conv("branch3x3_1"), split),
        nn.Sequential(conv("branch3x3dbl_1"), conv("branch3x3dbl_2"), double),
        nn.Sequential(pool, conv("branch_pool")),
    )
