"""PGD in a box: a search for an input with which a network violates a property."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rivals.base.rng import generator

DIVERSIFIED = 10  # steps of ODI
FIRST_STEP, LAST_STEP = 0.5, 0.004  # shares of half the box, between which the steps fall along a geometric series


def box_pgd(
    run: Callable[[Tensor], Tensor],
    lower: Tensor,
    upper: Tensor,
    distance: Callable[[Tensor], Tensor],
    *,
    steps: int = 100,
    restarts: int = 10,
    seed: int = 0,
) -> Tensor | None:
    """An input in the box whose output has a distance of 0 or less; None if none was found.

    Signed gradient steps down the distance (Madry et al. 2018), from the center of the box and from points that are
    spread over the outputs: a random point moves first along the gradient of a random direction of the outputs (output
    diversified initialization, Tashiro et al. 2020). Where most of the box is one flat region, nothing else leaves it.

    Args:
        run: From inputs (n, ...) to outputs (n, m), differentiable.
        lower: The smallest value of each entry of an input.
        upper: The largest.
        distance: From outputs (n, m) to how far each is from a violation (n,).
        steps: Steps of each restart.
        restarts: Starting points; all are searched at once.
        seed: Of the random points.
    """
    source = generator(seed, "box")
    shares = torch.rand(restarts, *lower.shape, generator=source, dtype=torch.float64)
    shares[0] = 0.5
    x = lower + shares.to(lower) * (upper - lower)
    directions = 2 * torch.rand(restarts, _outputs(run, x), generator=source, dtype=torch.float64).to(lower) - 1
    directions[0] = 0
    for step in range(DIVERSIFIED + steps + 1):
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            outputs = run(leaf).flatten(1)
            distances = distance(outputs)
            found = (distances <= 0).nonzero()[:, 0]
            if len(found):
                return x[found[0]].detach()
            goal = -(outputs * directions).sum() if step < DIVERSIFIED else distances.sum()
            (gradient,) = torch.autograd.grad(goal, leaf)
        share = FIRST_STEP * (LAST_STEP / FIRST_STEP) ** (max(0, step - DIVERSIFIED) / max(1, steps))
        x = torch.clamp(x - share * (upper - lower) / 2 * gradient.sign(), lower, upper)
    return None


def _outputs(run: Callable[[Tensor], Tensor], x: Tensor) -> int:
    with torch.no_grad():
        return run(x[:1]).flatten(1).shape[1]
