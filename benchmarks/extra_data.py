"""Do generated images teach? Hardening on CIFAR-10 with and without those of our own conditional generator.

``python -m benchmarks.extra_data [--minutes N] [--generator-minutes N] [--seeds N]`` goes on where it was stopped: a
conditional generator, the share of its images in a batch (by held-out robust accuracy of short runs), then classifiers
with and without, each seed in turn. Minutes are processor time of one thread, and the same for both sides; those of the
generator are told beside. Test images are read once all is chosen.

    python -m benchmarks.extra_data --seeds 1
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import torch

import rivals
from benchmarks.harness import images_in, record, recorded
from rivals.base.norm_balls import Linf

RUNS = Path("runs/benchmark-extra-data")
DATA, EPS, MINUTES, SEEDS = "cifar10", 8 / 255, 20.0, 3
N, ATTACK = 1000, "autoattack-swift"
GENERATOR = {"recipe": "quick", "conditional": True}
CANDIDATES = (0.0, 0.1, 0.3, 0.5)  # shares of generated images; without any: what the others have to beat
SWEEP = 0.25  # of the minutes, for each candidate
SECONDS = 60


def note(**facts: Any) -> None:
    """Add facts to the results and save them."""
    known = {key: recorded("extra_data", key) for key in ("generator", "sweep", "sides")} if RESULT.exists() else {}
    settings = {"data": DATA, "eps": EPS, "attack": ATTACK, "n": N}
    record("extra_data", **settings, **{"generator": {}, "sweep": {}, "sides": {}} | known | facts)


RESULT = Path(__file__).parent / "results" / "extra_data.json"


def known(key: str) -> dict[str, Any]:
    """What was recorded before."""
    return recorded("extra_data", key) if RESULT.exists() else {}


def generator(minutes: float) -> Path:
    """The run of a conditional GAN."""
    out = RUNS / "generator"
    options: dict[str, Any] = {"device": "cpu", "quiet": True, **GENERATOR}

    def train(images: int, folder: Path) -> Any:
        shutil.rmtree(folder, ignore_errors=True)
        return rivals.train(DATA, until=f"{images} images", out=folder, **options)

    if not known("generator"):
        images = images_in(minutes, lambda count: train(count, RUNS / "probe"))
        start = time.process_time()
        run = train(images, out)
        spent = round((time.process_time() - start) / SECONDS, 1)
        scores = rivals.score(str(out), DATA, metrics="fd", extractor="lite0", n=10_000, quiet=True, out=out / "score")
        fd = next(iter(scores.as_dict()["values"]))["value"]
        note(generator={"images": run.info["images"], "processor_minutes": spent, "fd_lite0": round(fd, 2)})
    return out


def harden(share: float, images: int, seed: int, folder: Path, extra: Path) -> tuple[Any, float]:
    """A classifier, and the processor minutes that it took."""
    shutil.rmtree(folder, ignore_errors=True)
    settings: dict[str, Any] = {"extra": str(extra), "extra_share": share} if share else {}
    start = time.process_time()
    until = f"{images} images"
    run = rivals.harden(DATA, Linf(EPS), until=until, seed=seed, out=folder, device="cpu", quiet=True, **settings)
    return run, round((time.process_time() - start) / SECONDS, 1)


def choose(minutes: float, extra: Path) -> float:
    """The share of generated images with the highest held-out robust accuracy after short runs."""
    trials: dict[str, Any] = known("sweep")
    for share in CANDIDATES:
        if f"{share:g}" not in trials:
            images = in_minutes(SWEEP * minutes, share, extra)
            run, spent = harden(share, images, 0, RUNS / "trial", extra)
            robust = max(float(each["accuracy/pgd"]) for each in run.records() if "accuracy/pgd" in each)
            trials[f"{share:g}"] = {"images": images, "processor_minutes": spent, "robust_held_out": robust}
            print(f"share {share:g}: {trials[f'{share:g}']}", flush=True)
            note(sweep=trials)
    return max(CANDIDATES[1:], key=lambda share: float(trials[f"{share:g}"]["robust_held_out"]))


def in_minutes(minutes: float, share: float, extra: Path) -> int:
    """How many images a side sees in so many processor minutes."""
    return images_in(minutes, lambda count: harden(share, count, 0, RUNS / "probe", extra))


def main() -> None:
    """Measure what is not in the results yet."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--generator-minutes", type=float, default=MINUTES)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    asked = parser.parse_args()
    extra = generator(asked.generator_minutes)
    chosen = choose(asked.minutes, extra)
    sides = known("sides")
    for seed in range(asked.seeds):
        for name, share in {"without": 0.0, "with": chosen}.items():
            key = f"{name} {seed}"
            if key in sides:
                continue
            folder = RUNS / key.replace(" ", "-")
            run, spent = harden(share, in_minutes(asked.minutes, share, extra), seed, folder, extra)
            report = rivals.evaluate(folder, DATA, Linf(EPS), attack=ATTACK, n=N, alarms=False, save="none", quiet=True)
            facts = {"share": share, "images": run.info["images"], "processor_minutes": spent}
            sides[key] = facts | {"clean": report.clean.value, "robust": report.robust.as_dict()}
            print(key, sides[key], flush=True)
            note(sides=sides)


if __name__ == "__main__":
    main()
