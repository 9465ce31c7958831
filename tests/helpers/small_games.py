"""Small games on noise, in milliseconds per step."""

import numpy as np
import torch
from torch import nn

from rivals.api.common.game_factory import build_game
from rivals.data.imageset import ImageSet
from rivals.game.game import Game
from rivals.game.player import Player, adam
from rivals.recipes import RECIPES


def noise_images():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8), dtype=np.uint8)
    return ImageSet("noise", "train", pixels, np.arange(50) % 2, ("even", "odd"))


SMALL_WIDTHS = {
    "quick": {"generator_widths": (8,), "discriminator_widths": (8,)},
    "mlp-classic": {"generator_widths": (16,), "discriminator_widths": (16,)},
    "mlp": {"generator_widths": (16,), "discriminator_widths": (16,)},
    "dcgan": {"generator_widths": (8,), "discriminator_widths": (8,)},
    "sngan": {"generator_widths": (8, 8), "discriminator_widths": (8, 8), "discriminator_turns": 2},
    "r3": {"generator_widths": (8, 8), "discriminator_widths": (8, 8)},
}


def small_game(recipe, seed=0, **settings):
    config = RECIPES[recipe]().changed(**{"batch_size": 4, "latent_dim": 5, **SMALL_WIDTHS[recipe], **settings})
    return build_game(config, size=8, channels=1, classes=2, device=torch.device("cpu"), seed=seed), config


def snapshot(net):
    return {key: value.clone() for key, value in net.state_dict().items()}


def states_equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Affine(nn.Module):
    """A generator or discriminator simple enough to know everything about."""

    classes, latent_dim = 0, 3

    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x, labels=None):
        y = self.layer(x.flatten(1))
        return y.flatten() if y.shape[1] == 1 else y.view(-1, 1, 8, 8)


def affine_game(turns, seed=0, **player):
    torch.manual_seed(seed)
    players = {
        "generator": Player(Affine(3, 64), adam(1e-2), **player),
        "discriminator": Player(Affine(64, 1), adam(1e-2)),
    }
    return Game(players, turns)
