"""The recipes that could be the default, on the demo's digits for 8 minutes of one thread (the demo: 4 of two cores).

Left out: `mlp` and `mlp-classic`, whose samples are far worse (decision 5), and `sngan` and `r3`, whose steps are too
slow for so short a time.

Measured with a classifier trained on MNIST: Frechet distance on its features ("FD-classifier", 128-d) of 5,000 samples
of each recipe's generator against the 10,000 test images of MNIST, and the share of the rarest digit.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

import rivals
from benchmarks.digit_classifier import train_digit_classifier
from benchmarks.harness import RESULTS, load, record
from rivals.base.run_folder import Run
from rivals.recipes import DEFAULT
from rivals.reports.image_grid import make_grid, save_png

SAMPLES = 5000
MINUTES = "8 minutes"
RECIPES = ("auto", "quick", "dcgan")


def main() -> None:
    """Train each recipe in turn, then classifier all."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    for recipe in RECIPES:
        out = Path(f"runs/benchmark-demo-{recipe}")
        words = ["train", "mnist5k", "--recipe", recipe, "--until", MINUTES, "--out", str(out)]
        words += ["--resume"] if out.exists() else []
        subprocess.run([sys.executable, "-m", "rivals", *words], env=alone, check=True)
    classifier, accuracy = train_digit_classifier()
    test = torch.from_numpy(load("mnist", split="test").images)
    train = torch.from_numpy(load("mnist5k").images)
    rows = {}
    for recipe in RECIPES:
        run = Run.open(f"runs/benchmark-demo-{recipe}")
        samples = rivals.load(run.folder).sample(SAMPLES, seed=0)
        save_png(make_grid(samples[:64].numpy()), RESULTS / f"demo_recipes_{recipe}.png")
        rows[recipe] = {
            "fd_classifier": round(classifier.distance(samples, test), 1),
            "rarest_digit": round(classifier.digits(samples).bincount(minlength=10).min().item() / SAMPLES, 4),
            "images": run.info["images"],
            "alarms": [alarm["alarm"] for alarm in run.info["alarms"]],
        }
    record(
        "demo_recipes",
        description=f"{MINUTES} of one thread on mnist5k, one seed; FD-classifier of {SAMPLES:,} samples to MNIST test",
        classifier_test_accuracy=round(accuracy, 4),
        the_training_images_themselves=round(classifier.distance(train, test), 1),
        recipes=rows,
        best=min(rows, key=lambda recipe: rows[recipe]["fd_classifier"]),
        default=DEFAULT,
    )


if __name__ == "__main__":
    main()
