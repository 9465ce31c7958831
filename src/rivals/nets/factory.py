"""Networks by name: the players ``mlp``, ``dcgan``, ``sngan``, ``r3``, and the classifiers ``cnn``, ``resnet``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from rivals.base.errors import UserError
from rivals.base.registry import Registry, unknown
from rivals.nets.classifier import Classifier
from rivals.nets.cnn import CNN
from rivals.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from rivals.nets.discriminator import Discriminator
from rivals.nets.generator import Generator
from rivals.nets.mlp import MLPDiscriminator, MLPGenerator
from rivals.nets.r3 import R3Discriminator, R3Generator
from rivals.nets.resnet import ResNet
from rivals.nets.sngan import SNGANDiscriminator, SNGANGenerator


@dataclass(frozen=True)
class Net:
    """The two players of one kind."""

    generator: type[Generator]
    discriminator: type[Discriminator]


NETS: Registry[Net] = Registry(
    "net",
    {
        "mlp": Net(MLPGenerator, MLPDiscriminator),
        "dcgan": Net(DCGANGenerator, DCGANDiscriminator),
        "sngan": Net(SNGANGenerator, SNGANDiscriminator),
        "r3": Net(R3Generator, R3Discriminator),
    },
)

CLASSIFIERS: Registry[type[Classifier]] = Registry("classifier", {"cnn": CNN, "resnet": ResNet})

_COMMON = {"self", "size", "channels", "classes", "latent", "widths", "mean", "std"}


def build_generator(
    net: str,
    *,
    size: int,
    channels: int,
    classes: int = 0,
    latent: int | None = None,
    widths: tuple[int, ...] = (),
    **knobs: Any,
) -> Generator:
    """A new generator, its weights drawn from torch's random state.

    Args:
        net: Its kind, a name in ``NETS``.
        size: The images' height and width in pixels, 8 to 1024.
        channels: 1 (grey), 3 (colour) or 4 (colour and alpha).
        classes: How many classes the labels have; 0 for a network without labels.
        latent: How many numbers one image is drawn from; the kind's own by default.
        widths: Channels along the data's way, the lowest resolution first; the kind's own by default.
        knobs: What else the kind can be told (see its class).

    Raises:
        UserError: an unknown kind or knob, or a value that does not fit.
    """
    cls = NETS[net].generator
    _check_knobs(f"{net}'s generator", cls, knobs)
    if latent is not None:
        knobs["latent"] = latent
    return cls(size=size, channels=channels, classes=classes, widths=tuple(widths), **knobs)


def build_discriminator(
    net: str, *, size: int, channels: int, classes: int = 0, widths: tuple[int, ...] = (), **knobs: Any
) -> Discriminator:
    """A new discriminator, as :func:`build_generator`; ``widths`` start at the highest resolution."""
    cls = NETS[net].discriminator
    _check_knobs(f"{net}'s discriminator", cls, knobs)
    return cls(size=size, channels=channels, classes=classes, widths=tuple(widths), **knobs)


def build_classifier(
    net: str,
    *,
    size: int,
    channels: int,
    classes: int,
    widths: tuple[int, ...] = (),
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    mirror: bool = False,
    **knobs: Any,
) -> Classifier:
    """A new classifier, as :func:`build_generator`; ``widths`` start at the highest resolution.

    ``mean`` and ``std`` of each channel normalise the images, which come in [0, 1], inside the network; with
    ``mirror`` it answers by the mean of its logits for an image and for the mirror image.
    """
    cls = CLASSIFIERS[net]
    _check_knobs(net, cls, knobs)
    shape: dict[str, Any] = {"size": size, "channels": channels, "classes": classes}
    built = cls(**shape, widths=tuple(widths), mean=tuple(mean), std=tuple(std), **knobs)
    built.spec["mirror"] = mirror
    return built


def rebuild(spec: Mapping[str, Any]) -> nn.Module:
    """The architecture that a module's ``spec`` describes, with new weights.

    Raises:
        UserError: it is no such description.
    """
    arguments = dict(spec)
    role = arguments.pop("role", None)
    builders: dict[object, Callable[..., nn.Module]] = {
        "generator": build_generator,
        "discriminator": build_discriminator,
        "classifier": build_classifier,
    }
    needed = {"net", "size", "channels"} | ({"classes"} if role == "classifier" else set())
    if role not in builders or not needed <= arguments.keys():
        raise UserError("this is not the description of a network: it needs role, net, size and channels")
    return builders[role](**arguments)


def _check_knobs(what: str, cls: type[nn.Module], knobs: Mapping[str, Any]) -> None:
    known = [name for name in inspect.signature(cls).parameters if name not in _COMMON]
    for name in knobs:
        if not known:
            raise UserError(f"unknown knob '{name}': {what} has none")
        if name not in known:
            raise unknown(f"knob of {what}", name, known)
