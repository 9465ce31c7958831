"""Weight files: where they are looked for, how they are read without unpickling, and what to do where there is none."""

from __future__ import annotations

import hashlib
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

Weights = Mapping[str, Tensor]
_BLOCK = 1 << 24  # bytes hashed at a time


class Missing(UserError):
    """Weights that are not on this machine. The text says what to fetch and where to put it."""


@dataclass(frozen=True)
class Published:
    """A published file of weights.

    Attributes:
        extractor: Whose weights they are.
        url: Where to fetch it.
        names: What the file is called in the usual caches; the first is the one of ``url``.
        repositories: Of Hugging Face's hub, whose cache may hold it.
        digests: How the SHA-256 of a genuine file begins.
    """

    extractor: str
    url: str
    names: tuple[str, ...]
    repositories: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()

    def find(self, path: Path | None) -> Path:
        """The file at ``path``, or in the usual caches if None.

        Raises:
            Missing: it is not there.
        """
        if path is not None:
            if path.is_file():
                return path
            raise Missing(f"there is no file of weights '{path}': fetch {self.url}, or leave the path out")
        found = next((each for each in self._places() if each.is_file()), None)
        if found is None:
            raise Missing(
                f"{self.extractor} has no weights here: fetch {self.url} and put it into {home()}, or name the file "
                f"as {self.extractor}:PATH"
            )
        return found

    def _places(self) -> Iterable[Path]:
        for folder in (home(), Path(torch.hub.get_dir()) / "checkpoints"):
            yield from (folder / name for name in self.names)
        hub = Path(os.environ.get("HF_HOME") or _cache() / "huggingface") / "hub"
        for repository in self.repositories:
            snapshots = hub / f"models--{repository.replace('/', '--')}" / "snapshots"
            yield from sorted(snapshots.glob("*/model.safetensors"))

    def genuine(self, path: Path) -> bool:
        """Whether the file is the published one, byte for byte; so if its digest is not known."""
        return not self.digests or sha256(path).startswith(self.digests)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def home() -> Path:
    """Where weights are looked for first: ``$XDG_CACHE_HOME/rivals/weights``."""
    return _cache() / "rivals" / "weights"


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read(path: Path) -> Weights:
    """The tensors in a ``.safetensors`` file, or in one of torch.save, which is read without unpickling objects.

    Raises:
        UserError: it cannot be read so.
    """
    try:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"the weights '{path}' cannot be read ({reason[:120]}): fetch the file anew") from None
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"'{path}' holds more or other things than weights: give a state dict")
    return found


def folded(weights: Weights, conv: str, norm: str, *, eps: float, **how: int | tuple[int, int]) -> nn.Conv2d:
    """A convolution with the batch norm behind it folded in: ``w' = w g / s``, ``b' = b - m g / s``.

    Args:
        weights: The file's tensors.
        conv: Name of the convolution in it, which has no bias.
        norm: Name of the batch norm (scale g, shift b, mean m, variance s^2 - eps).
        eps: Of the batch norm.
        how: Stride, padding and groups.

    Raises:
        KeyError: the file has no such tensor.
    """
    weight = weights[f"{conv}.weight"].double()
    scale = weights[f"{norm}.weight"].double() / (weights[f"{norm}.running_var"].double() + eps).sqrt()
    shift = weights[f"{norm}.bias"].double() - weights[f"{norm}.running_mean"].double() * scale
    return plain(weight * scale.view(-1, 1, 1, 1), shift, **how)


def plain(weight: Tensor, bias: Tensor | None, **how: int | tuple[int, int]) -> nn.Conv2d:
    """A convolution with this weight (out, in / groups, h, w) and bias (out,)."""
    wide, deep, high, broad = weight.shape
    groups = how.get("groups", 1)
    assert isinstance(groups, int)
    with torch.device("meta"):  # nothing random is drawn
        made = nn.Conv2d(deep * groups, wide, (high, broad), bias=bias is not None, **how)  # type: ignore[arg-type]
    made.weight = nn.Parameter(weight.float().contiguous(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.float().contiguous(), requires_grad=False)
    return made


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with this weight (out, in) and bias (out,)."""
    with torch.device("meta"):
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(weight.float().contiguous(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.float().contiguous(), requires_grad=False)
    return made
