"""Models by name: a finished classifier of ours, or one of torchvision's or timm's with its normalization inside."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.base.errors import UserError
from rivals.base.files import expand_user
from rivals.base.registry import unknown
from rivals.base.size import Size

if TYPE_CHECKING:
    from torch import nn

HOW = "name a run folder, a classifier.safetensors, torchvision:NAME, timm:NAME, onnx:FILE or hf:NAME"


@dataclass(frozen=True)
class NamedModel:
    """A classifier and what is known about it.

    Attributes:
        model: Images (n, C, H, W) in [0, 1] to logits (n, K).
        name: What it is called.
        size: Of the images it takes, or None if that is not known.
        channels: How many channels they have, or None.
        mean: Of the normalization that was put inside, if one was.
        std: Likewise.
        classes: Their names, in the order of the logits; empty if they are not known.
        white: The value of white in its training images, if they were gray of more than 8 bits.
    """

    model: nn.Module
    name: str
    size: Size | None = None
    channels: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    white: int | None = None

    @property
    def architecture(self) -> str:
        """The name of its architecture, with the widths of a network of ours; that of the class if none is known."""
        from rivals.nets.wrappers import NormalizedModel

        inside: Any = self.model.model if isinstance(self.model, NormalizedModel) else self.model
        spec = getattr(inside, "spec", None)
        if isinstance(spec, dict) and "net" in spec:
            return f"{spec['net']} {'-'.join(map(str, spec.get('widths', ())))}".strip()
        kind, _, name = self.name.partition(":")
        return name.partition(":")[0] if kind in ("torchvision", "timm", "hf") else type(inside).__name__


def find_model(
    model: str | os.PathLike[str] | nn.Module,
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    classes: Sequence[str] = (),
) -> NamedModel:
    """A classifier by its name.

    Args:
        model: An ``nn.Module``, a run folder, a ``classifier.safetensors``, ``torchvision:NAME[:WEIGHTS]`` (WEIGHTS as
            torchvision calls them, ``none`` for random ones; its newest if left out), ``timm:NAME``, ``onnx:FILE``, or
            ``hf:NAME``, a folder or a name of the Hugging Face Hub.
        mean: What to take from each channel first; the model's own if empty.
        std: What to divide each channel by; the model's own if empty.
        classes: The names of its classes, in the order of its logits; the model's own if empty.

    Raises:
        UserError: there is no such model, it cannot be loaded here, or mean and std do not fit.
    """
    from torch import nn

    from rivals.data.load import to_stderr
    from rivals.nets.wrappers import NormalizedModel

    if isinstance(model, nn.Module):
        found = _given(model)
    elif isinstance(model, str | os.PathLike):
        text = os.fspath(model)
        kind, colon, rest = text.partition(":")
        if colon and kind in _HUBS:
            found = _HUBS[kind](rest)
        elif colon and not Path(text).exists() and "/" not in kind:
            raise UserError(f"'{text}' is not a model: {HOW}")
        else:
            found = _ours(text)
    else:
        raise UserError(f"the model is a {type(model).__name__}: give an nn.Module, or {HOW}")
    found = dataclasses.replace(found, classes=tuple(classes) or found.classes)
    mean, std = tuple(mean) or found.mean, tuple(std) or found.std
    if not mean and not std:
        if found.name.startswith("hf:"):
            to_stderr(f"note: {found.name} is used without a normalization: add --mean and --std if it expects one")
        return found
    channels = found.channels
    if channels and {len(mean), len(std)} != {channels}:
        raise UserError(
            f"mean has {len(mean)} numbers and std {len(std)}, but the model takes {channels} channels: give "
            f"{channels} of each"
        )
    inside = NormalizedModel(found.model, mean, std)
    inside.training = found.model.training
    return dataclasses.replace(found, model=inside, mean=mean, std=std)


def _given(model: nn.Module) -> NamedModel:
    about: Any = model
    size, channels = getattr(about, "size", None), getattr(about, "channels", None)
    return NamedModel(
        model,
        type(model).__name__,
        Size.parse(size) if isinstance(size, int | Size) else None,
        channels if isinstance(channels, int) else _first_channels(model),
        **_training_facts(model),
    )


def _training_facts(net: nn.Module) -> dict[str, Any]:
    """Classes and white level of the training images of a network of ours that was loaded from a file."""
    about = getattr(net, "about", None)
    if not isinstance(about, dict):
        return {}
    return {"classes": tuple(about.get("classes") or ()), "white": about.get("white")}


def _first_channels(model: nn.Module) -> int | None:
    """How many channels the first layer takes, if it is a convolution."""
    from torch import nn

    first = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)), None)
    return first.in_channels if isinstance(first, nn.Conv2d) else None


def _ours(path: str) -> NamedModel:
    from rivals.api.common.network_io import load

    file = expand_user(path)
    if not file.exists():
        raise UserError(f"there is no model '{path}': {HOW}")
    if (file / "classifier.safetensors").exists():  # a run may hold a generator too
        file = file / "classifier.safetensors"
    net: Any = load(file)
    if net.spec.get("role") != "classifier":
        raise UserError(f"'{path}' holds a {net.spec.get('role')}, not a classifier: {HOW}")
    return NamedModel(net, path, net.size, net.channels, **_training_facts(net))


def _torchvision(text: str) -> NamedModel:
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
    model = _download(f"torchvision:{text}", lambda: models.get_model(name, weights=weights, progress=False))
    if weights is None:
        return NamedModel(model.eval(), f"torchvision:{text}", None, 3)
    view = weights.transforms()
    (side,) = set(view.crop_size)
    size = Size(side, side)
    return NamedModel(model.eval(), f"torchvision:{name}:{weights.name}", size, 3, tuple(view.mean), tuple(view.std))


def _timm(name: str) -> NamedModel:
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError:
        raise UserError(f"timm:{name} needs the package timm: pip install timm") from None
    if not timm.is_model(name.partition(".")[0]):
        raise unknown("model of timm", name, timm.list_models())
    model = _download(f"timm:{name}", lambda: timm.create_model(name, pretrained=True))
    view = timm.data.resolve_model_data_config(model)
    channels, *sides = view["input_size"]
    return NamedModel(model.eval(), f"timm:{name}", Size(*sides), channels, tuple(view["mean"]), tuple(view["std"]))


def _download(name: str, make: Any) -> Any:
    """The model that ``make`` returns; weights that cannot be downloaded become one line."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # progress of the download
            return make()
    except (OSError, RuntimeError) as error:  # no network is an OSError, a broken file a RuntimeError
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the weights of {name} cannot be downloaded ({reason}): connect to the network once, or take a model that "
            "is on this machine"
        ) from None


def _onnx(path: str) -> NamedModel:
    from rivals.api.common.foreign_models import onnx_model

    model, size, channels = onnx_model(path)
    return NamedModel(model, f"onnx:{path}", size, channels)


def _hugging_face(name: str) -> NamedModel:
    from rivals.api.common.foreign_models import hugging_face_model

    model, size, channels, mean, std, classes = hugging_face_model(name)
    return NamedModel(model, f"hf:{name}", size, channels, mean, std, classes)


_HUBS = {"torchvision": _torchvision, "timm": _timm, "onnx": _onnx, "hf": _hugging_face}
