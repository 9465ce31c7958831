"""Rob-GAN on CIFAR-10 beside what its minutes buy apart: half of them for a conditional GAN, half for hardening.

``python -m benchmarks.robgan [SIDE ...] [--minutes N]`` measures the named sides, or those that are not in the results
yet. Minutes are processor time of one thread. Test images are read when a side is trained, and judged once. What was
trained or judged before an interruption is kept in ``runs``. With fewer than the default minutes nothing is recorded.
"""

from __future__ import annotations

import argparse
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import torch

import rivals
from benchmarks.harness import load, record, recorded
from benchmarks.processor_minutes import Facts, Probe, fd_lite0, gan_job, harden_job, kept
from rivals.base.norm_balls import Linf

RUNS = Path("runs/benchmark-robgan")
DATA, EPS, MINUTES = "cifar10", "8/255", 60.0
N_SCORE, N_ATTACK, ATTACK = 10_000, 1000, "autoattack"
SHARES = {"robgan": 1.0, "gan": 0.5, "harden": 0.5}  # of the minutes
SETTINGS: dict[str, Facts] = {
    "robgan": {"recipe": "robgan", "eps": EPS},
    "gan": {"recipe": "quick", "conditional": True},
    "harden": {"norm": "linf", "eps": EPS},
}


def measure(side: str, minutes: float, n_score: int, n_attack: int) -> Facts:
    """Train a side; score its generator and attack its classifier, whichever it has."""
    home = RUNS / f"{side}-{minutes:g}-{n_score}-{n_attack}"
    run = home / "run"
    result = kept(home / "training.json", lambda: _train(side, SHARES[side] * minutes, run))
    if (run / "generator.safetensors").exists():
        result |= kept(home / "score.json", lambda: {"fd_lite0": fd_lite0(run, load(DATA, split="test"), n_score)})
    if (run / "classifier.safetensors").exists():
        result |= kept(home / "attack.json", lambda: _attack(run / "classifier.safetensors", n_attack))
    return result


def _train(side: str, minutes: float, out: Path) -> Facts:
    job: Any = harden_job if side == "harden" else gan_job
    train: Any = rivals.harden if side == "harden" else rivals.train
    images = Probe(job(DATA, **SETTINGS[side])).images_in(minutes)
    shutil.rmtree(out, ignore_errors=True)  # of a run that was cut short: its minutes are counted from the start
    start = time.process_time()
    run = train(DATA, until=f"{images} images", out=out, device="cpu", quiet=True, **SETTINGS[side])
    spent = (time.process_time() - start) / 60
    return {"images": run.info["images"], "processor_minutes": round(spent, 1)}


def _attack(classifier: Path, n: int) -> Facts:
    options: Facts = {"attack": ATTACK, "n": n, "device": "cpu", "quiet": True}
    report = rivals.evaluate(classifier, DATA, Linf(8 / 255), **options)
    return {
        "clean": report.clean.value,
        "robust": report.robust.as_dict(),
        "n": report.n,
        "test_hash": report.protocol["hash"],
    }


def main() -> None:
    """Measure what was named, or all that is not in the results yet."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("sides", nargs="*", choices=[[], *SHARES])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--generated", type=int, default=N_SCORE)
    parser.add_argument("--attacked", type=int, default=N_ATTACK)
    asked = parser.parse_args()
    for side in asked.sides or [name for name in SHARES if name not in recorded("robgan", "sides")]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = measure(side, asked.minutes, asked.generated, asked.attacked)
        print(side, found, flush=True)
        if asked.minutes >= MINUTES:
            sides = recorded("robgan", "sides") | {side: found}  # another process may have measured another side
            record("robgan", data=DATA, eps=EPS, minutes=asked.minutes, attack=ATTACK, sides=sides)


if __name__ == "__main__":
    main()
