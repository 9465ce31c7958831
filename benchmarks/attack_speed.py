"""PGD-40 against the fastest peer, run in turn: where all images are fooled, where about half are, and where none is.

Same model, images, eps and steps; 100 correctly classified images; processor seconds of one thread, which other
programs disturb less than wall-clock time. A peer's PGD takes all its steps for all images; ours drops an image from
the batch once it is fooled, so what it saves depends on how many are.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import attack_peers
from benchmarks.attack_cases import known, model_of, right
from benchmarks.harness import in_turn, record
from rivals.attacks import pgd
from rivals.base.norm_balls import Linf

N, STEPS, ROUNDS = 100, 40, 3
CASES = {
    "all fooled": ("cifar10-plain", 8 / 255, 8.0),
    "half fooled": ("cifar10-plain", 1.4 / 255, 3.0),
    "none fooled": ("mnist-hard", 0.02, 1.5),
}


class Side:
    """An attack whose processor seconds are measured, and how many images are still classified correctly after it."""

    def __init__(self, attack: attack_peers.Attack, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.attack, self.model, self.x, self.y = attack, model, x, y
        self.robust = len(x)

    def __call__(self) -> float:
        """One run."""
        start = time.process_time()
        x_adv = self.attack(self.model, self.x, self.y)
        seconds = time.process_time() - start
        self.robust = int(right(self.model, x_adv, self.y).sum())
        return seconds


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for case, (name, eps, target) in CASES.items():
        # Weights in PyTorch's default memory format, as in most users' networks.
        model = model_of(name).to(memory_format=torch.contiguous_format)
        x, y = known(name, model, N)
        ball = Linf(eps)
        attacks = {"ours": lambda m, a, b, ball=ball: pgd(m, a, b, ball, steps=STEPS)} | attack_peers.pgd(STEPS, eps)
        sides = {side: Side(attack, model, x, y) for side, attack in attacks.items()}
        seconds = in_turn(dict(sides), ROUNDS)
        peers = [values for side, values in seconds.items() if side != "ours"]
        ratios = [min(theirs) / mine for mine, *theirs in zip(seconds["ours"], *peers, strict=True)]
        found[case] = {
            "model": name,
            "eps": eps,
            "target": target,
            "ratio": round(median(ratios), 2),
            "robust": {name: side.robust for name, side in sides.items()},
            "seconds": seconds,
        }
    record("attack_speed", n=N, steps=STEPS, rounds=ROUNDS, peers=attack_peers.versions(), cases=found)


if __name__ == "__main__":
    main()
