"""MI, DI and VMI from surrogate to target against torchattack's, at the same steps, step size and settings.

Every image is attacked by both sides, DI and VMI with several seeds, so that the difference can be tested image by
image: the p-value is that of randomly exchanged sides (a paired permutation test of each image's mean over seeds).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.attack_cases import images_of, right
from benchmarks.attack_models import MODELS
from benchmarks.harness import RESULTS, record, recorded
from rivals.api.common.network_io import load as load_network
from rivals.attacks import transfer
from rivals.base.norm_balls import Linf
from rivals.base.rng import generator

STEPS, NEIGHBORS, BATCH = 10, 5, 100
DATA = "cifar10-plain"  # its images
PAIRS = (  # surrogate, target, eps times 255, images: fewer where a pass takes longer
    ("cifar10-plain", "cifar10-linf-8-255", 16, 150),
    ("cifar10-linf-8-255", "cifar10-plain", 8, 100),
)
SEEDS = {"DI": 2, "MI": 1, "VMI": 1}  # MI is not random
Attack = Callable[[nn.Module, Tensor, Tensor, int], Tensor]


def attacks(eps: float) -> dict[str, dict[str, Attack]]:
    """Each side's attacks, by name and by side; torchattack draws from the global random state."""
    from torchattack import DIFGSM, MIFGSM, VMIFGSM

    def theirs(peer: Any, **options: Any) -> Attack:
        def seeded(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
            torch.manual_seed(seed)
            found: Tensor = peer(model, None, torch.device("cpu"), eps, STEPS, **options)(x, y).detach()
            return found

        return seeded

    def ours(**options: Any) -> Attack:
        return lambda m, x, y, seed: transfer(m, x, y, Linf(eps), steps=STEPS, seed=seed, **options)

    return {
        "DI": {"ours": ours(transform="di"), "torchattack": theirs(DIFGSM)},
        "MI": {"ours": ours(transform="none"), "torchattack": theirs(MIFGSM)},
        "VMI": {"ours": ours(transform="none", variance=NEIGHBORS), "torchattack": theirs(VMIFGSM, n=NEIGHBORS)},
    }


def fooled(attack: Attack, ball: Linf, models: tuple[nn.Module, nn.Module], x: Tensor, y: Tensor, seeds: int) -> Tensor:
    """Which images fool the target, the second model, inside ball and box, by seed (seeds, n)."""
    source, goal = models
    rounds = []
    for seed in range(seeds):
        batches = zip(x.split(BATCH), y.split(BATCH), strict=True)
        x_adv = torch.cat([attack(source, some, labels, seed) for some, labels in batches])
        rounds.append(ball.contains(x_adv, x) & ~right(goal, x_adv, y))
    return torch.stack(rounds)


def p_value(ours: Tensor, theirs: Tensor, draws: int = 20_000) -> float:
    """How often randomly exchanged sides differ at least as much, image by image; both (seeds, n)."""
    gap = ours.double().mean(0) - theirs.double().mean(0)
    signs = torch.randint(2, (draws, len(gap)), generator=generator("exchanged sides")).double() * 2 - 1
    return float(((signs @ gap).abs() >= gap.sum().abs() - 1e-9).double().mean())


def measure(surrogate: str, target: str, eps: float, images: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Both sides of each attack on a pair of models: counts by seed, and the test of the difference."""
    source, goal = (load_network(MODELS / f"{name}.safetensors").eval() for name in (surrogate, target))
    x, y = images_of(DATA, 3 * images)
    known = (right(source, x, y) & right(goal, x, y)).nonzero()[:images, 0]
    x, y = x[known], y[known]
    for name, sides in attacks(eps).items():
        row: dict[str, Any] = {"n": len(x), "seeds": SEEDS[name]}
        found = {}
        for side, attack in sides.items():
            begun = time.process_time()
            found[side] = fooled(attack, Linf(eps), (source, goal), x, y, SEEDS[name])
            seconds = time.process_time() - begun
            row[side] = {"fooled": found[side].sum(1).tolist(), "cpu_seconds": round(seconds, 1)}
        row["p"] = round(p_value(found["ours"], found["torchattack"]), 4)
        print(surrogate, target, name, row, flush=True)
        yield name, row


def main() -> None:
    """Measure and record all pairs, or those whose surrogates are named."""
    torch.set_num_threads(1)
    found = recorded("transfer", "found") if (RESULTS / "transfer.json").exists() else {}
    for surrogate, target, units, images in PAIRS:
        if sys.argv[1:] and surrogate not in sys.argv[1:]:
            continue
        rows = found.setdefault(f"{surrogate} to {target}, {units}/255", {})
        for name, row in measure(surrogate, target, units / 255, images):
            rows[name] = row
            facts = {"steps": STEPS, "neighbors": NEIGHBORS}
            record("transfer", peer=f"torchattack {version('torchattack')}", **facts, found=found)


if __name__ == "__main__":
    main()
