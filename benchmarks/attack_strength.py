"""Are our attacks as strong as the peers'? PGD by robust accuracy, minimum-norm attacks by median distance.

PGD: nine cases, 500 images each, 20 steps, one random start. Minimum norm in L2: three models, 50 correctly classified
images each; an image for which nothing was found counts as infinitely far. What an attack returns is verified by the
model itself, and must lie in ball and box.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import attack_peers
from benchmarks.attack_cases import CASES, RADII, images_of, model_of, right
from benchmarks.harness import record
from rivals.attacks import carlini_wagner, ddn, deepfool, pgd
from rivals.base.norm_balls import L2, Linf

IMAGES, STEPS = 500, 20
MIN_NORM_IMAGES = 50
UNBOUNDED = L2(100.0)
OURS: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "deepfool": lambda model, x, y: deepfool(model, x, y, UNBOUNDED),
    "carlini_wagner": lambda model, x, y: carlini_wagner(model, x, y, UNBOUNDED, searches=9, steps=50),
    "ddn": lambda model, x, y: ddn(model, x, y, UNBOUNDED, steps=100),
}


def pgd_cases() -> dict[str, dict[str, int]]:
    """How many images are still classified correctly after each side's attack, by case."""
    found: dict[str, dict[str, int]] = {}
    for case in CASES:
        model, (x, y) = model_of(case.model), images_of(case.model, IMAGES)
        ball = Linf(case.eps)
        sides = {"ours": lambda m, a, b, ball=ball: pgd(m, a, b, ball, steps=STEPS)}
        row = found[case.name] = {"clean": int(right(model, x, y).sum())}
        for side, attack in (sides | attack_peers.pgd(STEPS, case.eps)).items():
            x_adv = torch.cat([attack(model, a, b) for a, b in zip(x.split(250), y.split(250), strict=True)])
            valid = ball.contains(x_adv, x)
            row[side] = int((right(model, x_adv, y) | ~valid).sum())
        print(case.name, row, flush=True)
    return found


def medians() -> dict[str, dict[str, dict[str, Any]]]:
    """The median distance each side needs, by attack and model."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in RADII:
        model, (x, y) = model_of(name), images_of(name, 2 * MIN_NORM_IMAGES)
        known = right(model, x, y).nonzero()[:MIN_NORM_IMAGES, 0]
        x, y = x[known], y[known]
        for kind, peers in attack_peers.min_norm().items():
            row = found.setdefault(kind, {})[name] = {}
            for side, attack in ({"ours": OURS[kind]} | peers).items():
                x_adv = attack(model, x, y)
                distance = UNBOUNDED.distance(x_adv, x)
                missed = right(model, x_adv, y) | ~UNBOUNDED.contains(x_adv, x)
                row[side] = round(float(distance.masked_fill(missed, torch.inf).median()), 5)
                row[f"{side} missed"] = int(missed.sum())
            print(name, kind, row, flush=True)
    return found


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    record(
        "attack_strength",
        peers=attack_peers.versions(),
        pgd={"n": IMAGES, "steps": STEPS, "robust": pgd_cases()},
        min_norm={"n": MIN_NORM_IMAGES, "norm": "L2", "target": 1.01, "median": medians()},
    )


if __name__ == "__main__":
    main()
