"""Are our attacks as strong as the peers'? PGD by robust accuracy, minimum-norm attacks by median distance.

PGD: nine cases, 500 test images each, 20 steps, one random start; each peer has, of ``SHARES``, the step that leaves
the fewest of ``TUNING`` training images right in that case. Minimum norm in L2: three models, 50 correctly classified
test images each; an image for which nothing was found counts as infinitely far. Each peer has the settings of the least
median distance on ``TUNING_MIN_NORM`` training images of that model. Ours runs with its defaults throughout, and the
minimum-norm attacks also without their refinement. Passes are counted at the model, by image.

What an attack returns is verified by the model itself, and must lie in ball and box.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import attack_peers
from benchmarks.attack_cases import CASES, RADII, images_of, known, model_of, right
from benchmarks.harness import record
from rivals.attacks import carlini_wagner, ddn, deepfool, pgd
from rivals.base.norm_balls import L2, Ball, Linf
from rivals.nets.classifier import Classifier

IMAGES, STEPS, BATCH = 500, 20, 250
TUNING = 100
SHARES = (2.5 / STEPS, 0.05, 0.1, 0.25, 0.5, 1.0)  # of eps, a peer's step: its default first, which a tie keeps
MIN_NORM_IMAGES, TUNING_MIN_NORM = 50, 25
UNBOUNDED = L2(100.0)
MinNorm = Callable[..., Tensor]
OURS: dict[str, MinNorm] = {
    "deepfool": lambda model, x, y, **options: deepfool(model, x, y, UNBOUNDED, **options),
    "carlini_wagner": lambda model, x, y, **options: carlini_wagner(
        model, x, y, UNBOUNDED, searches=9, steps=50, **options
    ),
    "ddn": lambda model, x, y, **options: ddn(model, x, y, UNBOUNDED, steps=100, **options),
}


class Images(NamedTuple):
    """Images (n, C, H, W) and labels (n,)."""

    x: Tensor
    y: Tensor


class Watched(nn.Module):
    """A model that counts the images passed forward and backward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        """The model's logits."""
        logits: Tensor = self.model(x)
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, grad: Tensor) -> None:
        self.backwards += len(grad)


def still_right(attack: attack_peers.Attack, model: Classifier, images: Images, ball: Ball) -> int:
    """How many images are classified correctly after an attack; what lies outside the ball counts as such."""
    parts = zip(images.x.split(BATCH), images.y.split(BATCH), strict=True)
    x_adv = torch.cat([attack(model, x, y) for x, y in parts])
    return int((right(model, x_adv, images.y) | ~ball.contains(x_adv, images.x)).sum())


def pgd_cases() -> dict[str, dict[str, Any]]:
    """How many images are still classified correctly after each side's attack, by case, and each peer's step."""
    found: dict[str, dict[str, Any]] = {}
    for case in CASES:
        model, ball = model_of(case.model), Linf(case.eps)
        test, tuning = Images(*images_of(case.model, IMAGES)), Images(*images_of(case.model, TUNING, "train"))
        row = found[case.name] = {"clean": int(right(model, test.x, test.y).sum())}
        row["ours"] = still_right(lambda m, x, y, ball=ball: pgd(m, x, y, ball, steps=STEPS), model, test, ball)
        row["share of eps"] = {}
        for peer in attack_peers.pgd(STEPS, case.eps):
            by_share = {s: attack_peers.pgd(STEPS, case.eps, s)[peer] for s in SHARES}
            best = min(SHARES, key=lambda share: still_right(by_share[share], model, tuning, ball))
            row[peer], row["share of eps"][peer] = still_right(by_share[best], model, test, ball), best
        print(case.name, row, flush=True)
    return found


def measure(attack: attack_peers.Attack, model: Classifier, images: Images) -> dict[str, float]:
    """The median distance, how many images were missed, and passes by image."""
    watched = Watched(model).eval()
    x_adv = attack(watched, images.x, images.y)
    missed = right(model, x_adv, images.y) | ~UNBOUNDED.contains(x_adv, images.x)
    return {
        "median": round(float(UNBOUNDED.distance(x_adv, images.x).masked_fill(missed, torch.inf).median()), 5),
        "missed": int(missed.sum()),
        "forwards": round(watched.forwards / len(images.x)),
        "backwards": round(watched.backwards / len(images.x)),
    }


def distances() -> dict[str, dict[str, dict[str, Any]]]:
    """What each side's minimum-norm attack needs and finds, by attack and model."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in RADII:
        model = model_of(name)
        test = Images(*known(name, model, MIN_NORM_IMAGES))
        tuning = Images(*known(name, model, TUNING_MIN_NORM, "train"))
        for kind, peers in attack_peers.min_norm().items():
            attack = OURS[kind]
            row = found.setdefault(kind, {})[name] = {
                "ours": measure(attack, model, test),
                "ours without refinement": measure(
                    lambda m, x, y, attack=attack: attack(m, x, y, refine_steps=0), model, test
                ),
            }
            for peer, (make, candidates) in peers.items():
                trials = [measure(make(**each), model, tuning)["median"] for each in candidates]
                settings = candidates[trials.index(min(trials))]
                row[peer] = measure(make(**settings), model, test) | {"settings": settings}
            print(name, kind, row, flush=True)
    return found


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    record(
        "attack_strength",
        peers=attack_peers.versions(),
        pgd={"n": IMAGES, "steps": STEPS, "tuning": TUNING, "shares": SHARES, "robust": pgd_cases()},
        min_norm={"n": MIN_NORM_IMAGES, "norm": "L2", "tuning": TUNING_MIN_NORM, "target": 1.01, "found": distances()},
    )


if __name__ == "__main__":
    main()
