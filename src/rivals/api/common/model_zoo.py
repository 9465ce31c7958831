"""Models by name: a finished classifier of ours, or one of torchvision's or timm's with its normalisation inside."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.base.errors import UserError
from rivals.base.registry import unknown

if TYPE_CHECKING:
    from torch import nn

HOW = "name a run folder, a classifier.safetensors, torchvision:NAME or timm:NAME"


@dataclass(frozen=True)
class Named:
    """A classifier with what is known of it.

    Attributes:
        model: Images (n, C, H, W) in [0, 1] to logits (n, K).
        name: What it is called.
        size: The side of the images it takes, in pixels, or None if that is not known.
        channels: How many channels they have, or None.
        mean: Of the normalisation that was put inside, if one was.
        std: Likewise.
    """

    model: nn.Module
    name: str
    size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def find_model(
    asked: str | os.PathLike[str] | nn.Module, *, mean: Sequence[float] = (), std: Sequence[float] = ()
) -> Named:
    """The classifier that is meant.

    Args:
        asked: An ``nn.Module``, a run folder, a ``classifier.safetensors``, ``torchvision:NAME[:WEIGHTS]`` (WEIGHTS as
            torchvision calls them, ``none`` for random ones; its newest if left out), or ``timm:NAME``.
        mean: What to take from each channel first; the model's own if empty.
        std: What to divide each channel by; the model's own if empty.

    Raises:
        UserError: there is no such model, it cannot be had here, or mean and std do not fit.
    """
    from torch import nn

    from rivals.nets.wrapped import Normalised

    if isinstance(asked, nn.Module):
        found = _given(asked)
    elif isinstance(asked, str | os.PathLike):
        text = os.fspath(asked)
        kind, colon, rest = text.partition(":")
        if colon and kind in _HUBS:
            found = _HUBS[kind](rest)
        elif colon and not Path(text).exists() and "/" not in kind:
            raise UserError(f"'{text}' is no model: {HOW}")
        else:
            found = _ours(text)
    else:
        raise UserError(f"the model is a {type(asked).__name__}: give an nn.Module, or {HOW}")
    mean, std = tuple(mean) or found.mean, tuple(std) or found.std
    if not mean and not std:
        return found
    channels = found.channels
    if channels and {len(mean), len(std)} != {channels}:
        raise UserError(
            f"mean has {len(mean)} numbers and std {len(std)}, but the model takes {channels} channels: give "
            f"{channels} of each"
        )
    inside = Normalised(found.model, mean, std)
    inside.training = found.model.training
    return Named(inside, found.name, found.size, channels, mean, std)


def fingerprint(model: nn.Module) -> str:
    """What the weights are, in 16 hexadecimal digits."""
    import torch

    digest = hashlib.blake2b(digest_size=8)
    for name, values in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _given(model: nn.Module) -> Named:
    about: Any = model
    size, channels = getattr(about, "size", None), getattr(about, "channels", None)
    return Named(
        model,
        type(model).__name__,
        size if isinstance(size, int) else None,
        channels if isinstance(channels, int) else _first_channels(model),
    )


def _first_channels(model: nn.Module) -> int | None:
    """How many channels the first layer takes, if it is a convolution."""
    from torch import nn

    first = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)), None)
    return first.in_channels if isinstance(first, nn.Conv2d) else None


def _ours(path: str) -> Named:
    from rivals.api.networks import load

    file = Path(path).expanduser()
    if not file.exists():
        raise UserError(f"there is no model '{path}': {HOW}")
    if (file / "classifier.safetensors").exists():  # beside a generator, it is the one that is meant
        file = file / "classifier.safetensors"
    net: Any = load(file)
    if net.spec.get("role") != "classifier":
        raise UserError(f"'{path}' holds a {net.spec.get('role')}, which classifies nothing: {HOW}")
    return Named(net, path, net.size, net.channels)


def _torchvision(text: str) -> Named:
    try:
        from torchvision import models
    except ImportError:
        raise UserError(f"torchvision:{text} needs the package torchvision: pip install torchvision") from None
    name, _, wanted = text.partition(":")
    names = models.list_models(module=models)
    if name not in names:
        raise unknown("model of torchvision", name, names)
    weights: Any = None
    if wanted.lower() != "none":
        kinds = models.get_model_weights(name)
        known = [each.name for each in kinds]
        if wanted and wanted not in known and wanted != "DEFAULT":
            raise unknown(f"weights of {name}", wanted, [*known, "none"])
        weights = kinds[wanted or "DEFAULT"]
    model = _fetched(f"torchvision:{text}", lambda: models.get_model(name, weights=weights, progress=False))
    if weights is None:
        return Named(model.eval(), f"torchvision:{text}", None, 3)
    view = weights.transforms()
    (size,) = set(view.crop_size)
    return Named(model.eval(), f"torchvision:{name}:{weights.name}", size, 3, tuple(view.mean), tuple(view.std))


def _timm(name: str) -> Named:
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError:
        raise UserError(f"timm:{name} needs the package timm: pip install timm") from None
    if not timm.is_model(name.partition(".")[0]):
        raise unknown("model of timm", name, timm.list_models())
    model = _fetched(f"timm:{name}", lambda: timm.create_model(name, pretrained=True))
    view = timm.data.resolve_model_data_config(model)
    channels, size, _ = view["input_size"]
    return Named(model.eval(), f"timm:{name}", size, channels, tuple(view["mean"]), tuple(view["std"]))


def _fetched(name: str, make: Any) -> Any:
    """What ``make`` makes; that its weights cannot be fetched becomes one line."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where it says what it downloads
            return make()
    except (OSError, RuntimeError) as error:  # every refusal of the network is an OSError, but for a broken file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the weights of {name} cannot be fetched ({reason}): connect to the network once, or take a model that "
            "is on this machine"
        ) from None


_HUBS = {"torchvision": _torchvision, "timm": _timm}
