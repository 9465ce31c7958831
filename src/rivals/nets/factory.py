"""Networks by name: GANs, classifiers, translators, the perturber of AdvGAN, the encoder of a generator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from rivals.base.errors import UserError
from rivals.base.registry import Registry, unknown
from rivals.base.size import AnySize
from rivals.nets.classifier import Classifier
from rivals.nets.cnn import CNN
from rivals.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from rivals.nets.discriminator import Discriminator
from rivals.nets.encoder import Encoder
from rivals.nets.generator import Generator
from rivals.nets.mlp import MLPDiscriminator, MLPGenerator
from rivals.nets.perturber import Perturber
from rivals.nets.r3gan import R3Discriminator, R3Generator
from rivals.nets.resnet import ResNet
from rivals.nets.resnet_translator import ResNetTranslator
from rivals.nets.sngan import SNGANDiscriminator, SNGANGenerator
from rivals.nets.strided_cnn import StridedCNN
from rivals.nets.translator import Translator
from rivals.nets.unet_translator import UNetTranslator


@dataclass(frozen=True)
class GanNets:
    """The generator and the discriminator of one architecture."""

    generator: type[Generator]
    discriminator: type[Discriminator]


GAN_NETS: Registry[GanNets] = Registry(
    "net",
    {
        "mlp": GanNets(MLPGenerator, MLPDiscriminator),
        "dcgan": GanNets(DCGANGenerator, DCGANDiscriminator),
        "sngan": GanNets(SNGANGenerator, SNGANDiscriminator),
        "r3": GanNets(R3Generator, R3Discriminator),
    },
)

CLASSIFIERS: Registry[type[Classifier]] = Registry("classifier", {"cnn": CNN, "resnet": ResNet, "strided": StridedCNN})

TRANSLATORS: Registry[type[Translator]] = Registry("net", {"resnet": ResNetTranslator, "unet": UNetTranslator})

_COMMON = {"self", "size", "channels", "classes", "latent_dim", "widths", "mean", "std"}


def build_generator(
    net: str,
    *,
    size: AnySize,
    channels: int,
    classes: int = 0,
    latent_dim: int | None = None,
    widths: tuple[int, ...] = (),
    **options: Any,
) -> Generator:
    """A new generator, initialized from torch's global random state.

    Args:
        net: Architecture, a name in ``GAN_NETS``.
        size: Of the images, sides of 8 to 1024 pixels: ``28``, ``"96x64"`` (96 wide) or ``Size(64, 96)``.
        channels: 1 (gray), 3 (color) or 4 (color and alpha).
        classes: Number of classes; 0 for an unconditional generator.
        latent_dim: Length of the latent; the architecture's own by default.
        widths: Channels of the stages, the lowest resolution first; the architecture's own by default.
        options: Other arguments of the architecture's class.

    Raises:
        UserError: an unknown architecture or option, or a value that does not fit.
    """
    cls = GAN_NETS[net].generator
    _check_options(f"{net}'s generator", cls, options)
    if latent_dim is not None:
        options["latent_dim"] = latent_dim
    return cls(size=size, channels=channels, classes=classes, widths=tuple(widths), **options)


def build_discriminator(
    net: str, *, size: AnySize, channels: int, classes: int = 0, widths: tuple[int, ...] = (), **options: Any
) -> Discriminator:
    """A new discriminator, as :func:`build_generator`; ``widths`` start at the highest resolution."""
    cls = GAN_NETS[net].discriminator
    _check_options(f"{net}'s discriminator", cls, options)
    return cls(size=size, channels=channels, classes=classes, widths=tuple(widths), **options)


def build_classifier(
    net: str,
    *,
    size: AnySize,
    channels: int,
    classes: int,
    widths: tuple[int, ...] = (),
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    flip_tta: bool = False,
    **options: Any,
) -> Classifier:
    """A new classifier, as :func:`build_generator`; ``widths`` start at the highest resolution.

    ``mean`` and ``std`` of each channel normalize images in [0, 1] inside the network. ``flip_tta`` averages the logits
    over an image and its horizontal flip.
    """
    cls = CLASSIFIERS[net]
    _check_options(net, cls, options)
    shape: dict[str, Any] = {"size": size, "channels": channels, "classes": classes}
    built = cls(**shape, widths=tuple(widths), mean=tuple(mean), std=tuple(std), **options)
    built.spec["flip_tta"] = flip_tta
    return built


def build_perturber(
    net: str = "advgan", *, size: AnySize, channels: int, classes: int = 0, widths: tuple[int, ...] = (), **options: Any
) -> Perturber:
    """A new perturber, as :func:`build_generator`; ``classes`` are those of its condition, 0 for none."""
    if net != "advgan":
        raise unknown("perturber", net, ["advgan"])
    _check_options("a perturber", Perturber, options)
    return Perturber(size=size, channels=channels, classes=classes, widths=tuple(widths), **options)


def build_encoder(
    net: str = "strided",
    *,
    size: AnySize,
    channels: int,
    latent_dim: int,
    classes: int = 0,
    widths: tuple[int, ...] = (),
    **options: Any,
) -> Encoder:
    """A new encoder, as :func:`build_generator`; ``widths`` start at the highest resolution. It knows no classes."""
    if net != "strided":
        raise unknown("encoder", net, ["strided"])
    if classes:
        raise UserError(f"an encoder of {classes} classes cannot be built: take 0")
    _check_options("an encoder", Encoder, options)
    return Encoder(size=size, channels=channels, latent_dim=latent_dim, widths=tuple(widths), **options)


def build_translator(
    net: str, *, size: AnySize, channels: int, classes: int = 0, widths: tuple[int, ...] = (), **options: Any
) -> Translator:
    """A new translator, as :func:`build_generator`; ``size`` and ``channels`` are those of the images that come out."""
    cls = TRANSLATORS[net]
    _check_options(f"the translator {net}", cls, options)
    return cls(size=size, channels=channels, classes=classes, widths=tuple(widths), **options)


def rebuild(spec: Mapping[str, Any]) -> nn.Module:
    """The architecture that a module's ``spec`` describes, with new weights.

    Raises:
        UserError: an entry is missing or does not fit.
    """
    arguments = dict(spec)
    role = arguments.pop("role", None)
    builders: dict[object, Callable[..., nn.Module]] = {
        "generator": build_generator,
        "discriminator": build_discriminator,
        "classifier": build_classifier,
        "perturber": build_perturber,
        "encoder": build_encoder,
        "translator": build_translator,
    }
    own = {"classifier": {"classes"}, "encoder": {"latent_dim"}}
    needed = {"net", "size", "channels"} | own.get(str(role), set())
    if role not in builders or not needed <= arguments.keys():
        raise UserError("this is not the spec of a network: it needs role, net, size and channels")
    return builders[role](**arguments)


def shapes_of(spec: Mapping[str, Any]) -> dict[str, torch.Size]:
    """The shapes in the state dict of the architecture that a ``spec`` describes. No weight takes memory.

    Raises:
        UserError: as :func:`rebuild`.
    """
    with torch.device("meta"), _WithoutInit():
        return {name: values.shape for name, values in rebuild(spec).state_dict().items()}


class _WithoutInit(TorchFunctionMode):
    """Skips the initialization of weights, for which the meta device loads torch's decompositions in a second."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def _check_options(what: str, cls: type[nn.Module], options: Mapping[str, Any]) -> None:
    known = [name for name in inspect.signature(cls).parameters if name not in _COMMON]
    for name in options:
        if not known:
            raise UserError(f"unknown option '{name}': {what} has none")
        if name not in known:
            raise unknown(f"option of {what}", name, known)
