"""Do generated images teach? Hardening on CIFAR-10 with and without those of our own conditional generator.

``python -m benchmarks.extra_data [--minutes N] [--generator-minutes N] [--seeds N]`` goes on where it was stopped: a
conditional generator, the share of its images in a batch (by held-out robust accuracy of short runs), then classifiers
with and without, each seed in turn. Minutes are processor time of one thread, and the same for both sides; those of the
generator are told beside. Test images are read once all is chosen. With fewer than the default minutes nothing is
recorded.
"""

from __future__ import annotations

import argparse
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

import rivals
from benchmarks.harness import load, record
from benchmarks.processor_minutes import Facts, Probe, fd_lite0, gan_job, harden_job, kept
from rivals.base.norm_balls import Linf

RUNS = Path("runs/benchmark-extra-data")
DATA, EPS, MINUTES, SEEDS = "cifar10", "8/255", 20.0, 3
N, ATTACK = 1000, "autoattack-swift"
GENERATOR: Facts = {"recipe": "quick", "conditional": True}
SHARES = (0.1, 0.3, 0.5)  # of generated images in a batch
SWEEP = 0.25  # of the minutes, for each share


def train_generator(minutes: float, out: Path) -> Facts:
    """Train a conditional GAN."""
    images = Probe(gan_job(DATA, **GENERATOR)).images_in(minutes)
    shutil.rmtree(out, ignore_errors=True)
    start = time.process_time()
    run: Any = rivals.train(DATA, until=f"{images} images", out=out, device="cpu", quiet=True, **GENERATOR)
    spent = round((time.process_time() - start) / 60, 1)
    score = fd_lite0(out, load(DATA, split="test"), 10_000)
    return {"images": run.info["images"], "processor_minutes": spent, "fd_lite0": score}


def harden(minutes: float, extra: Path, share: float, seed: int, out: Path) -> Facts:
    """Train a classifier for so many minutes; its highest robust accuracy on the images kept aside."""
    settings: Facts = {"norm": "linf", "eps": EPS}
    if share:
        settings |= {"extra": str(extra), "extra_share": share}
    images = Probe(harden_job(DATA, seed, **settings)).images_in(minutes)
    shutil.rmtree(out, ignore_errors=True)
    start = time.process_time()
    run: Any = rivals.harden(DATA, until=f"{images} images", seed=seed, out=out, device="cpu", quiet=True, **settings)
    return {
        "share": share,
        "images": run.info["images"],
        "processor_minutes": round((time.process_time() - start) / 60, 1),
        "robust_held_out": max(float(each["accuracy/pgd"]) for each in run.records() if "accuracy/pgd" in each),
    }


def judge(out: Path) -> Facts:
    """Attack the classifier of a run on the test images."""
    file = out / "classifier.safetensors"
    ball = Linf(8 / 255)
    report = rivals.evaluate(file, DATA, ball, attack=ATTACK, n=N, alarms=False, save="none", quiet=True, device="cpu")
    return {"clean": report.clean.value, "robust": report.robust.as_dict(), "test_hash": report.protocol["hash"]}


def main() -> None:
    """Train what is missing, then judge all classifiers."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--generator-minutes", type=float, default=MINUTES)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    words = parser.parse_args()
    minutes, home = words.minutes, RUNS / f"{words.minutes:g}-{words.generator_minutes:g}"
    extra = home / "generator"
    made = kept(home / "generator.json", partial(train_generator, words.generator_minutes, extra))
    print("generator", made, flush=True)
    sweep = []
    for share in SHARES:
        trial = partial(harden, SWEEP * minutes, extra, share, 0, home / f"share-{share:g}")
        sweep.append(kept(home / f"share-{share:g}.json", trial))
        print("on images kept aside", sweep[-1], flush=True)
    chosen = float(max(sweep, key=lambda found: float(found["robust_held_out"]))["share"])
    trained: dict[str, Facts] = {}
    for seed in range(words.seeds):
        for side, share in {"without": 0.0, "with": chosen}.items():
            out = home / f"{side}-{seed}"
            trained[f"{side} {seed}"] = kept(
                out.with_suffix(".json"), partial(harden, minutes, extra, share, seed, out)
            )
            print(side, seed, trained[f"{side} {seed}"], flush=True)
    sides: dict[str, Facts] = {}
    for name, facts in trained.items():
        out = home / name.replace(" ", "-")
        sides[name] = facts | kept(home / f"{out.name}-judged.json", partial(judge, out))
        print(name, sides[name], flush=True)
    if minutes >= MINUTES:
        about = {"data": DATA, "eps": EPS, "attack": ATTACK, "n": N, "minutes": minutes}
        record("extra_data", **about, generator=made, sweep=sweep, sides=sides)
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
