"""Purifiers in front of a classifier: the naive figure, of attacks that do not see the defense, beside the honest one.

``python -m benchmarks.purification [CASE ...]`` measures the named cases, or those that are not in the results yet.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import rivals
from benchmarks.attack_cases import model_of
from benchmarks.harness import record, recorded
from rivals.base.norm_balls import Linf

N, ATTACK, STEPS = 200, "pgd(steps=40)", 20
GAN: dict[str, Any] = {
    "recipe": "mlp",
    "latent_dim": 32,
    "generator_widths": (128, 256, 512),
    "discriminator_widths": (512, 256),
    "until": "400k images",
}
ENCODER = "200k images"


@dataclass(frozen=True)
class Case:
    """A defense of a model on its data, at a radius.

    ``{gan}`` is the run of a generator, ``{encoder}`` that of an encoder of this generator; they are trained first.
    """

    model: str
    data: str
    defense: str
    eps: float


CASES = {
    "jpeg": Case("mnist-plain", "mnist", "jpeg(quality=50)", 0.1),
    "bit-depth": Case("mnist-plain", "mnist", "bit-depth(bits=1)", 0.3),
    "defense-gan": Case("mnist-plain", "mnist", "defense-gan:{gan}(steps=60,restarts=2)", 0.3),
    "gan-inversion": Case("mnist-plain", "mnist", "gan-inversion:{encoder}", 0.3),
    "jpeg cifar10": Case("cifar10-plain", "cifar10", "jpeg(quality=50)", 2 / 255),
}


def measure(case: Case) -> dict[str, Any]:
    """The figures of a case, and what each stage of the attack did."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.process_time()
        gan, encoder = Path(folder) / "gan", Path(folder) / "encoder"
        if "{" in case.defense:
            rivals.train(case.data, out=gan, device="cpu", **GAN)
        if "{encoder}" in case.defense:
            rivals.train(case.data, invert=str(gan), until=ENCODER, out=encoder, device="cpu")
        trained = time.process_time()
        report = rivals.evaluate(
            model_of(case.model).eval(),
            case.data,
            Linf(case.eps),
            attack=ATTACK,
            defense=case.defense.format(gan=gan, encoder=encoder),
            adaptive_steps=STEPS,
            n=N,
            alarms=False,
            device="cpu",
        )
    assert report.naive is not None
    return {
        "model": case.model,
        "defense": case.defense,
        "eps": case.eps,
        "n": report.n,
        "clean": report.clean.count,
        "naive": report.naive.count,
        "honest": report.robust.count,
        "verdict": report.verdict,
        "stages": {name: {"attacked": each.attacked, "fooled": each.fooled} for name, each in report.stages.items()},
        "cpu_minutes": {
            "training": round((trained - start) / 60, 1),
            "evaluation": round((time.process_time() - trained) / 60, 1),
        },
    }


def main() -> None:
    """Measure what was named, or all that is not in the results yet."""
    torch.set_num_threads(1)
    cases = recorded("purification", "cases")
    for name in sys.argv[1:] or [name for name in CASES if name not in cases]:
        cases[name] = measure(CASES[name])
        print(name, cases[name], flush=True)
        record("purification", attack=ATTACK, adaptive_steps=STEPS, gan={**GAN}, encoder=ENCODER, cases=cases)


if __name__ == "__main__":
    main()
