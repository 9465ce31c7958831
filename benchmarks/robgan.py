"""Rob-GAN on CIFAR-10 beside what its minutes buy apart: half of them for a conditional GAN, half for hardening.

``python -m benchmarks.robgan [SIDE ...] [--minutes N]`` measures the named sides, or those that are not in the results
yet. Minutes are processor time of one thread. Test images are read when a side is trained, and judged once. With fewer
than the default minutes nothing is recorded.
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
from benchmarks.harness import record, recorded
from benchmarks.processor_minutes import Facts, Probe, fd_lite0, gan_job, harden_job
from rivals.base.norm_balls import Linf
from rivals.data.load import load

DATA, EPS, MINUTES = "cifar10", "8/255", 60.0
N_SCORE, N_ATTACK, ATTACK = 10_000, 1000, "autoattack"
SHARES = {"robgan": 1.0, "gan": 0.5, "harden": 0.5}  # of the minutes
SETTINGS: dict[str, Facts] = {
    "robgan": {"recipe": "robgan", "eps": EPS},
    "gan": {"recipe": "quick", "conditional": True},
    "harden": {"norm": "linf", "eps": EPS},
}


def measure(side: str, minutes: float, n_score: int, n_attack: int, home: Path) -> Facts:
    """Train a side; score its generator and attack its classifier, whichever it has."""
    job: Any = harden_job if side == "harden" else gan_job
    train: Any = rivals.harden if side == "harden" else rivals.train
    images = Probe(job(DATA, **SETTINGS[side])).images_in(SHARES[side] * minutes)
    start, out = time.process_time(), home / "run"
    run = train(DATA, until=f"{images} images", out=out, device="cpu", quiet=True, **SETTINGS[side])
    spent = (time.process_time() - start) / 60
    result: Facts = {"images": run.info["images"], "processor_minutes": round(spent, 1)}
    if (out / "generator.safetensors").exists():
        result["fd_lite0"] = fd_lite0(out, load(DATA, split="test"), n_score)
    file = out / "classifier.safetensors"
    if file.exists():
        options: Facts = {"attack": ATTACK, "n": n_attack, "device": "cpu", "quiet": True}
        report = rivals.evaluate(file, DATA, Linf(8 / 255), **options)
        result |= {"clean": report.clean.value, "robust": report.robust.as_dict(), "n": report.n}
    return result


def main() -> None:
    """Measure what was named, or all that is not in the results yet."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("sides", nargs="*", choices=[[], *SHARES])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--generated", type=int, default=N_SCORE)
    parser.add_argument("--attacked", type=int, default=N_ATTACK)
    asked = parser.parse_args()
    sides = recorded("robgan", "sides")
    for side in asked.sides or [name for name in SHARES if name not in sides]:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sides[side] = measure(side, asked.minutes, asked.generated, asked.attacked, Path(folder))
        print(side, sides[side], flush=True)
        if asked.minutes >= MINUTES:
            record("robgan", data=DATA, eps=EPS, minutes=asked.minutes, attack=ATTACK, sides=sides)


if __name__ == "__main__":
    main()
