"""``--weights``: the networks of an earlier run, with which another one starts."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from rivals.api.common.game_factory import build_game
from rivals.api.common.network_io import generator_of, load
from rivals.api.common.resume import TrainingInfo
from rivals.base.errors import UserError
from rivals.base.files import expand_user
from rivals.base.hashing import key_hash, weights_hash
from rivals.base.run_folder import Run
from rivals.base.size import Size, resizing
from rivals.game.checkpoint import Checkpoints
from rivals.recipes import Config
from rivals.recipes.base import Settings, flag, restored

if TYPE_CHECKING:
    from torch import nn

    from rivals.data.imageset import ImageSet
    from rivals.game.game import Game
    from rivals.nets.classifier import Classifier

GAN_ARCHITECTURE = (
    *("net", "latent_dim", "generator_widths", "discriminator_widths"),
    *("groups", "dropout", "discriminator_norm", "generator_upsample", "conditional"),
)


def load_classifier(option: str, source: str, device: torch.device) -> Classifier:
    """Another run's classifier.

    Raises:
        UserError: it is none.
    """
    net: Any = load(source, device=str(device))
    if net.spec["role"] != "classifier":
        raise UserError(f"--{option} {source} does not fit this data: it holds a {net.spec['role']}, give a classifier")
    classifier: Classifier = net
    return classifier


def check_shape(option: str, source: str, spec: Mapping[str, Any], images: ImageSet) -> None:
    """Refuse networks for other images than these.

    Raises:
        UserError: size, channels or classes differ.
    """
    ours = {"size": images.size.written, "channels": images.channels, "classes": len(images.classes)}
    if spec["role"] != "classifier" and not spec["classes"]:
        del ours["classes"]  # an unconditional GAN
    for name, value in ours.items():
        if spec[name] != value:
            fix = (
                f"add {resizing(Size.parse(spec['size']), images.size)}"
                if name == "size"
                else f"give networks of {name} {value}"
            )
            raise UserError(
                f"--{option} {source} does not fit this data: its {name} is {spec[name]}, not {value}: {fix}"
            )


def check_white(source: str, net: Any, images: ImageSet) -> None:
    """Refuse to compare with a classifier that was trained on images with another white level.

    Raises:
        UserError: the levels differ.
    """
    theirs = net.about.get("white")
    if theirs and images.white and theirs != images.white:
        raise UserError(
            f"--against {source} was trained with a white of {theirs:,}, and '{images.name}' is read with "
            f"{images.white:,}: train with --white {theirs}, or compare with another classifier"
        )


def adopt_architecture(
    source: str, theirs: Mapping[str, Any], given: Mapping[str, Any], default: Settings
) -> dict[str, Any]:
    """The settings that were given, and the architecture of the start weights.

    Args:
        source: Of the weights, for messages.
        theirs: Settings that describe their architecture.
        given: Settings of the user.
        default: An options object that has these settings.

    Raises:
        UserError: a given setting describes another architecture.
    """
    for name in theirs.keys() & given.keys():
        ours = default.changed(**{name: given[name]}).written()[name]
        if ours != theirs[name]:
            values = [" ".join(map(str, each)) if isinstance(each, list) else each for each in (theirs[name], ours)]
            raise UserError(f"--weights {source} has {name} {values[0]}, not {values[1]}: leave {flag(name)} out")
    return {**theirs, **given}


@dataclass(frozen=True, eq=False)
class GanWeights:
    """The networks of a GAN that another run starts with.

    Attributes:
        source: Where they were found.
        architecture: The settings of :class:`rivals.Config` that describe them.
        generator: As it was trained.
        ema: The moving average of its weights, or the generator itself.
        discriminator: None if there is only a generator.
        classes: Names of the classes, if the GAN is conditional.
        white: The value of white in its training images, if they were gray of more than 8 bits.
    """

    source: str
    architecture: dict[str, Any]
    generator: Any
    ema: Any
    discriminator: Any
    classes: tuple[str, ...]
    white: int | None

    @property
    def hash(self) -> str:
        """Of all weights."""
        nets = (self.generator, self.ema, self.discriminator)
        return key_hash([weights_hash(net) for net in nets if net is not None])

    def start(self, game: Game) -> None:
        """Give the players of a new game these weights.

        Raises:
            UserError: a network of the game has another architecture.
        """
        generator, discriminator = game.players["generator"], game.players["discriminator"]
        self._copy(self.generator, generator.net)
        if generator.ema is not None:
            self._copy(self.ema, generator.ema)
        if self.discriminator is not None:
            self._copy(self.discriminator, discriminator.net)

    def _copy(self, one: Any, other: nn.Module) -> None:
        spec: Any = other.spec
        for name, value in one.spec.items():
            if spec.get(name) != value:
                raise UserError(
                    f"--weights {self.source} does not fit: the {one.spec['role']}'s {name} is {value} there and "
                    f"{spec.get(name)} here: give the same"
                )
        other.load_state_dict(one.state_dict())


def load_gan(source: str, option: str = "weights") -> GanWeights:
    """The players of a run of ``rivals train`` at its best checkpoint, or at its last; or a generator alone.

    Args:
        source: A run folder, or the .safetensors file of a generator.
        option: The setting that names it.

    Raises:
        UserError: there is no generator.
    """
    path = expand_user(source)
    if path.is_dir() and any((path / "checkpoints").glob("*.safetensors")):
        return _from_run(source, Run.open(path), option)
    generator: Any = generator_of(str(path))
    spec, about = generator.spec, generator.about
    architecture = {"net": spec["net"], "latent_dim": spec["latent_dim"], "conditional": bool(spec["classes"])}
    architecture |= {"generator_widths": list(spec["widths"]), "generator_upsample": spec.get("upsample")}
    classes = tuple(about.get("classes") or ())
    return GanWeights(source, architecture, generator, generator, None, classes, about.get("white"))


def _from_run(source: str, run: Run, option: str) -> GanWeights:
    info = run.info
    if info.get("command") != "train":
        raise UserError(f"--{option} {source} is a run of 'rivals {info.get('command')}': name a run of 'rivals train'")
    needed = run.read_info(TrainingInfo)
    (config,), data = restored(needed["config"], Config()), needed["data"]
    if config.against or config.invert:
        raise UserError(f"--{option} {source} is no run of a GAN alone: name one of rivals train without --against")
    if config.robust_steps and option == "weights":
        raise UserError(
            f"--{option} {source} is a run of Rob-GAN, whose discriminator classifies, too: name its generator, "
            f"{run.folder / 'generator.safetensors'}"
        )
    shape: dict[str, Any] = {"size": data["size"], "channels": data["channels"], "classes": len(data["classes"])}
    game = build_game(config, **shape, device=torch.device("cpu"), seed=0)
    best = Checkpoints(run.folder / "best")
    tensors, _ = (best if best.paths() else Checkpoints(run.checkpoints)).load()
    game.restore(tensors)
    generator, discriminator = game.players["generator"], game.players["discriminator"]
    spec: Any = generator.net.spec
    architecture = {name: config.written()[name] for name in GAN_ARCHITECTURE}
    return GanWeights(
        source,
        architecture | {"generator_upsample": spec.get("upsample")},  # the net's own where the settings say None
        generator.net,
        generator.eval_net,
        discriminator.net,
        tuple(data["classes"]),
        needed["data_options"].get("white"),
    )


def fresh_copy(net: Classifier, device: torch.device) -> Classifier:
    """A copy to train, whose logits are of single passes."""
    start = copy.deepcopy(net).to(device).train()
    start.spec["flip_tta"] = False
    return start
