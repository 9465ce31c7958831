"""PGD-40 against the fastest peer, sides run in turn: where all images fall, where about half do, and where none does.

Same model, images, eps and steps; 100 images that are classified rightly; processor seconds of one thread, which other
programs disturb less than the clock. A peer's PGD takes all its steps for all images whatever happens; ours lets an
image go once it has fallen, so what it saves depends on how many fall.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import attack_peers
from benchmarks.attack_cases import images_of, model_of, right
from benchmarks.harness import in_turn, record
from rivals.attacks import pgd
from rivals.base.balls import Linf

N, STEPS, ROUNDS = 100, 40, 3
SCENES = {
    "undefended": ("cifar10-plain", 8 / 255, 8.0),
    "half falls": ("cifar10-plain", 1.4 / 255, 3.0),
    "none falls": ("mnist-hard", 0.02, 1.5),
}


class Side:
    """An attack whose processor seconds are measured, and whom it left standing."""

    def __init__(self, attack: attack_peers.Attack, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.attack, self.model, self.x, self.y = attack, model, x, y
        self.standing = len(x)

    def __call__(self) -> float:
        """One run."""
        start = time.process_time()
        x_adv = self.attack(self.model, self.x, self.y)
        seconds = time.process_time() - start
        self.standing = int(right(self.model, x_adv, self.y).sum())
        return seconds


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for scene, (name, eps, asked) in SCENES.items():
        # Weights lie as PyTorch makes them, since the nets of most users do.
        model = model_of(name).to(memory_format=torch.contiguous_format)
        x, y = images_of(name, 2 * N)
        known = right(model, x, y).nonzero()[:N, 0]
        x, y = x[known], y[known]
        ball = Linf(eps)
        attacks = {"ours": lambda m, a, b, ball=ball: pgd(m, a, b, ball, steps=STEPS)} | attack_peers.pgd(STEPS, eps)
        sides = {side: Side(attack, model, x, y) for side, attack in attacks.items()}
        seconds = in_turn(dict(sides), ROUNDS)
        peers = [values for side, values in seconds.items() if side != "ours"]
        ratios = [min(theirs) / mine for mine, *theirs in zip(seconds["ours"], *peers, strict=True)]
        found[scene] = {
            "model": name,
            "eps": eps,
            "asked": asked,
            "ratio": round(median(ratios), 2),
            "standing": {name: side.standing for name, side in sides.items()},
            "seconds": seconds,
        }
    record("attack_speed", n=N, steps=STEPS, rounds=ROUNDS, peers=attack_peers.versions(), scenes=found)


if __name__ == "__main__":
    main()
