"""What could strengthen AutoAttack's version ``swift``: MALT's choice of targets, and the margin of probabilities.

The split was fixed before the first run. A variant is adopted if it leaves no more images than ``swift`` as it is on
any case of TUNING, training images of three models, and takes fewer passes or leaves fewer images on one; then it must
leave no more on any case of REPORTING, test images of three other models. The variants differ in the first two stages,
so these are measured; later stages have fewer images to attack where these leave fewer.

MALT (Melamed et al. 2024, arXiv 2407.02240) aims at the classes that a linear model at the image reaches first: those
with the largest ``(z_t - z_y) / ||grad (z_t - z_y)||``. PMA (arXiv 2411.15210) climbs the margin of probabilities.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.attack_models import MODELS
from benchmarks.harness import RESULTS, load, record, recorded
from rivals.api.common.network_io import load as load_network
from rivals.attacks import apgd, freeze, pgd
from rivals.attacks.attack_losses import strongest_others
from rivals.attacks.autoattack import autoattack_stages
from rivals.attacks.ensemble import Stage, run_ensemble
from rivals.attacks.frozen_model import FrozenModel
from rivals.base.norm_balls import Ball, Linf
from rivals.data.splits import hold_out

N = 100
Case = tuple[str, str, float]  # model, data set, eps
TUNING: tuple[Case, ...] = (
    ("mnist-plain", "mnist", 0.1),
    ("mnist-hard", "mnist", 0.3),
    ("cifar10-plain", "cifar10", 1 / 255),
)
REPORTING: tuple[Case, ...] = (
    ("mnist-linf-0.3", "mnist", 0.3),
    ("fashion-linf-0.1", "fashion-mnist", 0.1),
    ("cifar10-linf-8-255", "cifar10", 8 / 255),
)
TARGETS, STEPS = 4, 25  # as in swift


def linear_order(model: FrozenModel, x: Tensor, y: Tensor, count: int, norm: float) -> Tensor:
    """The ``count`` wrong classes that a linear model at each image reaches first, (n, count)."""
    found = []
    for some, own in zip(torch.split(x, N), torch.split(y, N), strict=True):
        classes = strongest_others(model.logits(some), own, model.classes - 1)
        scores = []
        for target in classes.T:
            leaf, logits = model.trace(some)
            gain = logits.gather(1, target[:, None])[:, 0] - logits.gather(1, own[:, None])[:, 0]
            gradient = model.gradient(gain, leaf)
            scores.append(gain.detach() / torch.linalg.vector_norm(gradient.flatten(1), norm, 1).clamp_min(1e-12))
        best = torch.stack(scores, 1).topk(count, 1).indices
        found.append(classes.gather(1, best))
    return torch.cat(found)


def malt(model: FrozenModel, x: Tensor, y: Tensor, ball: Ball, clean: Tensor, norm: float, **options: Any) -> Tensor:
    """APGD-T of ``swift`` with MALT's targets."""
    chosen = linear_order(model, x, y, TARGETS, norm)
    with patch.object(sys.modules[apgd.__module__], "strongest_others", lambda logits, y, count: chosen[:, :count]):
        return apgd(model, x, y, ball, clean=clean, n_targets=TARGETS, steps=STEPS, loss="dlr", **options)


def replaced(ball: Ball, **stages: Callable[..., Tensor]) -> tuple[Stage, ...]:
    """The first two stages of ``swift``, some of them replaced; ``_`` stands for ``-`` in their names."""
    new = {name.replace("_", "-"): attack for name, attack in stages.items()}
    return tuple(Stage(each.name, new.get(each.name, each.attack)) for each in autoattack_stages("swift", ball)[:2])


VARIANTS: dict[str, Callable[[Ball], tuple[Stage, ...]]] = {
    "swift": replaced,
    "malt": lambda ball: replaced(ball, apgd_t=partial(malt, norm=2.0)),
    "malt-l1": lambda ball: replaced(ball, apgd_t=partial(malt, norm=1.0)),  # the dual norm of Linf
    "pma": lambda ball: replaced(ball, pgd=partial(pgd, steps=40, loss="pm")),
}


def images(data: str, split: str) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) in [0, 1] and labels."""
    chosen = hold_out(load(data, split=split), N, 1)[1]
    assert chosen.labels is not None
    return torch.from_numpy(chosen.images[:]).float() / 255, torch.from_numpy(chosen.labels)


def run(variant: str, case: Case, split: str) -> dict[str, Any]:
    """Images left after each stage, passes forward and backward, and processor time."""
    name, data, eps = case
    model, (x, y), ball = load_network(MODELS / f"{name}.safetensors"), images(data, split), Linf(eps)
    left, rows, forwards, backwards = N, {}, 0, 0
    begun = time.process_time()
    with freeze(model, x) as frozen:
        for outcome in run_ensemble(frozen, x, y, ball, VARIANTS[variant](ball)):
            left -= int(outcome.fooled.sum())
            rows[outcome.stage] = left
            forwards, backwards = forwards + outcome.forwards, backwards + outcome.backwards
    seconds = round(time.process_time() - begun, 1)
    return {"left": rows, "forwards": forwards, "backwards": backwards, "cpu_seconds": seconds}


def main() -> None:
    """Run the part that is named, ``tuning`` or ``reporting``, or both."""
    torch.set_num_threads(1)
    found = recorded("swift_trial", "found") if (RESULTS / "swift_trial.json").exists() else {}
    parts = {"tuning": (TUNING, "train"), "reporting": (REPORTING, "test")}
    for part in sys.argv[1:] or parts:
        cases, split = parts[part]
        for case in cases:
            rows = found.setdefault(part, {}).setdefault(f"{case[0]} {case[2]:.4g}", {})
            for variant in VARIANTS:
                if variant not in rows:
                    rows[variant] = run(variant, case, split)
                    print(part, case, variant, rows[variant], flush=True)
                    record("swift_trial", n=N, found=found)


if __name__ == "__main__":
    main()
