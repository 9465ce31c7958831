"""Inception of 2015-12-05, by whose features FID, KID and the Inception Score are defined.

The graph is TensorFlow's frozen one, which differs from torchvision's: average pools leave padding out of the count,
the pool of the last block takes maxima, batch norm's epsilon is 1e-3, there are 1008 classes. Images go in as
(x - 128) / 128 after TensorFlow 1's bilinear resize.
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
from rivals.extractors.extractor import Extractor
from rivals.extractors.resize import tf1_bilinear
from rivals.extractors.weights import Published, Weights, folded, linear, read

PUBLISHED = Published(
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
            the usual caches if None. A scripted module is a program: take it from its publisher only.

    Raises:
        Missing: there is no such file.
        UserError: it holds another network.
    """
    file = PUBLISHED.find(path)
    try:
        net = Scripted(file) if _is_script(file) else Inception(read(file))
    except KeyError as error:
        raise UserError(
            f"'{file}' holds no Inception of 2015-12-05, as it lacks {error}: fetch {PUBLISHED.url}"
        ) from None
    return Extractor("inception", net, _prepared, size=SIZE, resize="TF1 bilinear", official=PUBLISHED.genuine(file))


def _prepared(x: Tensor) -> Tensor:
    return (tf1_bilinear(x, SIZE) - 128) / 128


def _is_script(path: Path) -> bool:
    """Whether it is an archive of TorchScript, which holds code, and not one of torch.save."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


class Scripted(nn.Module):
    """NVIDIA's scripted graph. It resizes nothing, as its input has the right size already, and is given pixels that
    its own ``x / 127.5 - 1`` turns into what the definition's ``x / 128 - 1`` makes of the image's."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():  # TorchScript is deprecated, but a published file is what it is
                warnings.simplefilter("ignore")
                self.script: Any = torch.jit.load(path, "cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the module '{path}' cannot be read ({str(error).splitlines()[0][:120]}): fetch it anew"
            ) from None
        self.head = linear(self.script.state_dict()["output.weight"], None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, 299, 299) in [-1, 1] to features (B, 2048) and logits without bias (B, 1008)."""
        features: Tensor = self.script(x * 127.5 + 127.5, return_features=True)
        return features, self.head(features)


class Inception(nn.Module):
    """The graph (Szegedy et al. 2016), its layers named as in the state dict; batch norms are folded in."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        take = partial(_take, weights)
        self.stem = nn.Sequential(
            *(take("Conv2d_1a_3x3", stride=2, padded=False), take("Conv2d_2a_3x3", padded=False)),
            *(take("Conv2d_2b_3x3"), nn.MaxPool2d(3, 2)),
            *(take("Conv2d_3b_1x1"), take("Conv2d_4a_3x3", padded=False), nn.MaxPool2d(3, 2)),
        )
        self.mixed = nn.Sequential(
            *(_a(partial(_take, weights, f"Mixed_5{letter}")) for letter in "bcd"),
            _b(partial(_take, weights, "Mixed_6a")),
            *(_c(partial(_take, weights, f"Mixed_6{letter}")) for letter in "bcde"),
            _d(partial(_take, weights, "Mixed_7a")),
            _e(partial(_take, weights, "Mixed_7b"), _average()),
            _e(partial(_take, weights, "Mixed_7c"), nn.MaxPool2d(3, 1, padding=1)),
        )
        # The Inception Score leaves the bias out (Salimans et al. 2016, as their code has it).
        self.head = linear(weights["fc.weight"], None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, 299, 299) in [-1, 1] to features (B, 2048) and logits without bias (B, 1008)."""
        features = self.mixed(self.stem(x)).mean((2, 3))
        return features, self.head(features)


class Beside(nn.Module):
    """Layers beside each other: their outputs one after the other along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def _take(weights: Weights, *names: str, stride: int = 1, padded: bool = True) -> nn.Sequential:
    """A convolution, its batch norm and ReLU; padded so that it keeps the size, or not at all."""
    name = ".".join(names)
    high, broad = weights[f"{name}.conv.weight"].shape[2:]
    padding = (high // 2, broad // 2) if padded else (0, 0)
    conv = folded(weights, f"{name}.conv", f"{name}.bn", eps=EPS, stride=stride, padding=padding)
    return nn.Sequential(conv, nn.ReLU(True))


def _average() -> nn.AvgPool2d:
    return nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)


def _a(take: partial[nn.Sequential]) -> Beside:
    return Beside(
        take("branch1x1"),
        nn.Sequential(take("branch5x5_1"), take("branch5x5_2")),
        nn.Sequential(take("branch3x3dbl_1"), take("branch3x3dbl_2"), take("branch3x3dbl_3")),
        nn.Sequential(_average(), take("branch_pool")),
    )


def _b(take: partial[nn.Sequential]) -> Beside:
    last = take("branch3x3dbl_3", stride=2, padded=False)
    return Beside(
        take("branch3x3", stride=2, padded=False),
        nn.Sequential(take("branch3x3dbl_1"), take("branch3x3dbl_2"), last),
        nn.MaxPool2d(3, 2),
    )


def _c(take: partial[nn.Sequential]) -> Beside:
    return Beside(
        take("branch1x1"),
        nn.Sequential(*(take(f"branch7x7_{i}") for i in (1, 2, 3))),
        nn.Sequential(*(take(f"branch7x7dbl_{i}") for i in (1, 2, 3, 4, 5))),
        nn.Sequential(_average(), take("branch_pool")),
    )


def _d(take: partial[nn.Sequential]) -> Beside:
    last = take("branch7x7x3_4", stride=2, padded=False)
    return Beside(
        nn.Sequential(take("branch3x3_1"), take("branch3x3_2", stride=2, padded=False)),
        nn.Sequential(*(take(f"branch7x7x3_{i}") for i in (1, 2, 3)), last),
        nn.MaxPool2d(3, 2),
    )


def _e(take: partial[nn.Sequential], pool: nn.Module) -> Beside:
    split = Beside(take("branch3x3_2a"), take("branch3x3_2b"))
    double = Beside(take("branch3x3dbl_3a"), take("branch3x3dbl_3b"))
    return Beside(
        take("branch1x1"),
        nn.Sequential(take("branch3x3_1"), split),
        nn.Sequential(take("branch3x3dbl_1"), take("branch3x3dbl_2"), double),
        nn.Sequential(pool, take("branch_pool")),
    )
