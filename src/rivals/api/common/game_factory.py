"""From a configuration to a game: the one place where nets, losses, penalties and players meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rivals.base import seeds
from rivals.recipes import Config

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from rivals.base.schedules import Schedule
    from rivals.game.game import Game


def build_game(config: Config, *, size: int, channels: int, classes: int, device: torch.device, seed: int) -> Game:
    """The game that a configuration describes, for images of this shape, with freshly drawn weights.

    Args:
        config: The settings.
        size: Side of the images, in pixels.
        channels: 1, 3 or 4.
        classes: How many the data has; players are told of them only if the configuration is conditional.
        device: Where to play.
        seed: What the initial weights follow from.
    """
    from functools import partial

    import torch

    from rivals.data.augment import Moved
    from rivals.game.game import Game, Turn
    from rivals.game.players import Player, adam
    from rivals.losses.gan import make_loss
    from rivals.losses.penalties import LeCam, Penalty, consistency, lecam, r1, r2, wgan_gp
    from rivals.nets.build import build_discriminator, build_generator

    shape = {"size": size, "channels": channels, "classes": classes if config.conditional else 0}
    both = {} if config.groups is None else {"groups": config.groups}
    knobs = {name: value for name in ("dropout", "norm") if (value := getattr(config, name)) is not None}
    with torch.random.fork_rng():
        torch.manual_seed(seeds.derive(seed, "weights"))
        generator = build_generator(config.net, latent=config.latent, widths=config.generator_widths, **shape, **both)
        discriminator = build_discriminator(config.net, widths=config.discriminator_widths, **shape, **both, **knobs)
    loss = make_loss(config.loss, config.smoothing)
    averages = LeCam().to(device)
    memory: dict[str, nn.Module] = {"lecam": averages} if config.lecam.peak else {}
    kinds: list[tuple[Callable[..., Penalty], Schedule]] = [
        *((r1, config.r1), (r2, config.r2), (wgan_gp, config.gp)),
        (partial(consistency, change=Moved()), config.cr),
        (partial(lecam, averages=averages), config.lecam),
    ]
    penalties = [make(weight, every=config.penalty_every) for make, weight in kinds if weight.peak]
    betas: Any = {"beta1": config.beta1, "beta2": config.beta2}
    view, heed = _view(config, device)
    return Game(
        players={
            "generator": Player(generator.to(device), adam(config.generator_lr, **betas), ema=config.ema),
            "discriminator": Player(discriminator.to(device), adam(config.discriminator_lr, **betas)),
        },
        turns=[
            Turn("discriminator", loss.discriminator, penalties, config.discriminator_turns, heed(loss.readings)),
            Turn("generator", loss.generator),
        ],
        view=view,
        memory=memory if view is None else memory | {"view": view},
        precision=config.precision,
        compile=config.compile,
    )


Readings = Callable[[Any], dict[str, "Tensor"]]


def _view(config: Config, device: torch.device) -> tuple[nn.Module | None, Callable[[Readings], Readings]]:
    """What the discriminator sees of images, and what its readings are then heeded by."""
    from rivals.data.augment import Ada, DiffAugment, InstanceNoise, Views

    ada = Ada(config.augment_p, config.augment_target, colour=config.augment_colour).to(device)
    chain: dict[str, list[nn.Module]] = {"none": [], "diff": [DiffAugment()], "ada": [ada]}
    views = chain[config.augment] + ([InstanceNoise(config.instance_noise)] if config.instance_noise.peak else [])

    def heed(readings: Readings) -> Readings:
        if config.augment_target is None:
            return readings
        return lambda scene: readings(scene) | {"augment/sign": ada.heed(scene.real), "augment/p": ada.p.clone()}

    return (Views(views) if views else None), heed
