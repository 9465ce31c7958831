"""sigma-zero in L0 and PDPGD in L1 against adv-lib's, at equal steps: median distances, and processor time in turn.

Three models, 200 correctly classified test images each; an image for which nothing was found counts as infinitely far.
Settings were chosen on training images.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.attack_cases import RADII, images_of, model_of, right
from benchmarks.harness import RESULTS, record, recorded
from rivals.attacks import pdpgd, sigma_zero
from rivals.base.norm_balls import L0, L1, Ball

IMAGES, STEPS = 200, 100
Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
FAR: dict[str, Ball] = {"sigma_zero": L0(10_000), "pdpgd": L1(10_000.0)}
OURS: dict[str, Attack] = {
    "sigma_zero": lambda model, x, y: sigma_zero(model, x, y, FAR["sigma_zero"], steps=STEPS),
    "pdpgd": lambda model, x, y: pdpgd(model, x, y, FAR["pdpgd"], steps=STEPS),
}


def peers() -> dict[str, Attack]:
    """adv-lib's attacks, with its defaults but for the number of steps."""
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))  # for its plots, which are not made here
    from adv_lib import attacks

    return {
        "sigma_zero": lambda model, x, y: attacks.sigma_zero(model, x, y, num_steps=STEPS),
        "pdpgd": lambda model, x, y: attacks.pdpgd(model, x, y, 1, num_steps=STEPS),
    }


def measure(attack: Attack, name: str, model: Any, x: Tensor, y: Tensor) -> dict[str, float]:
    """The median distance, how many images were missed, and processor time."""
    begun = time.process_time()
    x_adv = attack(model, x, y)
    seconds = time.process_time() - begun
    missed = right(model, x_adv, y) | ~FAR[name].contains(x_adv, x)
    distances = FAR[name].distance(x_adv, x).masked_fill(missed, torch.inf)
    return {
        "median": round(float(distances.median()), 4),
        "mean of found": round(float(distances[~missed].mean()), 4),
        "missed": int(missed.sum()),
        "cpu_seconds": round(seconds, 2),
    }


def main() -> None:
    """Measure and record all models, or those that are named."""
    torch.set_num_threads(1)
    found: dict[str, Any] = recorded("sparse_attacks", "found") if (RESULTS / "sparse_attacks.json").exists() else {}
    theirs = peers()
    norms = {name: type(ball).__name__ for name, ball in FAR.items()}
    for case in sys.argv[1:] or RADII:
        model, (x, y) = model_of(case), images_of(case, 2 * IMAGES)
        known = right(model, x, y).nonzero()[:IMAGES, 0]
        for name in OURS:
            sides = {"ours": OURS[name], "adv-lib": theirs[name]}
            row = {side: measure(attack, name, model, x[known], y[known]) for side, attack in sides.items()}
            found.setdefault(name, {})[case] = row
            print(name, case, row, flush=True)
        record("sparse_attacks", peer=f"adv-lib {version('adv-lib')}", n=IMAGES, steps=STEPS, norms=norms, found=found)


if __name__ == "__main__":
    main()
