"""Rob-GAN on CIFAR-10 beside what its minutes buy apart: half of them for a conditional GAN, half for hardening.

``python -m benchmarks.robgan [SIDE ...] [--minutes N]`` measures the named sides, or those that are not in the results
yet. Minutes are processor time of one thread; two short runs find out how many images they are. Test images are read
when a side is trained, and judged once.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

import rivals
from benchmarks.harness import images_in, record, recorded
from rivals.base.norm_balls import Linf

DATA, EPS, MINUTES = "cifar10", 8 / 255, 60.0
N_SCORE, N_ATTACK, ATTACK = 10_000, 1000, "autoattack"
SHARES = {"robgan": 1.0, "gan": 0.5, "harden": 0.5}  # of the minutes
SETTINGS: dict[str, dict[str, Any]] = {
    "robgan": {"recipe": "robgan", "eps": repr(EPS)},
    "gan": {"recipe": "quick", "conditional": True},
}


def train(side: str, images: int, out: Path) -> Any:
    """A run of one side."""
    options: dict[str, Any] = {"until": f"{images} images", "out": out, "device": "cpu", "quiet": True}
    return (
        rivals.train(DATA, **options, **SETTINGS[side])
        if side in SETTINGS
        else rivals.harden(DATA, Linf(EPS), **options)
    )


def measure(side: str, minutes: float, home: Path) -> dict[str, Any]:
    """Train a side; score its generator and attack its classifier, whichever it has."""
    images = images_in(SHARES[side] * minutes, lambda count: train(side, count, home / f"probe-{count}"))
    start, out = time.process_time(), home / "run"
    run = train(side, images, out)
    spent = (time.process_time() - start) / 60
    result: dict[str, Any] = {"images": run.info["images"], "processor_minutes": round(spent, 1)}
    if (out / "generator.safetensors").exists():
        options: dict[str, Any] = {"metrics": "fd", "extractor": "lite0", "n": N_SCORE, "quiet": True}
        scores = rivals.score(str(out), DATA, out=home / "score", **options)
        result["scores"] = {value["metric"]: round(value["value"], 2) for value in scores.as_dict()["values"]}
    file = out / "classifier.safetensors"
    if file.exists():
        report = rivals.evaluate(file, DATA, Linf(EPS), attack=ATTACK, n=N_ATTACK, device="cpu", quiet=True)
        result |= {"clean": report.clean.value, "robust": report.robust.as_dict(), "n": report.n}
    return result


def main() -> None:
    """Measure what was named, or all that is not in the results yet."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("sides", nargs="*", choices=[[], *SHARES])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    asked = parser.parse_args()
    sides = recorded("robgan", "sides")
    for side in asked.sides or [name for name in SHARES if name not in sides]:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sides[side] = measure(side, asked.minutes, Path(folder))
        print(side, sides[side], flush=True)
        record("robgan", data=DATA, eps=EPS, minutes=asked.minutes, attack=ATTACK, sides=sides)


if __name__ == "__main__":
    main()
