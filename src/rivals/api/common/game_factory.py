"""From the configuration of a GAN to its game: networks, losses, penalties and players."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rivals.base import rng
from rivals.base.errors import UserError
from rivals.base.size import AnySize
from rivals.recipes import Config
from rivals.recipes.base import flag

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from rivals.base.schedules import Schedule
    from rivals.game.game import Game


def build_game(config: Config, *, size: AnySize, channels: int, classes: int, device: torch.device, seed: int) -> Game:
    """The game of a configuration for images of this shape, with initial weights.

    Args:
        config: The settings.
        size: Of the images.
        channels: 1, 3 or 4.
        classes: Number of classes of the data; used only if the configuration is conditional.
        device: Where to play.
        seed: Seed of the initial weights.
    """
    if config.robust_steps:
        from rivals.api.common.robust_game import build_robust_game

        return build_robust_game(config, size=size, channels=channels, classes=classes, device=device, seed=seed)
    from functools import partial

    import torch

    from rivals.data.augment import FlipAndShift
    from rivals.game.game import Game, Turn
    from rivals.game.player import Player, adam
    from rivals.losses.gan import make_loss
    from rivals.losses.penalties import LeCam, Penalty, consistency, fd_r1, fd_r2, lecam, r1, r2, wgan_gp
    from rivals.nets.factory import build_discriminator, build_generator

    shape: dict[str, Any] = {"size": size, "channels": channels, "classes": classes if config.conditional else 0}
    groups = _given(groups=config.groups)
    only_generator = _given(upsample=config.generator_upsample)
    only_discriminator = _given(dropout=config.dropout, norm=config.discriminator_norm)
    with rng.fork(device):
        torch.manual_seed(rng.derive(seed, "weights"))
        generator = build_generator(
            config.net,
            latent_dim=config.latent_dim,
            widths=config.generator_widths,
            **shape,
            **groups,
            **only_generator,
        )
        discriminator = build_discriminator(
            config.net, widths=config.discriminator_widths, **shape, **groups, **only_discriminator
        )
    _check_differences(config, discriminator)
    loss = make_loss(config.loss, config.label_smoothing)
    averages = LeCam().to(device)
    modules: dict[str, nn.Module] = {"lecam": averages} if config.lecam.peak else {}
    # Lazy regularization is for gradient penalties, which cost a second backward pass. LeCam's averages need each step.
    every = config.penalty_every
    kinds: list[tuple[Callable[..., Penalty], Schedule]] = [
        (partial(r1, every=every), config.r1),
        (partial(r2, every=every), config.r2),
        (partial(wgan_gp, every=every), config.gp),
        (partial(fd_r1, every=every), config.fd_r1),
        (partial(fd_r2, every=every), config.fd_r2),
        (partial(consistency, transform=FlipAndShift()), config.cr),
        (partial(lecam, averages=averages), config.lecam),
    ]
    penalties = [make(weight) for make, weight in kinds if weight.peak]
    betas: Any = {"beta1": config.beta1, "beta2": config.beta2}
    ema: Any = {"ema": config.ema, "ema_rampup": config.ema_rampup or None}
    augment, with_augment = _augment(config, device)
    return Game(
        players={
            "generator": Player(generator.to(device), adam(config.generator_lr, **betas), **ema),
            "discriminator": Player(discriminator.to(device), adam(config.discriminator_lr, **betas)),
        },
        turns=[
            Turn(
                "discriminator", loss.discriminator, penalties, config.discriminator_turns, with_augment(loss.readings)
            ),
            Turn("generator", loss.generator),
        ],
        augment=augment,
        modules=modules if augment is None else modules | {"augment": augment},
        precision=config.precision,
        compile=config.compile,
    )


def _given(**options: Any) -> dict[str, Any]:
    """The options that are set; the networks have defaults for the others."""
    return {name: value for name, value in options.items() if value is not None}


def _check_differences(config: Config, discriminator: nn.Module) -> None:
    """Refuse finite differences of a discriminator with dropout: they would be of two networks.

    Raises:
        UserError: it has dropout.
    """
    from rivals.losses.penalties import dropout_of

    for name in ("fd_r1", "fd_r2"):
        if getattr(config, name).peak and (share := dropout_of(discriminator)):
            raise UserError(
                f"{flag(name)} compares two passes, and the discriminator drops {share:.0%} of its values at random in "
                f"each: add --dropout 0, or take {flag(name.removeprefix('fd_'))}"
            )


Readings = Callable[[Any], dict[str, "Tensor"]]


def _augment(config: Config, device: torch.device) -> tuple[nn.Module | None, Callable[[Readings], Readings]]:
    """The augmentation of the discriminator's images, and what wraps the readings so that ADA is adjusted."""
    from rivals.data.augment import ADA, Compose, DiffAugment, InstanceNoise

    ada = ADA(config.augment_p, config.augment_target, color=config.augment_color).to(device)
    chosen: dict[str, list[nn.Module]] = {"none": [], "diff": [DiffAugment()], "ada": [ada]}
    parts = chosen[config.augment] + ([InstanceNoise(config.instance_noise)] if config.instance_noise.peak else [])

    def with_augment(readings: Readings) -> Readings:
        if config.augment_target is None:
            return readings
        return lambda step: (
            readings(step) | {"augment/sign": ada.adjust(step.real, config.batch_size), "augment/p": ada.p.clone()}
        )

    return (Compose(parts) if parts else None), with_augment
