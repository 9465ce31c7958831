"""Adversarial training against a generator that learns, beside training against PGD, at equal minutes.

``python -m benchmarks.learned_attack [--minutes N]`` hardens a classifier of MNIST by ``--method gan`` and by the
default method, so many minutes of processor time of one thread each (5 by default), each with its own recipe. Test
images are read when both are trained, and judged once: by AutoAttack swift, and by a generator that is then trained
against each classifier. What was trained or judged before an interruption is kept in ``runs``. With fewer than the
default minutes nothing is recorded.
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
from benchmarks.harness import record
from benchmarks.processor_minutes import Facts, Probe, harden_job, kept
from rivals.base.norm_balls import Linf

RUNS = Path("runs/benchmark-learned-attack")
DATA, EPS, MINUTES, N, ATTACK = "mnist", 0.3, 5.0, 1000, "autoattack-swift"
SIDES: dict[str, Facts] = {"gan": {"method": "gan"}, "pgd": {}}
GENERATOR = "30k images"  # as for the plain classifier in the benchmark of AdvGAN


def harden(settings: Facts, minutes: float, out: Path) -> Facts:
    """Train a classifier for so many minutes."""
    settings = {"norm": "linf", "eps": str(EPS), **settings}
    images = Probe(harden_job(DATA, **settings)).images_in(minutes)
    shutil.rmtree(out, ignore_errors=True)
    start = time.process_time()
    run: Any = rivals.harden(DATA, until=f"{images} images", out=out, device="cpu", quiet=True, **settings)
    spent = round((time.process_time() - start) / 60, 1)
    return {"method": run.info["config"]["method"], "images": run.info["images"], "processor_minutes": spent}


def judge(run: Path, out: Path) -> Facts:
    """What AutoAttack leaves of a classifier, and what a generator that is trained against it leaves."""
    shutil.rmtree(out, ignore_errors=True)
    options: Facts = {"against": str(run), "eps": str(EPS), "until": GENERATOR, "device": "cpu", "quiet": True}
    rivals.train(DATA, out=out, generator_lr=f"3e-3 -> 1e-4 in {GENERATOR}", **options)
    common: Facts = {"n": N, "alarms": False, "save": "none", "quiet": True, "device": "cpu"}
    file = run / "classifier.safetensors"
    learned = rivals.evaluate(file, DATA, Linf(EPS), attack=f"generator:{out}", **common)
    report = rivals.evaluate(file, DATA, Linf(EPS), attack=ATTACK, **common)
    return {
        "clean": report.clean.value,
        "under_generator": learned.robust.as_dict(),
        "robust": report.robust.as_dict(),
        "test_hash": report.protocol["hash"],
    }


def main() -> None:
    """Train what is missing, then judge both sides."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=MINUTES)
    minutes = parser.parse_args().minutes
    home = RUNS / f"{minutes:g}"
    sides: dict[str, Facts] = {}
    for side, settings in SIDES.items():
        sides[side] = kept(home / f"{side}.json", partial(harden, settings, minutes, home / side))
        print(side, sides[side], flush=True)
    for side in SIDES:
        sides[side] |= kept(home / f"{side}-judged.json", partial(judge, home / side, home / f"{side}-generator"))
        print(side, sides[side], flush=True)
    if minutes >= MINUTES:
        record("learned_attack", data=DATA, eps=EPS, minutes=minutes, n=N, attack=ATTACK, seeds=[0], sides=sides)
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
