"""From the configuration of a classifier to a network and a player."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from rivals.base import rng
from rivals.recipes import ClassifierConfig

if TYPE_CHECKING:
    import torch

    from rivals.base.duration import Duration
    from rivals.data.imageset import ImageSet
    from rivals.game.player import Player
    from rivals.nets.classifier import Classifier

STATISTICS_IMAGES = 10_000  # about as many are used for mean and standard deviation
STATISTICS_BYTES = 2**24  # of images that are summed at a time
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

    mean, std = _statistics(images)
    options: dict[str, Any] = {} if config.blocks is None else {"blocks": config.blocks}
    with rng.fork(device):
        torch.manual_seed(rng.derive(seed, "weights"))
        net = build_classifier(
            config.net,
            size=images.size,
            channels=images.channels,
            classes=len(images.classes),
            widths=config.widths,
            mean=mean,
            std=std,
            **options,
        )
    return net.to(device)


def _statistics(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, over evenly spaced images, of which few are in memory at a time."""
    step = max(1, len(images) // STATISTICS_IMAGES)
    n = len(range(0, len(images), step)) * math.prod(images.size)
    rows = max(1, STATISTICS_BYTES // math.prod(images.images.shape[1:])) * step
    totals, squares = [0] * images.channels, [0] * images.channels
    for start in range(0, len(images), rows):
        block = images.images[start : start + rows : step]
        for channel in range(images.channels):
            values = block[:, channel]
            totals[channel] += int(values.sum(dtype=np.int64))
            squares[channel] += int(np.square(values, dtype=np.uint16).sum(dtype=np.int64))
    # Of whole numbers, so that no digits are lost in the difference.
    variances = [(n * square - total**2) / (n * (n - 1)) for total, square in zip(totals, squares, strict=True)]
    return tuple(total / n / 255 for total in totals), tuple(max(1.0, math.sqrt(each)) / 255 for each in variances)


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
