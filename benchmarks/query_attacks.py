"""HopSkipJump after 5,000 queries an image against foolbox's: median L2 distances on 50 images.

foolbox counts steps, not queries: here its model is watched, and the nearest adversarial example among the first 5,000
images that it asks about counts.
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from importlib.metadata import version

import torch
from torch import Tensor, nn

from benchmarks.attack_cases import images_of, model_of, right
from benchmarks.harness import record
from rivals.attacks import hopskipjump, surfree
from rivals.base.norm_balls import L2

IMAGES, QUERIES = 50, 5000
MODELS = ("mnist-plain", "mnist-hard")
FAR = L2(100.0)


class BudgetSpent(Exception):
    """Raised inside foolbox to end it."""


class Watched(nn.Module):
    """A model that remembers the nearest adversarial image of the first queries about one."""

    def __init__(self, model: nn.Module, x: Tensor, label: Tensor) -> None:
        super().__init__()
        self.model, self.x, self.label = model, x, label
        self.asked, self.nearest = 0, float("inf")

    def forward(self, x: Tensor) -> Tensor:
        if self.asked >= QUERIES:
            raise BudgetSpent
        logits: Tensor = self.model(x)
        counted = logits[: QUERIES - self.asked].argmax(1) != self.label
        distances = (x[: QUERIES - self.asked] - self.x).flatten(1).norm(dim=1)
        self.nearest = min(self.nearest, float(distances.masked_fill(~counted, torch.inf).min()))
        self.asked += len(x)
        return logits


def foolbox_distances(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The distance that foolbox's attack, with its defaults, reaches for each image."""
    import foolbox

    found = []
    for image, label in zip(x.split(1), y.split(1), strict=True):
        torch.manual_seed(0)
        watched = Watched(model, image, label).eval()
        wrapped = foolbox.PyTorchModel(watched, bounds=(0, 1), device="cpu")
        watched.asked = 0
        attack = foolbox.attacks.HopSkipJumpAttack()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(BudgetSpent):
                attack(wrapped, image, foolbox.criteria.Misclassification(label), epsilons=None)
        found.append(watched.nearest)
    return torch.tensor(found)


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in sys.argv[1:] or MODELS:
        model, (x, y) = model_of(name), images_of(name, 2 * IMAGES)
        known = right(model, x, y).nonzero()[:IMAGES, 0]
        x, y = x[known], y[known]
        row = found[name] = {}
        for side, attack in (
            ("hopskipjump", lambda m, a, b: FAR.distance(hopskipjump(m, a, b, FAR, queries=QUERIES), a)),
            ("foolbox", foolbox_distances),
            ("surfree", lambda m, a, b: FAR.distance(surfree(m, a, b, FAR, queries=QUERIES), a)),
        ):
            begun = time.process_time()
            with torch.no_grad():
                distances = attack(model, x, y)
            seconds = time.process_time() - begun
            row[side] = {"median": round(float(distances.median()), 4), "cpu_seconds": round(seconds, 1)}
            print(name, side, row[side], flush=True)
    record("query_attacks", peer=f"foolbox {version('foolbox')}", n=IMAGES, queries=QUERIES, target=1.03, found=found)


if __name__ == "__main__":
    main()
