"""A few images of one class: fine-tuned from a GAN of the other classes, or from scratch, in equal minutes.

``python -m benchmarks.fine_tuning [--minutes N] [--pretraining N] [--test-images N]``: 500 images of CIFAR-10's horses.
One side starts with ``--weights`` at a GAN of the other nine classes, with the discriminator's first blocks frozen
(FreezeD, Mo et al. 2020); the other one is ``rivals train`` from scratch. Both have the recipe ``auto`` and so many
minutes of processor time of one thread (10 by default). The minutes of the pretraining (20 by default) come on top, so
a third side from scratch has all of them.

How many blocks are frozen is chosen by FD-lite0 on the class's other training images, which no side trains on, after
``SWEEP`` of the minutes each. Test images of the class are read when all sides are trained, and judged once. With fewer
than the default minutes nothing is recorded. A run of the benchmark that was interrupted continues where it was.
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

import rivals
from benchmarks.harness import load, packed, record, recorded
from benchmarks.processor_minutes import (
    Facts,
    Probe,
    fd_lite0,
    fit_auto,
    gan_job,
    kept,
    load_facts,
    pictures,
    train_gan,
)
from rivals.data.imageset import ImageSet
from rivals.data.splits import hold_out, subset
from rivals.reports.image_grid import make_grid, save_png

RUNS = Path("runs/benchmark-fine-tuning")
MINUTES, PRETRAINING, N = 10.0, 20.0, 10_000
CLASS, COUNT, SEED = "horse", 500, 0
SWEEP = 0.1  # of the minutes, for each number of frozen blocks
FROZEN = (0, 1, 2)
AUGMENT = "diff"  # what auto chooses for images that are seen so often; in a probe or a trial, too
SIDES = ("fine-tuned", "from scratch", "from scratch, all minutes")
SHOWN = 64


def of_class(images: ImageSet, inside: bool) -> ImageSet:
    """The images of the class, or those of all others."""
    assert images.labels is not None
    chosen = (images.labels == images.classes.index(CLASS)) == inside
    return subset(images, np.flatnonzero(chosen))


def write_data(home: Path) -> ImageSet:
    """Write the images to pretrain on, and the few; return the class's other training images."""
    images = load("cifar10")
    kept_aside, few = hold_out(of_class(images, True), COUNT, SEED)
    for name, chosen in {"others": of_class(images, False), "few": few}.items():
        path = home / f"{name}.zip"
        if not path.exists():
            home.mkdir(parents=True, exist_ok=True)
            packed(torch.from_numpy(chosen.images[:]), path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
    return kept_aside


def fine_tune(home: Path, out: Path, minutes: float, blocks: int) -> Facts:
    """Train on the few images from the weights of the pretraining."""
    settings = {"weights": str(home / "pretrained"), "freeze_d": blocks, "augment": AUGMENT}
    images = Probe(gan_job(str(home / "few.zip"), SEED, **settings)).images_in(minutes)
    return train_gan(str(home / "few.zip"), out, SEED, **settings, until=f"{images} images")


def from_scratch(home: Path, out: Path, minutes: float) -> Facts:
    """Train on the few images alone, with the networks that ``auto`` fits to the minutes."""
    settings = {"augment": AUGMENT}
    return train_gan(
        str(home / "few.zip"), out, SEED, **settings, **fit_auto(str(home / "few.zip"), minutes, **settings)
    )


def choose_frozen(home: Path, minutes: float, kept_aside: ImageSet, n: int) -> Facts:
    """The number of frozen blocks with the lowest FD-lite0 on the images kept aside."""
    trials = []
    for blocks in FROZEN:
        out = home / f"frozen-{blocks}"
        facts = fine_tune(home, out, SWEEP * minutes, blocks)
        found = fd_lite0(out, kept_aside, min(n, len(kept_aside)))
        trials.append({"freeze_d": blocks, "images": facts["images"], "FD-lite0": found})
        print("on images kept aside", trials[-1], flush=True)
    best = min(trials, key=lambda trial: float(trial["FD-lite0"]))
    return {
        "minutes_each": SWEEP * minutes,
        "kept_aside": len(kept_aside),
        "trials": trials,
        "freeze_d": best["freeze_d"],
    }


def main() -> None:
    """Train what is missing, then judge all sides."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--pretraining", type=float, default=PRETRAINING)
    parser.add_argument("--test-images", type=int, default=N)
    words = parser.parse_args()
    torch.set_num_threads(1)
    minutes, before = words.minutes, words.pretraining
    load_before, home = os.getloadavg()[0], RUNS / f"{minutes:g}-{before:g}"
    kept_aside = write_data(home)

    def pretrain() -> Facts:
        data = str(home / "others.zip")
        return train_gan(data, home / "pretrained", SEED, **fit_auto(data, before))

    pretrained = kept(home / "pretrained.json", pretrain)
    print("pretrained", pretrained, flush=True)
    sweep = kept(home / "sweep.json", partial(choose_frozen, home, minutes, kept_aside, words.test_images))
    folders = {side: home / side.replace(", ", " ").replace(" ", "-") for side in SIDES}
    tuned, alone, longer = folders.values()
    trainings = (
        partial(fine_tune, home, tuned, minutes, sweep["freeze_d"]),
        partial(from_scratch, home, alone, minutes),
        partial(from_scratch, home, longer, minutes + before),
    )
    sides: dict[str, Facts] = {}
    for (side, out), training in zip(folders.items(), trainings, strict=True):
        sides[side] = kept(out.with_suffix(".json"), training)
        print(side, sides[side], flush=True)
    test = of_class(load("cifar10", split="test"), True)
    trial = minutes < MINUTES
    for side, facts in sides.items():
        facts["FD-lite0"] = fd_lite0(folders[side], test, words.test_images)
        facts["picture"] = f"{folders[side].name}_{minutes:g}.png".replace("-", "_")
        generator: Any = rivals.load(folders[side])
        path = pictures(trial, home) / f"fine_tuning_{facts['picture']}"
        save_png(make_grid(generator.sample(SHOWN, seed=0).numpy()), path)
    few = load(str(home / "few.zip"))
    case = {
        "minutes": minutes,
        "pretraining_minutes": before,
        "n": words.test_images,
        "n_real": min(words.test_images, len(test)),
        "test_hash": test.hash,
        **load_facts(load_before),
        "pretrained": pretrained,
        "sweep": sweep,
        "sides": sides,
        "FD-lite0_of_the_training_images": fd_lite0(torch.from_numpy(few.images[:]), test, words.test_images),
    }
    print(case, flush=True)
    if not trial:
        cases = {**recorded("fine_tuning", "cases"), f"{minutes:g}": case}
        record("fine_tuning", class_name=CLASS, count=COUNT, seeds=[SEED], cases=cases)
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
