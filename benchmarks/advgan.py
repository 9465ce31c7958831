"""AdvGAN: what a generator of ``rivals train --against`` fools, how it transfers, what an attack costs beside PGD.

``python -m benchmarks.advgan [CASE ...]`` measures the named cases, or those that are not in the results yet. The
settings are the recipe's, with a learning rate that decays over the length of the run; they were chosen on training
images that were kept aside.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rivals
from benchmarks.attack_cases import model_of
from benchmarks.attack_models import MODELS
from benchmarks.harness import in_turn, load, paired_ratio, record, recorded
from rivals.api.training.gan import GanRun
from rivals.attacks import autoattack, pgd
from rivals.base.norm_balls import Linf

ROUNDS, TIMED, TIMED_PGD, BLOCK = 3, 2000, 250, 250
STEPS = 40  # of PGD


@dataclass(frozen=True)
class Case:
    """A generator: the data, the model it is trained against, the radius, the length, and robust models it meets.

    Each of those comes with the number of test images on which it meets the swift AutoAttack, too.
    """

    data: str
    model: str
    eps: float
    until: str
    others: tuple[tuple[str, int], ...]


CASES = {
    "mnist": Case("mnist", "mnist-plain", 0.3, "30k images", (("mnist-hard", 100), ("mnist-linf-0.3", 1000))),
    "cifar10": Case("cifar10", "cifar10-plain", 8 / 255, "200k images", (("cifar10-linf-8-255", 100),)),
}


@torch.no_grad()
def in_blocks(net: nn.Module, *inputs: Tensor) -> Tensor:
    """What a network makes of images, and of labels if it is told them, a block at a time."""
    return torch.cat([net(*blocks) for blocks in zip(*(each.split(BLOCK) for each in inputs), strict=True)])


def judged(name: str, x: Tensor, x_adv: Tensor, y: Tensor) -> dict[str, Any]:
    """How many test images a model classifies correctly, as they are and perturbed."""
    model = model_of(name).eval()
    return {
        "n": len(y),
        "clean": int((in_blocks(model, x).argmax(1) == y).sum()),
        "generator": int((in_blocks(model, x_adv).argmax(1) == y).sum()),
    }


def under_autoattack(name: str, n: int, data: tuple[Tensor, Tensor, Tensor], ball: Linf) -> dict[str, int]:
    """How many of the first images are classified correctly under the swift AutoAttack, and under the generator.

    Args:
        name: Of the model.
        n: Number of images.
        data: Images, perturbed images, labels.
        ball: The threat model.
    """
    model = model_of(name).eval()
    x, x_adv, y = (each[:n] for each in data)
    attacked = autoattack(model, x, y, ball, version="swift")
    return {
        "n": len(y),
        "generator": int((in_blocks(model, x_adv).argmax(1) == y).sum()),
        "autoattack": int((in_blocks(model, attacked).argmax(1) == y).sum()),
    }


def speeds(generator: nn.Module, name: str, x: Tensor, y: Tensor, ball: Linf) -> dict[str, Any]:
    """Images per second of processor time: the generator, PGD with all its steps, PGD that leaves fooled images."""
    model = model_of(name).eval()

    def per_second(count: int, act: Any) -> float:
        start = time.process_time()
        act()
        return count / (time.process_time() - start)

    some = slice(TIMED_PGD)
    sides = {
        "generator": lambda: per_second(TIMED, lambda: in_blocks(generator, x[:TIMED], y[:TIMED])),
        "pgd": lambda: per_second(
            TIMED_PGD, lambda: pgd(model, x[some], y[some], ball, steps=STEPS, stop_when_fooled=False)
        ),
        "pgd, stopped when fooled": lambda: per_second(
            TIMED_PGD, lambda: pgd(model, x[some], y[some], ball, steps=STEPS)
        ),
    }
    found = in_turn(sides, ROUNDS)
    ratios = {name: paired_ratio(found["generator"], found[name]) for name in list(sides)[1:]}
    return {"images_per_second": found, "ratio": ratios, "timed": TIMED, "timed_pgd": TIMED_PGD}


def measure(case: Case) -> Iterator[dict[str, Any]]:
    """Train a generator, and what :func:`judge` finds."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.process_time()
        run = rivals.train(
            case.data,
            against=str(MODELS / f"{case.model}.safetensors"),
            eps=repr(case.eps),
            until=case.until,
            out=Path(folder) / "run",
            device="cpu",
            generator_lr=f"3e-3 -> 1e-4 in {case.until}",
        )
        yield from judge(case, run, (time.process_time() - start) / 60)


def judge(case: Case, run: GanRun, minutes: float) -> Iterator[dict[str, Any]]:
    """Judge a generator on the test images; then its speed; then, slowly, attack each robust model by AutoAttack."""
    ball, test = Linf(case.eps), load(case.data, split="test")
    generator, held_out = run.generator, run.result()
    assert test.labels is not None
    x, y = torch.from_numpy(test.images[:]) / 255, torch.from_numpy(test.labels)
    x_adv = in_blocks(generator, x, y)
    assert bool(ball.contains(x_adv, x).all())
    result: dict[str, Any] = {
        "against": case.model,
        "eps": case.eps,
        "until": case.until,
        "cpu_minutes": round(minutes, 1),
        "parameters": sum(weights.numel() for weights in generator.parameters()),
        "held_out": {key: held_out[key] for key in ("accuracy/held_out", "accuracy/generator")},
        "models": {case.model: judged(case.model, x, x_adv, y)},
    }
    yield result
    result["models"] |= {name: judged(name, x, x_adv, y) for name, _ in case.others}
    yield result
    result["speed"] = speeds(generator, case.model, x, y, ball)
    yield result
    for name, n in case.others:
        result.setdefault("robust", {})[name] = under_autoattack(name, n, (x, x_adv, y), ball)
        yield result


def main() -> None:
    """Measure what was named, or all that is not in the results yet."""
    torch.set_num_threads(1)
    cases = recorded("advgan", "cases")
    for name in sys.argv[1:] or [name for name in CASES if name not in cases]:
        for result in measure(CASES[name]):
            cases[name] = result
            print(name, result, flush=True)
            record("advgan", seed=0, cases=cases)


if __name__ == "__main__":
    main()
