"""From the configuration of a classifier to a network and a player."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rivals.base import rng
from rivals.recipes import ClassifierConfig

if TYPE_CHECKING:
    import torch

    from rivals.base.duration import Duration
    from rivals.data.imageset import ImageSet
    from rivals.game.player import Player
    from rivals.nets.classifier import Classifier

STATISTICS_IMAGES = 10_000  # about as many are used for mean and standard deviation
LR_DECAY = 1000  # initial over final learning rate


def build_network(config: ClassifierConfig, images: ImageSet, device: torch.device, seed: int) -> Classifier:
    """A new classifier for images like these, normalized by their mean and standard deviation.

    Args:
        config: The settings.
        images: The training images.
        device: Where it goes.
        seed: Seed of the initial weights.
    """
    import torch

    from rivals.nets.factory import build_classifier

    some = torch.from_numpy(images.images[:: max(1, len(images) // STATISTICS_IMAGES)]).float() / 255
    mean, std = some.mean((0, 2, 3)), some.std((0, 2, 3)).clamp_min(1 / 255)
    options: dict[str, Any] = {} if config.blocks is None else {"blocks": config.blocks}
    with rng.fork(device):
        torch.manual_seed(rng.derive(seed, "weights"))
        net = build_classifier(
            config.net,
            size=images.size,
            channels=images.channels,
            classes=len(images.classes),
            widths=config.widths,
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
            **options,
        )
    return net.to(device)


def build_player(config: ClassifierConfig, net: Classifier, until: Duration) -> Player:
    """The classifier as a player, whose learning rate decays along half a cosine until ``until``, images or minutes.

    If there is an EMA, it alone uses flip test-time augmentation; the trained network needs one forward pass as ever.
    """
    from rivals.base.schedules import Schedule
    from rivals.game.player import Player, adam, muon

    optimizer = muon if config.optimizer == "muon" else adam
    lr = Schedule(config.lr, config.lr / LR_DECAY, until.amount, until.unit)
    net.spec["flip_tta"] = config.flip_tta
    max_norm = config.clip or math.inf
    player = Player(net, optimizer(lr, weight_decay=config.weight_decay, max_norm=max_norm), ema=config.ema)
    if player.ema is not None:
        net.spec["flip_tta"] = False
    return player
