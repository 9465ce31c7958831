"""A round never waits for the device: only the batches cross over, and nothing comes back.

The exact projections onto L2 and L1 balls are the exception: their iterations end when all images have converged.
"""

import numpy as np
import pytest

from helpers.pretend_device import PRETEND, Crossings
from helpers.small_games import SMALL_WIDTHS, noise_images
from rivals.api.common.game_factory import build_game
from rivals.api.training.adversarial import HardenJob
from rivals.api.training.job import Request
from rivals.data.batches import Batches
from rivals.data.imageset import ImageSet
from rivals.data.splits import hold_out
from rivals.recipes import RECIPES

BATCH = "game/game.py"  # the lines that move images and labels

GANS = {
    "mlp-classic": {},
    "quick": {"lecam": 0.1, "cr": 10.0, "gp": 1.0},
    "sngan": {"conditional": True, "augment": "ada", "augment_target": 0.6},
    "dcgan": {"augment": "diff", "instance_noise": 0.1, "ema": 10},
    "r3": {"micro_batches": 2, "augment": "ada", "augment_p": 0.3},
}
HARDENINGS = {
    "pgd": {"steps": 2},
    "trades": {"steps": 2, "awp": 0.005},
    "mart": {"steps": 2, "micro_batches": 2},
    "free": {"replays": 2},
    "fgsm": {"start": "nfgsm"},
    "augment": {},
    "noise": {},
}


def color_images():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), dtype=np.uint8)
    return ImageSet("noise", "train", pixels, np.arange(50) % 2, ("even", "odd"))


def crossings(game, batches):
    game.round(0, batches, seed=0)  # what is made once may be copied
    with Crossings() as log:
        game.round(1, batches, seed=0)
    return log.lines


@pytest.mark.parametrize("name", GANS)
def test_of_a_gan(name):
    settings = {"batch_size": 8, "latent_dim": 5, "precision": "fp32", "penalty_every": 1}
    config = RECIPES[name]().changed(**{**settings, **SMALL_WIDTHS[name], **GANS[name]})
    game = build_game(config, size=8, channels=3, classes=2, device=PRETEND, seed=0)
    lines = crossings(game, Batches(color_images(), 8, seed=0, micro_batches=config.micro_batches))
    assert lines
    assert all(line.startswith(BATCH) for line in lines), lines


@pytest.mark.parametrize("method", HARDENINGS)
def test_of_adversarial_training(method):
    settings = {"net": "resnet", "widths": (4, 8), "batch_size": 8, "until": "4 steps", "precision": "fp32"}
    settings |= {**HARDENINGS[method], "method": method}
    job = HardenJob(Request("noise", None, None, False, 0, "cpu", True, settings))
    job.device = PRETEND
    job.loaded = noise_images()
    job.images, job.held_out = hold_out(job.loaded, 5, 0)
    job.resolve_config()
    lines = crossings(job.build_game(), job.make_batches())
    assert lines
    assert all(line.startswith(BATCH) for line in lines), lines
