"""Rob-GAN beside its halves on CIFAR-10, at equal time: a conditional GAN, and adversarial training.

``python -m benchmarks.robgan [SIDE ...]`` trains the named sides, or those that are not in the results yet, for an hour
of one thread each.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

import rivals
from benchmarks.harness import record, recorded
from rivals.base.norm_balls import Linf

DATA, EPS, UNTIL = "cifar10", 8 / 255, "60 minutes"
N_SCORE, N_ATTACK, ATTACK = 10_000, 1000, "pgd(steps=40)"
SIDES: dict[str, dict[str, Any]] = {
    "robgan": {"recipe": "robgan", "eps": repr(EPS)},
    "gan": {"recipe": "quick", "conditional": True},
    "harden": {},
}


def measure(side: str) -> dict[str, Any]:
    """Train a side; score its generator and attack its classifier, whichever it has."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = Path(folder) / "run"
        options: dict[str, Any] = {"until": UNTIL, "out": out, "device": "cpu", **SIDES[side]}
        run: Any = rivals.harden(DATA, Linf(EPS), **options) if side == "harden" else rivals.train(DATA, **options)
        result: dict[str, Any] = {"images": run.info["images"], "until": UNTIL}
        if (out / "generator.safetensors").exists():
            scores = rivals.score(
                str(out),
                DATA,
                **{"metrics": "fd", "extractor": "lite0", "n": N_SCORE, "out": Path(folder) / "score", "quiet": True},
            )
            result["scores"] = {value["metric"]: round(value["value"], 4) for value in scores.as_dict()["values"]}
        if (out / "classifier.safetensors").exists():
            file = out / "classifier.safetensors"
            report = rivals.evaluate(file, DATA, Linf(EPS), attack=ATTACK, n=N_ATTACK, device="cpu")
            result |= {"clean": report.clean.value, "robust": report.robust.value, "n": report.n}
        return result


def main() -> None:
    """Measure what was named, or all that is not in the results yet."""
    torch.set_num_threads(1)
    sides = recorded("robgan", "sides")
    for side in sys.argv[1:] or [name for name in SIDES if name not in sides]:
        sides[side] = measure(side)
        print(side, sides[side], flush=True)
        record("robgan", data=DATA, eps=EPS, attack=ATTACK, sides=sides)


if __name__ == "__main__":
    main()
