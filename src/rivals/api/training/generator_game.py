"""The game of ``harden --method gan``: a classifier and a generator of perturbations learn in turns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rivals.base import rng

if TYPE_CHECKING:
    import torch

    from rivals.base.norm_balls import Ball
    from rivals.base.schedules import Clock
    from rivals.data.imageset import ImageSet
    from rivals.game.game import Game
    from rivals.game.player import Player
    from rivals.recipes import HardenConfig

LR = 1e-3  # of the generator
NO_CONFIDENCE = 1.0  # logits: the classifier is still learning, and a large margin would not tell of its mistakes


def generator_game(
    config: HardenConfig,
    player: Player,
    images: ImageSet,
    ball: Ball,
    ramp: Callable[[Clock], float],
    *,
    device: torch.device,
    seed: int,
) -> Game:
    """The generator's turn is AdvGAN's, without a discriminator; the classifier's is that of any adversarial training.

    Args:
        config: The settings.
        player: The classifier.
        images: The training images.
        ball: The ball of the perturbations at its full radius.
        ramp: The share of the radius at a point of the run.
        device: Where to play.
        seed: Seed of the initial weights.
    """
    import torch

    from rivals.game.advgan_step import AdvGanStep
    from rivals.game.game import Game, Turn
    from rivals.game.player import Player, adam
    from rivals.losses.adversarial import madry, readings
    from rivals.losses.advgan import advgan
    from rivals.nets.factory import build_perturber

    shape: dict[str, Any] = {"size": images.size, "channels": images.channels}
    with rng.fork(device):
        torch.manual_seed(rng.derive(seed, "perturber"))
        generator = build_perturber(norm=config.norm, eps=float(ball.eps), **shape)
    fool = advgan(None, confidence=NO_CONFIDENCE, norm_weight=0)
    return Game(
        {"classifier": player, "generator": Player(generator.to(device), adam(LR, beta1=0.5))},
        [
            Turn("generator", fool),
            Turn("classifier", madry(config.adversarial_weight, config.label_smoothing), readings=readings),
        ],
        make_step=partial(AdvGanStep, strength=ramp),
        precision=config.precision,
    )
