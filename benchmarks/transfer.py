"""DI and VMI from surrogate to target against torchattack's, at the same steps, step size and neighbors."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor, nn

from benchmarks.attack_cases import images_of, right
from benchmarks.attack_models import MODELS
from benchmarks.harness import record
from rivals.api.common.network_io import load as load_network
from rivals.attacks import transfer
from rivals.base.norm_balls import Linf

IMAGES, STEPS, NEIGHBORS = 300, 10, 5
PAIRS = (  # surrogate, target, whose images, eps
    ("cifar10-linf-8-255", "cifar10-plain", "cifar10-plain", 8 / 255),
    ("mnist-plain", "mnist-hard", "mnist-hard", 0.3),
)
Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def attacks(eps: float) -> dict[str, dict[str, Attack]]:
    """Each side's DI and VMI; torchattack draws from the global random state."""
    from torchattack import DIFGSM, VMIFGSM

    device = torch.device("cpu")

    def theirs(attack: Attack) -> Attack:
        def seeded(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            torch.manual_seed(0)
            return attack(model, x, y)

        return seeded

    return {
        "DI": {
            "ours": lambda m, x, y: transfer(m, x, y, Linf(eps), steps=STEPS, transform="di"),
            "torchattack": theirs(lambda m, x, y: DIFGSM(m, None, device, eps, STEPS)(x, y)),
        },
        "VMI": {
            "ours": lambda m, x, y: transfer(
                m, x, y, Linf(eps), steps=STEPS, transform="none", variance=NEIGHBORS, batch_size=len(x)
            ),
            "torchattack": theirs(lambda m, x, y: VMIFGSM(m, None, device, eps, STEPS, n=NEIGHBORS)(x, y)),
        },
    }


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for surrogate, target, images, eps in PAIRS:
        source, goal = (load_network(MODELS / f"{name}.safetensors").eval() for name in (surrogate, target))
        x, y = images_of(images, 2 * IMAGES)
        known = (right(source, x, y) & right(goal, x, y)).nonzero()[:IMAGES, 0]
        x, y = x[known], y[known]
        for name, sides in attacks(eps).items():
            row = found.setdefault(f"{surrogate} to {target}, eps {eps:.3g}", {})[name] = {}
            for side, attack in sides.items():
                begun = time.process_time()
                batches = zip(x.split(100), y.split(100), strict=True)
                x_adv = torch.cat([attack(source, some, labels).detach() for some, labels in batches])
                seconds = time.process_time() - begun
                valid = Linf(eps).contains(x_adv, x)
                fooled = int((valid & ~right(goal, x_adv, y)).sum())
                row[side] = {"fooled": fooled, "n": len(x), "cpu_seconds": round(seconds, 2)}
            print(surrogate, target, name, row, flush=True)
    record("transfer", peer=f"torchattack {version('torchattack')}", steps=STEPS, neighbors=NEIGHBORS, found=found)


if __name__ == "__main__":
    main()
