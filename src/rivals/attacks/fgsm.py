"""FGSM, the fast gradient sign method: one step (Goodfellow et al. 2015)."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from rivals.attacks.attack_state import CommonOptions, Model, prepare
from rivals.base.norm_balls import Ball


def fgsm(model: Model, x: Tensor, y: Tensor, ball: Ball, **options: Unpack[CommonOptions]) -> Tensor:
    """Fast gradient sign method (Goodfellow et al. 2015): maximizes the loss made linear at ``x``.

    In Linf that is ``clip(x + eps * sign(gradient))``. In L2 and L1 it is the point of ball *and box* with the largest
    inner product with the gradient; clipping ``x + eps * direction`` would fall short of it. One forward and one
    backward pass.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: The threat model: ``Linf(8 / 255)``, ``L2(0.5)``, ``L1(12.0)``.
        options: See :class:`CommonOptions`.

    Returns:
        Images like ``x``, in ball and box.

    Raises:
        UserError: bad input, in one line.
    """
    with prepare(model, x, y, ball, **options) as state:
        radii = ball.radii(state.x)
        for indices in state.batches():
            rows = state.rows(indices)
            leaf, logits = state.frozen.trace(rows.x_adv)
            loss = state.loss(logits, rows)
            state.keep_best(indices, state.x[indices], logits)
            active = ~state.finished(indices)
            if bool(active.any()):
                gradient, indices = state.frozen.gradient(loss, leaf)[active], indices[active]
                # x + eps * sign(gradient), clipped, in Linf (their eq. in sec. 4)
                state.best[indices] = ball.with_eps(radii[indices]).linear_max(state.x[indices], gradient)
        return state.best
