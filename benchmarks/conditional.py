"""A conditional and an unconditional GAN on CIFAR-10 after equal minutes: FD-lite0, and whether classes are kept.

``python -m benchmarks.conditional [--minutes N] [--seeds N] [--test-images N]`` trains ``rivals train cifar10 --recipe
auto`` with ``--conditional`` and without, so many minutes of processor time of one thread each (20 by default). Each
side gets the networks that ``auto`` fits to these minutes at its own speed, and nothing else is chosen. Test images are
read when all runs are trained, and judged once. With fewer than the default minutes nothing is recorded. A run of the
benchmark that was interrupted continues with the trainings that are missing.

Class agreement: how often a classifier that was not used in training sees the class that was asked for.
"""

from __future__ import annotations

import argparse
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rivals
from benchmarks.attack_cases import model_of
from benchmarks.harness import load, record, recorded
from benchmarks.processor_minutes import Facts, fd_lite0, fit_auto, kept, load_facts, pictures, train_gan
from rivals.nets.classifier import Classifier
from rivals.reports.image_grid import make_grid, save_png

RUNS = Path("runs/benchmark-conditional")
MINUTES, SEEDS, N = 20.0, 3, 10_000
JUDGE, TARGET = "cifar10-plain", 0.75
SIDES: dict[str, Facts] = {"conditional": {"conditional": True}, "unconditional": {}}
ROWS = 8  # of the picture, which has a column for each class


@torch.no_grad()
def predicted(model: Classifier, images: Tensor) -> Tensor:
    """The classes that a classifier sees in uint8 images (n, C, H, W), (n,)."""
    return torch.cat([model(block.float() / 255).argmax(1) for block in images.split(250)])


def agreement(run: Path, model: Classifier, n: int) -> Facts:
    """How often the class that was asked for is seen, over all and in the class where it is least often."""
    generator: Any = rivals.load(run)
    asked = torch.arange(n) % generator.classes
    right = predicted(model, generator.sample(n, seed=0, labels=asked)) == asked
    by_class = [round(float(right[asked == c].float().mean()), 4) for c in range(generator.classes)]
    return {"agreement": round(float(right.float().mean()), 4), "agreement_by_class": by_class}


def main() -> None:
    """Train what is missing, then judge all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--test-images", type=int, default=N)
    words = parser.parse_args()
    torch.set_num_threads(1)
    load_before, home = os.getloadavg()[0], RUNS / f"{words.minutes:g}"
    runs: dict[str, Facts] = {}
    for seed in range(words.seeds):
        for side, settings in SIDES.items():
            fitting = partial(fit_auto, "cifar10", words.minutes, **settings)
            options = {**settings, **kept(home / f"{side}-fitted.json", fitting)}
            out = home / f"{side}-{seed}"
            run = kept(out.with_suffix(".json"), partial(train_gan, "cifar10", out, seed, **options))
            runs[f"{side} {seed}"] = run
            print(side, seed, run, flush=True)
    test, model = load("cifar10", split="test"), model_of(JUDGE).eval()
    assert test.labels is not None
    for name, facts in runs.items():
        out = home / name.replace(" ", "-")
        facts["FD-lite0"] = fd_lite0(out, test, words.test_images)
        if facts["settings"]["conditional"]:
            facts |= agreement(out, model, words.test_images)
        print(name, facts, flush=True)
    seen = predicted(model, torch.from_numpy(test.images[: words.test_images])).numpy()
    picture = f"conditional_{words.minutes:g}.png"
    generator: Any = rivals.load(home / "conditional-0")
    trial = words.minutes < MINUTES
    save_png(make_grid(generator.sample(ROWS * 10, seed=0).numpy(), columns=10), pictures(trial, home) / picture)
    case = {
        "minutes": words.minutes,
        "n": words.test_images,
        "test_hash": test.hash,
        **load_facts(load_before),
        "judge_accuracy_on_test_images": round(float(np.mean(seen == test.labels[: words.test_images])), 4),
        "runs": runs,
        "picture": picture,
    }
    print(case, flush=True)
    if not trial:
        cases = {**recorded("conditional", "cases"), f"{words.minutes:g}": case}
        record("conditional", judge=JUDGE, target=TARGET, seeds=[*range(words.seeds)], cases=cases)
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
