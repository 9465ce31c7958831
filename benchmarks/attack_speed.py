"""PGD-40 against the fastest peer, sides run in turn: where all images fall, where about half do, and where none does.

Same model, images, eps, steps and threads; 128 images that are classified rightly. A peer's PGD takes all its steps for
all images whatever happens; ours lets an image go once it has fallen, so what it saves depends on how many fall.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from torch import Tensor, nn

from benchmarks import attack_peers
from benchmarks.attack_cases import images_of, model_of, right
from benchmarks.harness import in_turn, record
from rivals.attacks import pgd
from rivals.base.balls import Linf

N, STEPS, ROUNDS = 128, 40, 3
SCENES = {
    "undefended": ("cifar10-plain", 8 / 255, 8.0),
    "half falls": ("cifar10-plain", 0.8 / 255, 3.0),
    "none falls": ("mnist-hard", 0.02, 1.5),
}


def timed(attack: Callable[[nn.Module, Tensor, Tensor], Tensor], model: nn.Module, x: Tensor, y: Tensor) -> Any:
    """A measurement of the seconds an attack takes."""

    def measure() -> float:
        start = time.perf_counter()
        attack(model, x, y)
        return time.perf_counter() - start

    return measure


def main() -> None:
    """Measure and record."""
    found: dict[str, Any] = {}
    for scene, (name, eps, asked) in SCENES.items():
        model, (x, y) = model_of(name), images_of(name, 2 * N)
        known = right(model, x, y).nonzero()[:N, 0]
        x, y = x[known], y[known]
        ball = Linf(eps)
        sides = {"ours": lambda m, a, b, ball=ball: pgd(m, a, b, ball, steps=STEPS)} | attack_peers.pgd(STEPS, eps)
        standing = {side: int(right(model, attack(model, x, y), y).sum()) for side, attack in sides.items()}
        seconds = in_turn({side: timed(attack, model, x, y) for side, attack in sides.items()}, ROUNDS)
        peers = [values for side, values in seconds.items() if side != "ours"]
        ratios = [min(theirs) / mine for mine, *theirs in zip(seconds["ours"], *peers, strict=True)]
        found[scene] = {
            "model": name,
            "eps": eps,
            "asked": asked,
            "ratio": round(median(ratios), 2),
            "standing": standing,
            "seconds": seconds,
        }
    record("attack_speed", n=N, steps=STEPS, rounds=ROUNDS, peers=attack_peers.versions(), scenes=found)


if __name__ == "__main__":
    main()
