"""Rectangles against squares: what a training step costs per pixel.

A round of each GAN recipe and a step of each classifier, at its default widths, at 48x32 and at 32 x 32 pixels: both
halve their sides three times. A round is a whole cycle of lazy penalties. By processor time of one thread, the sizes in
turn, so that drift and other work on the machine hardly matter.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.harness import paired_ratio, record
from rivals.api.common.game_factory import build_game
from rivals.base.size import Size
from rivals.data.batches import Batches
from rivals.data.imageset import ImageSet
from rivals.nets.factory import CLASSIFIERS, build_classifier
from rivals.recipes import RECIPES

WIDE, SQUARE = Size.parse("48x32"), Size.parse(32)
GANS = {"mlp": 64, "dcgan": 64, "sngan": 16, "r3": 16}  # recipe: batch size
ROUNDS, BATCH, AT_LEAST = 7, 64, 0.5  # the last: processor seconds of a measurement


def gan(recipe: str, size: Size) -> tuple[Callable[[], None], int]:
    """A cycle of a recipe's rounds, and the pixels of real images in it."""
    config = RECIPES[recipe]().changed(batch_size=GANS[recipe], precision="fp32")
    game = build_game(config, size=size, channels=3, classes=10, device=torch.device("cpu"), seed=0)
    pixels = np.random.default_rng(0).integers(0, 256, (256, 3, *size), dtype=np.uint8)
    classes = tuple(map(str, range(10)))
    batches = Batches(ImageSet("noise", "train", pixels, np.arange(256) % 10, classes), config.batch_size, seed=0)
    steps = itertools.count()

    def cycle() -> None:
        for _ in range(config.penalty_every):
            game.round(next(steps), batches, seed=0)

    return cycle, config.penalty_every * config.batch_size * size.area


def classifier(net: str, size: Size) -> tuple[Callable[[], None], int]:
    """A step of a classifier, and the pixels in it."""
    torch.manual_seed(0)
    model = build_classifier(net, size=size, channels=3, classes=10)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    x, y = torch.rand(BATCH, 3, *size), torch.arange(BATCH) % 10

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step, BATCH * size.area


def speed(work: Callable[[], None], pixels: int) -> float:
    """Pixels per processor second."""
    start, count = time.process_time(), 0
    while time.process_time() - start < AT_LEAST:
        work()
        count += 1
    return count * pixels / (time.process_time() - start)


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    cases = {f"{name} (GAN)": (gan, name) for name in GANS} | {name: (classifier, name) for name in CLASSIFIERS}
    found = {}
    for case, (make, name) in cases.items():
        sides = {str(size): make(name, size) for size in (WIDE, SQUARE)}
        for work, _ in sides.values():
            work()
        speeds: dict[str, list[float]] = {size: [] for size in sides}
        for _ in range(ROUNDS):
            for size, (work, pixels) in sides.items():
                speeds[size].append(round(speed(work, pixels) / 1e6, 4))
        found[case] = {**speeds, "ratio": paired_ratio(speeds[str(WIDE)], speeds[str(SQUARE)])}
        print(case, found[case]["ratio"], flush=True)
    record(
        "rectangles",
        target=0.9,
        unit="million pixels of real images per processor second, float32",
        rounds=ROUNDS,
        sizes=[str(WIDE), str(SQUARE)],
        cases=found,
    )


if __name__ == "__main__":
    main()
