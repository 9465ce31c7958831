"""sigma-zero in L0 and PDPGD in L1 against adv-lib's, at equal steps: median distances, and processor time in turn.

Three models, 200 correctly classified test images each; an image for which nothing was found counts as infinitely far.
The peer has, of ``CANDIDATES``, the settings of the least mean distance on ``TUNING`` training images of the model;
ours has its defaults, and runs without its refinement, too.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.attack_cases import RADII, known, model_of, right
from benchmarks.harness import RESULTS, record, recorded
from rivals.attacks import pdpgd, sigma_zero
from rivals.base.norm_balls import L0, L1, Ball

IMAGES, STEPS, TUNING = 200, 100, 50
Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
FAR: dict[str, Ball] = {"sigma_zero": L0(10_000), "pdpgd": L1(10_000.0)}
OURS: dict[str, Callable[..., Tensor]] = {"sigma_zero": sigma_zero, "pdpgd": pdpgd}
# Of the peer, its defaults first: first step and threshold of sigma-zero, the primal rate of PDPGD.
CANDIDATES: dict[str, list[dict[str, float]]] = {
    "sigma_zero": [{"η_0": step, "τ_0": threshold} for step in (1.0, 0.5, 2.0) for threshold in (0.3, 0.1)],
    "pdpgd": [{"primal_lr": rate} for rate in (0.1, 0.3, 0.5, 1.0, 2.0)],
}


def peers() -> dict[str, Callable[..., Tensor]]:
    """adv-lib's attacks."""
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))  # for its plots, which are not made here
    from adv_lib import attacks

    return {
        "sigma_zero": partial(attacks.sigma_zero, num_steps=STEPS),
        "pdpgd": partial(attacks.pdpgd, norm=1, num_steps=STEPS),
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
        "mean": round(float(distances.mean()), 4),
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
        model = model_of(case)
        test, tuning = known(case, model, IMAGES, "test"), known(case, model, TUNING, "train")
        for name, attack in OURS.items():
            trials = [measure(partial(theirs[name], **each), name, model, *tuning)["mean"] for each in CANDIDATES[name]]
            settings = CANDIDATES[name][trials.index(min(trials))]
            own = partial(attack, ball=FAR[name], steps=STEPS)
            sides = {
                "ours": own,
                "ours without refinement": partial(own, refine_steps=0),
                "adv-lib": partial(theirs[name], **settings),
            }
            row = {side: measure(each, name, model, *test) for side, each in sides.items()}
            row["adv-lib"]["settings"] = settings
            found.setdefault(name, {})[case] = row
            print(name, case, row, flush=True)
        record(
            "sparse_attacks",
            peer=f"adv-lib {version('adv-lib')}",
            n=IMAGES,
            tuning=TUNING,
            steps=STEPS,
            norms=norms,
            found=found,
        )


if __name__ == "__main__":
    main()
