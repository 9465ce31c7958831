"""R1 by a finite difference beside the exact one: on the Dirac-GAN at equal steps, on CIFAR-10 at equal minutes.

``python -m benchmarks.finite_difference_r1 [PART ...] [--minutes N] [--seeds N] [--test-images N]`` measures the named
parts, or both. On CIFAR-10 a side gets so many minutes of processor time of one thread. The networks are those that
``auto`` fits to them with exact penalties; the other side has the same, and the same gammas, so nothing is chosen. Test
images are read when all runs are trained, and judged once. With fewer than the default minutes nothing is recorded.

The Dirac-GAN (Mescheder et al. 2018): real images are all at 0, the generator makes images at theta, and the
discriminator is D(x) = <psi, x>. At the equilibrium both are 0.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

import rivals
from benchmarks.harness import in_turn, load, paired_ratio, record, recorded
from benchmarks.processor_minutes import (
    Facts,
    Probe,
    fd_lite0,
    fit_auto,
    gan_job,
    images_at,
    kept,
    load_facts,
    train_gan,
)
from rivals.base import rng
from rivals.base.schedules import Clock
from rivals.losses.gan import nonsaturating
from rivals.losses.penalties import Penalty

RUNS = Path("runs/benchmark-finite-difference")
MINUTES, N = 5.0, 10_000
GAMMA = "0.3"  # what auto gives R1 and R2 at 32 px
SIDES: dict[str, Facts] = {
    "exact": {"r1": GAMMA, "r2": GAMMA},
    "finite difference": {"r1": "0", "r2": "0", "fd_r1": GAMMA, "fd_r2": GAMMA},
}
EVERY, SPEED_ROUNDS = 8, 3  # steps from one penalty to the next, as in auto

STEPS, RATE = 3000, 0.02
GAMMAS, DIMENSIONS, BATCHES = (0.1, 0.4, 1.0), (1, 64), (1, 64)
DIRAC_SEEDS = 5


class Budget(NamedTuple):
    """Minutes of a side, seeds, and test images to judge on."""

    minutes: float
    seeds: int
    n: int


def dirac(make_penalty: Callable[[float], Penalty], gamma: float, d: int, batch: int, seed: int) -> float:
    """Simultaneous gradient descent of both players from theta a unit vector and psi = 0: the distance at its end."""
    loss, penalty = nonsaturating(), make_penalty(gamma)
    theta = torch.full((d,), d**-0.5, dtype=torch.float64, requires_grad=True)
    psi = torch.zeros(d, dtype=torch.float64, requires_grad=True)
    with rng.fork(torch.device("cpu")):
        torch.manual_seed(seed)
        for _ in range(STEPS):
            step = _dirac_step(theta, psi, batch)
            score = torch.stack([*loss.discriminator(step).values()]).sum() + gamma * penalty.score(step)
            (of_psi,) = torch.autograd.grad(score, psi, retain_graph=True)
            (of_theta,) = torch.autograd.grad(torch.stack([*loss.generator(step).values()]).sum(), theta)
            with torch.no_grad():
                psi -= RATE * of_psi
                theta -= RATE * of_theta
    return math.hypot(float(psi.detach().norm()), float(theta.detach().norm()))


def _dirac_step(theta: Tensor, psi: Tensor, batch: int) -> Any:
    """What losses and penalties read of a batch."""
    real = torch.zeros(batch, len(psi), 1, 1, dtype=torch.float64, requires_grad=True)

    def critic(images: Tensor) -> Tensor:
        return images.flatten(1) @ psi

    logits = critic(real)
    (input_grad,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return SimpleNamespace(
        real=logits,
        fake=(theta @ psi).expand(batch),
        real_images=real,
        real_input_grad=input_grad,
        critic_and_moved=lambda images, offset: (critic(images), critic(images + offset)),
        clock=Clock(0),
    )


def on_dirac(budget: Budget) -> None:
    """Distances to the equilibrium after as many steps, for each setting."""
    cases = []
    for gamma in GAMMAS:
        for d in DIMENSIONS:
            exact = dirac(rivals.r1, gamma, d, 1, 0)  # neither the seed nor the batch makes a difference
            for batch in BATCHES:
                found = [dirac(rivals.fd_r1, gamma, d, batch, seed) for seed in range(DIRAC_SEEDS)]
                cases.append({"gamma": gamma, "dimensions": d, "batch": batch, "exact": exact, "differences": found})
                print(cases[-1], flush=True)
    write(dirac={"steps": STEPS, "learning_rate": RATE, "seeds": DIRAC_SEEDS, "cases": cases})


def speeds(fitted: Facts, every: int) -> dict[str, list[float]]:
    """Images per processor second of both sides, in turn; exact penalties every so many steps."""
    probes = {
        side: Probe(gan_job("cifar10", **{**fitted, **settings, "penalty_every": every}))
        for side, settings in SIDES.items()
    }
    return in_turn({side: probe.speed for side, probe in probes.items()}, SPEED_ROUNDS)


def on_cifar10(budget: Budget) -> None:
    """FD-lite0 after equal minutes, and speeds."""
    load_before, home = os.getloadavg()[0], RUNS / f"{budget.minutes:g}"
    fitted = kept(home / "fitted.json", partial(fit_auto, "cifar10", budget.minutes, **SIDES["exact"]))
    del fitted["until"]
    per_second = {
        str(every): kept(home / f"speeds-{every}.json", partial(speeds, fitted, every)) for every in (EVERY, 1)
    }
    runs = {}
    for seed in range(budget.seeds):
        for side, settings in SIDES.items():
            images = images_at(median(per_second[str(EVERY)][side]), budget.minutes, 64)
            name = f"{side.replace(' ', '-')}-{seed}"
            options = {**fitted, **settings, "until": f"{images} images"}
            training = partial(train_gan, "cifar10", home / name, seed, **options)
            runs[f"{side} {seed}"] = kept(home / f"{name}.json", training)
            print(side, seed, runs[f"{side} {seed}"], flush=True)
    test = load("cifar10", split="test")
    for run, facts in runs.items():
        facts["FD-lite0"] = fd_lite0(home / run.replace(" ", "-"), test, budget.n)
        print(run, facts["FD-lite0"], flush=True)
    ratios = {every: paired_ratio(found["finite difference"], found["exact"]) for every, found in per_second.items()}
    case = {"minutes": budget.minutes, "n": budget.n, "test_hash": test.hash, **load_facts(load_before)}
    case |= {"images_per_processor_second": per_second, "speed_ratios": ratios, "runs": runs}
    print(case, flush=True)
    if budget.minutes >= MINUTES:
        write(cifar10={**recorded("finite_difference_r1", "cifar10"), f"{budget.minutes:g}": case})
        shutil.rmtree(home)


def write(**found: Facts) -> None:
    """Record a part, beside the other as it was."""
    before = {part: recorded("finite_difference_r1", part) for part in ("dirac", "cifar10")}
    record("finite_difference_r1", gamma=GAMMA, **{**before, **found})


PARTS = {"dirac": on_dirac, "cifar10": on_cifar10}


def main() -> None:
    """Measure what was named, or both parts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--test-images", type=int, default=N)
    words = parser.parse_args()
    torch.set_num_threads(1)
    for part in words.parts or PARTS:
        PARTS[part](Budget(words.minutes, words.seeds, words.test_images))


if __name__ == "__main__":
    main()
