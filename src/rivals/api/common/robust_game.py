"""From the configuration of Rob-GAN to its game."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from rivals.base import rng
from rivals.base.eps import parse_eps
from rivals.base.errors import UserError
from rivals.base.size import AnySize
from rivals.recipes import Config

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rivals.base.norm_balls import Ball
    from rivals.base.schedules import Clock
    from rivals.game.game import Game

EPS_GRAY, EPS_COLOR = 0.3, 8 / 255  # default radii in Linf, as for harden


def ball_of(config: Config, channels: int) -> Ball:
    """The ball of the perturbations that the discriminator meets."""
    from rivals.base.norm_balls import ball_for

    default = EPS_GRAY if channels == 1 else EPS_COLOR
    return ball_for(config.norm, parse_eps(config.eps) if config.eps else default)


def build_robust_game(
    config: Config, *, size: AnySize, channels: int, classes: int, device: torch.device, seed: int
) -> Game:
    """The game of Rob-GAN: a conditional generator, and a discriminator with a class head that is attacked.

    Raises:
        UserError: there are no classes.
    """
    import torch

    from rivals.attacks.training_attack import TrainingPGD
    from rivals.game.game import Game, Turn
    from rivals.game.player import Player, adam
    from rivals.game.robgan_step import RobGanStep
    from rivals.losses import robgan
    from rivals.losses.gan import make_loss
    from rivals.nets.factory import build_generator
    from rivals.nets.two_heads import ClassHead, TwoHeadedDiscriminator

    if not config.conditional or classes < 2:
        raise UserError("Rob-GAN needs classes: give labeled images, and leave --no-conditional out")
    shape: dict[str, Any] = {"size": size, "channels": channels, "classes": classes}
    ball, solve = ball_of(config, channels), TrainingPGD(config.robust_steps, 2.5 / config.robust_steps)

    def attack(net: Any, x: Tensor, y: Tensor, clock: Clock) -> Tensor:
        return solve(ClassHead(net), x, y, ball.with_eps(config.eps_ramp.at(clock) * torch.as_tensor(ball.eps)))

    with rng.fork(device):
        torch.manual_seed(rng.derive(seed, "weights"))
        options: dict[str, Any] = {} if config.generator_upsample is None else {"upsample": config.generator_upsample}
        generator = build_generator(
            config.net, latent_dim=config.latent_dim, widths=config.generator_widths, **shape, **options
        )
        kind = "cnn" if channels == 1 else "resnet"
        discriminator = TwoHeadedDiscriminator(kind, widths=config.discriminator_widths, **shape)
    loss, weight = make_loss(config.loss, config.label_smoothing), config.class_weight
    betas: Any = {"beta1": config.beta1, "beta2": config.beta2}
    ema: Any = {"ema": config.ema, "ema_rampup": config.ema_rampup or None}
    return Game(
        players={
            "generator": Player(generator.to(device), adam(config.generator_lr, **betas), **ema),
            "discriminator": Player(discriminator.to(device), adam(config.discriminator_lr, **betas)),
        },
        turns=[
            Turn(
                "discriminator",
                robgan.discriminator(loss, weight),
                times=config.discriminator_turns,
                readings=robgan.readings(loss),
            ),
            Turn("generator", robgan.generator(loss, weight)),
        ],
        make_step=partial(RobGanStep, attack=attack),
        precision=config.precision,
    )
