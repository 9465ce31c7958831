"""``rivals.Critic`` as a part: an autoencoder of CIFAR-10 in a loop of its own, with a critic and without.

``python -m benchmarks.critic_part [--minutes N] [--test-images N] [--kept N]`` trains both sides for so many minutes of
processor time of one thread (5 by default): the same network, loop and batches. A probe finds out how many images that
is. The critic sees the original beside what it judges, as pix2pix's does.

Settings are chosen on ``KEPT`` training images that no side trains on, after ``SWEEP`` of the minutes each, which are
not taken off a side's training: for the side without a critic the learning rate with the least squared error; for the
side with one, at that rate, when the critic starts and how strong it is: the least FD-lite0 among those whose squared
error is at most ``MOST_ERROR`` times that of the side without. Test images are read when both sides are trained, and
judged once. With fewer than the default minutes nothing is recorded.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import rivals
from benchmarks.harness import in_turn, load, record, recorded
from benchmarks.processor_minutes import Facts, fd_lite0, images_at, load_facts, pictures
from rivals.api.critic import CriticWarning
from rivals.data.batches import Batches
from rivals.data.imageset import ImageSet
from rivals.data.splits import hold_out
from rivals.reports.image_grid import make_grid, save_png

MINUTES, N, SEED = 5.0, 10_000, 0
WIDTHS, CODE = (32, 64), 4  # channels of the stages, each half as high as the one before, and of the 8 x 8 codes
BATCH, WARM, TIMED, ROUNDS = 64, 8, 64, 3  # the last two: steps of a probe, and how often it is made
KEPT = 2500  # training images
SWEEP = 0.2  # of the minutes, for each candidate
RATES = (5e-4, 1e-3, 2e-3)
STARTS, WEIGHTS = (0.3, 0.6), (0.3, 1.0)  # of the critic: a share of the minutes, and the adaptive weight's factor
MOST_FD, MOST_ERROR = 0.7, 1.15  # targets: times the side without a critic
TRIALS = Path("runs")
SHOWN = 24


class Autoencoder(nn.Module):
    """Images (B, 3, 32, 32) in [0, 1] to 8 x 8 codes of 4 channels, a twelfth of their numbers, and back."""

    def __init__(self) -> None:
        super().__init__()
        first, last = WIDTHS[0], WIDTHS[-1]
        down = [
            part
            for inputs, outputs in itertools.pairwise((3, *WIDTHS))
            for part in (nn.Conv2d(inputs, outputs, 4, 2, 1), nn.ReLU())
        ]
        up = [
            part
            for inputs, outputs in itertools.pairwise(WIDTHS[::-1])
            for part in (nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.ReLU())
        ]
        self.encoder = nn.Sequential(*down, nn.Conv2d(last, CODE, 3, 1, 1))
        middle = [part for inputs in (CODE, last) for part in (nn.Conv2d(inputs, last, 3, 1, 1), nn.ReLU())]
        self.decoder = nn.Sequential(*middle, *up)
        self.last = nn.ConvTranspose2d(first, 3, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions, (B, 3, 32, 32)."""
        y: Tensor = self.last(self.decoder(self.encoder(x * 2 - 1)))
        return y


class Judge(nn.Module):
    """Originals and what is judged beside them, (B, 6, 32, 32) in [0, 1], to a map of 8 x 8 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(6, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2)
        )
        self.last = nn.Conv2d(32, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        y: Tensor = self.last(self.layers(x * 2 - 1))
        return y


class Adversary(NamedTuple):
    """When the critic starts, as a share of the minutes, and its weight."""

    start: float
    weight: float


class Loop:
    """A user's own training loop: squared error, Adam, a cosine to zero; with a critic if there is one."""

    def __init__(self, images: ImageSet, rate: float, length: int, critic: rivals.Critic | None) -> None:
        torch.manual_seed(SEED)
        self.net = Autoencoder()
        self.optimizer = torch.optim.Adam(self.net.parameters(), rate, betas=(0.9, 0.99))
        self.batches = Batches(images, BATCH, seed=SEED, flip=True)
        self.rate, self.steps, self.critic = rate, max(1, length // BATCH), critic

    def step(self, index: int) -> None:
        """Learn from a batch."""
        self.optimizer.param_groups[0]["lr"] = self.rate * (1 + math.cos(math.pi * index / self.steps)) / 2
        x = self.batches.draw(index)[0].float() / 255
        y = self.net(x)
        loss = error = (y - x).square().mean()
        if self.critic is not None:
            real, fake = torch.cat([x, x], 1), torch.cat([x, y], 1)
            loss = error + self.critic.loss(fake, real=real, reconstruction=error, last_layer=self.net.last.weight)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.critic is not None:
            self.critic.learn(real=real, fake=fake)

    def run(self) -> None:
        """To the end."""
        for index in range(self.steps):
            self.step(index)

    def speed(self) -> float:
        """Images per second of processor time."""
        for index in range(WARM + TIMED):
            if index == WARM:
                start = time.process_time()
            self.step(index)
        return TIMED * BATCH / (time.process_time() - start)


def make_critic(start: str | None, weight: float) -> rivals.Critic:
    """The critic: a small discriminator of patches, relativistic, with lazy R1."""
    torch.manual_seed(SEED + 1)
    penalties = [rivals.r1(0.03, every=8)]
    optimizer = rivals.adam(2e-3, beta1=0.5, beta2=0.9)
    return rivals.Critic(Judge(), "relativistic", penalties, start=start, weight=weight, optimizer=optimizer, seed=SEED)


def speeds(images: ImageSet) -> dict[str, float]:
    """Images per processor second without a critic and with one, measured in turn."""
    loops = {
        "without": Loop(images, RATES[0], 1_000_000, None),
        "with": Loop(images, RATES[0], 1_000_000, make_critic(None, WEIGHTS[0])),
    }
    return {side: median(found) for side, found in in_turn({s: loops[s].speed for s in loops}, ROUNDS).items()}


def train(
    images: ImageSet, minutes: float, speed: dict[str, float], rate: float, adversary: Adversary | None = None
) -> tuple[nn.Module, Facts]:
    """Train a side for so many minutes of processor time, by the speeds of both kinds of steps."""
    critic, length = None, images_at(speed["without"], minutes, BATCH)
    if adversary is not None:
        before = images_at(speed["without"], adversary.start * minutes, BATCH)
        length = before + images_at(speed["with"], (1 - adversary.start) * minutes, BATCH)
        critic = make_critic(f"{before} images", adversary.weight)
    loop, begin = Loop(images, rate, length, critic), time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CriticWarning)
        loop.run()
    facts: Facts = {
        "images": loop.steps * BATCH,
        "processor_minutes": round((time.process_time() - begin) / 60, 2),
        "learning_rate": rate,
    }
    if critic is not None and adversary is not None:
        facts |= {**adversary._asdict(), "images_with_critic": critic.images, "warnings": len(caught)}
        facts["alarms"] = [alarm["alarm"] for alarm in critic.alarms]
    return loop.net.eval(), facts


