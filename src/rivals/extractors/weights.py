"""Weight files: finding them, reading them without unpickling, and layers made from them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.hashing import sha256

Weights = Mapping[str, Tensor]


class MissingWeights(UserError):
    """Weights that are not on this machine. The message says what to download, and where to put it."""


@dataclass(frozen=True)
class PublishedWeights:
    """A published file of weights.

    Attributes:
        extractor: Name of the extractor.
        url: Its address.
        names: Names of the file in the usual caches; the first is that of ``url``.
        repositories: Repositories on the Hugging Face Hub, whose cache may hold it.
        digests: Prefixes of the SHA-256 of official files.
    """

    extractor: str
    url: str
    names: tuple[str, ...]
    repositories: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()

    def find(self, path: Path | None) -> Path:
        """The file at ``path``, by default in the usual caches.

        Raises:
            MissingWeights: there is no such file.
        """
        if path is not None:
            if path.is_file():
                return path
            raise MissingWeights(f"there is no file of weights '{path}': fetch {self.url}, or leave the path out")
        found = next((each for each in self._candidates() if each.is_file()), None)
        if found is None:
            raise MissingWeights(
                f"{self.extractor} has no weights here: fetch {self.url} and put it into {home()}, or name the file "
                f"as {self.extractor}:PATH"
            )
        return found

    def _candidates(self) -> Iterable[Path]:
        for folder in (home(), Path(torch.hub.get_dir()) / "checkpoints"):
            yield from (folder / name for name in self.names)
        hub = Path(os.environ.get("HF_HOME") or _cache() / "huggingface") / "hub"
        for repository in self.repositories:
            snapshots = hub / f"models--{repository.replace('/', '--')}" / "snapshots"
            yield from sorted(snapshots.glob("*/model.safetensors"))

    def is_official(self, path: Path) -> bool:
        """Whether the file has a published SHA-256; true if none is known."""
        return not self.digests or sha256(path).startswith(self.digests)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def home() -> Path:
    """The first place where weights are searched: ``$XDG_CACHE_HOME/rivals/weights``."""
    return _cache() / "rivals" / "weights"


def read(path: Path) -> Weights:
    """The state dict in a ``.safetensors`` file, or in one of torch.save, read with ``weights_only``.

    Raises:
        UserError: it cannot be read, or holds other objects.
    """
    try:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"the weights '{path}' cannot be read ({reason[:120]}): fetch the file anew") from None
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"'{path}' holds more or other things than weights: give a state dict")
    return found


def folded_conv(weights: Weights, conv: str, norm: str, *, eps: float, **options: int | tuple[int, int]) -> nn.Conv2d:
    """A convolution with the following batch norm folded in: ``w' = w g / s``, ``b' = b - m g / s``.

    Args:
        weights: The state dict.
        conv: Name of the convolution, which has no bias.
        norm: Name of the batch norm (scale g, shift b, mean m, variance s^2 - eps).
        eps: Of the batch norm.
        options: Stride, padding and groups.

    Raises:
        KeyError: there is no such tensor.
    """
    weight = weights[f"{conv}.weight"].double()
    scale = weights[f"{norm}.weight"].double() / (weights[f"{norm}.running_var"].double() + eps).sqrt()
    shift = weights[f"{norm}.bias"].double() - weights[f"{norm}.running_mean"].double() * scale
    return conv2d(weight * scale.view(-1, 1, 1, 1), shift, **options)


def conv2d(weight: Tensor, bias: Tensor | None, **options: int | tuple[int, int]) -> nn.Conv2d:
    """A convolution with this weight (out, in / groups, h, w) and bias (out,)."""
    out_channels, in_channels, height, width = weight.shape
    groups = options.get("groups", 1)
    assert isinstance(groups, int)
    with torch.device("meta"):  # no random initialization
        layer = nn.Conv2d(in_channels * groups, out_channels, (height, width), bias=bias is not None, **options)  # type: ignore[arg-type]
    layer.weight = nn.Parameter(weight.float().contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.float().contiguous(), requires_grad=False)
    return layer


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with this weight (out, in) and bias (out,)."""
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.float().contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.float().contiguous(), requires_grad=False)
    return layer
