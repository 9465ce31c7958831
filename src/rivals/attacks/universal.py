"""A universal perturbation: one change that fools on many images (Moosavi-Dezfooli et al. 2017), by SGD (Shafahi et al.
2020, Alg. 1)."""

from __future__ import annotations

import copy
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.attack_state import CommonOptions, Model, check_at_least, check_norm, prepare
from rivals.base.errors import UserError
from rivals.base.norm_balls import L1, L2, Ball, Linf
from rivals.base.rng import generator
from rivals.base.tensors import batch_view

CLIP = 5.0  # beta: the loss of an image counts up to here, so that none is fooled ever more while others are not


def universal_perturbation(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 200,
    step_size: float = 0.1,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """One perturbation for all images, by SGD on random batches of them (Shafahi et al. 2020, Alg. 1).

    Each step follows the gradient of the mean loss, clipped at 5 for each image, and projects the perturbation onto the
    ball; the last quarter of the iterates is averaged.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds, to learn it on. It should be evaluated on others.
        y: Labels (n,).
        ball: ``Linf``, ``L2`` or ``L1`` of one eps, around no image in particular.
        steps: Batches.
        step_size: As a share of eps.
        options: See :class:`CommonOptions`; ``batch_size`` is that of a step.

    Returns:
        The perturbation (1, ...), within eps. ``(x + it).clamp(0, 1)`` applies it.

    Raises:
        UserError: bad input, in one line.
    """
    check_norm(ball, "universal_perturbation", (Linf, L2, L1))
    check_at_least(steps, 1, "steps")
    check_at_least(step_size, 0, "a step size")
    if isinstance(ball.eps, Tensor) and ball.eps.numel() > 1:
        raise UserError(
            f"one perturbation for all images has one radius, and eps has {ball.eps.numel()}: give a number"
        )
    with prepare(model, x, y, ball, **options) as state:
        delta = torch.zeros_like(state.x[:1] if len(state.x) else torch.zeros(1, *x.shape[1:]).to(x))
        if not len(state.x):
            return delta
        around, zero, mean = centered(ball), torch.zeros_like(delta), torch.zeros_like(delta)
        radii, random = torch.as_tensor(ball.eps).to(delta).reshape(1), generator(state.seed, "universal")
        low, high = ball.bounds
        averaged = range(steps - max(steps // 4, 1), steps)
        for step in range(steps):
            indices = torch.randint(len(state.x), (min(state.batch_size, len(state.x)),), generator=random)
            rows = state.rows(indices.to(state.x.device))
            # Line 4: the gradient of the clipped loss by delta; the box stops it where an image is at its end
            moved = rows.x + delta
            leaf, logits = state.frozen.trace(moved.clamp(low, high))
            loss = state.loss(logits, rows)
            gradient = state.frozen.gradient(loss, leaf) * batch_view((loss.detach() < CLIP).to(leaf.dtype), leaf)
            gradient = (gradient * ((moved > low) & (moved < high) | (delta == 0))).mean(0, keepdim=True)
            # Lines 5 and 6
            delta = around.project(around.step(delta, gradient, step_size * radii), zero)
            if step in averaged:
                mean += delta / len(averaged)
        return around.project(mean, zero)


def centered(ball: Ball) -> Ball:
    """The ball of perturbations themselves: its box holds every difference of two images."""
    low, high = ball.bounds
    other = copy.copy(ball)
    object.__setattr__(other, "bounds", (low - high, high - low))
    return other