@torch.no_grad()
def reconstructed(net: nn.Module, images: ImageSet, n: int) -> Tensor:
    """Reconstructions of the first n images, uint8."""
    pixels = torch.from_numpy(images.images[:n])
    parts = [net(block.float() / 255) for block in pixels.split(250)]
    return torch.cat(parts).clamp(0, 1).mul(255).round().to(torch.uint8)


def judge(net: nn.Module, images: ImageSet, n: int) -> Facts:
    """FD-lite0 between images and their reconstructions, and the squared error for images in [0, 1], after rounding."""
    outputs = reconstructed(net, images, n)
    difference = (outputs.float() - torch.from_numpy(images.images[:n]).float()) / 255
    # Against the very images that were reconstructed: others would add the difference of two sets.
    real = ImageSet(images.name, images.split, images.images[:n])
    return {"FD-lite0": fd_lite0(outputs, real, n), "mse": round(float(difference.double().square().mean()), 6)}


def choose(images: ImageSet, kept: ImageSet, minutes: float, speed: dict[str, float]) -> tuple[float, Adversary, Facts]:
    """The learning rate, when the critic starts and its weight, by images kept aside; and how they were chosen."""
    trials: list[Facts] = []

    def trial(rate: float, adversary: Adversary | None = None) -> Facts:
        net, facts = train(images, SWEEP * minutes, speed, rate, adversary)
        trials.append({**facts, **judge(net, kept, len(kept))})
        print("on images kept aside", trials[-1], flush=True)
        return trials[-1]

    plain = min((trial(rate) for rate in RATES), key=lambda found: float(found["mse"]))
    rate = float(plain["learning_rate"])
    candidates = [Adversary(start, weight) for start in STARTS for weight in WEIGHTS]
    found = [(trial(rate, each), each) for each in candidates]
    # If none keeps the error low enough, the one that comes nearest.
    allowed = [pair for pair in found if pair[0]["mse"] <= MOST_ERROR * plain["mse"]]
    nearest = [min(found, key=lambda pair: float(pair[0]["mse"]))]
    _, best = min(allowed or nearest, key=lambda pair: float(pair[0]["FD-lite0"]))
    return rate, best, {"minutes_each": SWEEP * minutes, "kept_aside": len(kept), "trials": trials}


def main() -> None:
    """Choose, train both sides, judge them on the same test images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--test-images", type=int, default=N)
    parser.add_argument("--kept", type=int, default=KEPT)
    words = parser.parse_args()
    torch.set_num_threads(1)
    load_before, trial = os.getloadavg()[0], words.minutes < MINUTES
    images, kept = hold_out(load("cifar10"), words.kept, SEED)
    speed = speeds(images)
    rate, adversary, sweep = choose(images, kept, words.minutes, speed)
    trained = {
        "without": train(images, words.minutes, speed, rate),
        "with": train(images, words.minutes, speed, rate, adversary),
    }
    test = load("cifar10", split="test")
    sides = {side: {**facts, **judge(net, test, words.test_images)} for side, (net, facts) in trained.items()}
    columns = [torch.from_numpy(test.images[:SHOWN]), *(reconstructed(net, test, SHOWN) for net, _ in trained.values())]
    picture = f"critic_part_{words.minutes:g}.png"
    TRIALS.mkdir(exist_ok=True)
    grid = torch.stack(columns, 1).flatten(0, 1).numpy()
    save_png(make_grid(grid, columns=4 * len(columns), scale=3), pictures(trial, TRIALS) / picture)
    case: dict[str, Any] = {
        "minutes": words.minutes,
        "n": words.test_images,
        "test_hash": test.hash,
        **load_facts(load_before),
        "images_per_processor_second": speed,
        "sweep": sweep,
        "sides": sides,
        "ratio_of_fd": round(sides["with"]["FD-lite0"] / sides["without"]["FD-lite0"], 3),
        "ratio_of_mse": round(sides["with"]["mse"] / sides["without"]["mse"], 3),
        "picture": picture,
    }
    print(case, flush=True)
    if not trial:
        cases = {**recorded("critic_part", "cases"), f"{words.minutes:g}": case}
        targets = {"most_fd": MOST_FD, "most_mse": MOST_ERROR}
        record("critic_part", targets=targets, seeds=[SEED], cases=cases)


if __name__ == "__main__":
    main()
