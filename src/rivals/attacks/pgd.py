"""PGD, projected gradient descent on the negative loss (Madry et al. 2018); BIM and MI-FGSM share its loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.active_batch import ActiveBatch, Rows
from rivals.attacks.attack_state import AttackState, CommonOptions, Model, check_at_least, prepare
from rivals.base.norm_balls import Ball
from rivals.base.tensors import batch_view, nonzero_norm


def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 40,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    start: Tensor | None = None,
    clean: Tensor | None = None,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """Projected gradient descent (Madry et al. 2018): ``x^{t+1} = P(x^t + alpha_t eps direction(g))``.

    ``P`` projects onto ball and box, g is the gradient of the loss at x^t, alpha_t a share of eps. The direction is the
    steepest one in the ball's norm: the sign of the gradient in Linf, the gradient over its length in L2.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: The threat model. With one eps per image, one call on repeated images gives a curve against eps.
        steps: Gradients per restart. The last iterate is evaluated too.
        step_size: Alpha, as a share of eps. By default it falls from eps to 0 along half a cosine, which fools more
            images in fewer passes than any constant; Madry et al. used a constant of about ``2.5 / steps``.
        restarts: How many random starts an image has while it is still classified correctly.
        random_start: Start from a uniform point of the ball instead of ``x``.
        start: Where to start instead: images like ``x`` in ball and box.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        options: See :class:`CommonOptions`.

    Returns:
        The best iterate of each image: an adversarial one before one that is not, then the larger loss.

    Raises:
        UserError: bad input, in one line.
    """
    check_at_least(steps, 1, "steps")
    check_at_least(restarts, 1, "restarts")
    with prepare(model, x, y, ball, **options) as state:
        random_start = random_start and start is None
        # A start away from x would miss images that are misclassified as they are.
        if ((random_start or start is not None) and state.stop) or clean is not None:
            state.clean_logits(clean)
        step_sizes = cosine_steps(steps) if step_size is None else constant_steps(steps, step_size)
        loop = PGDLoop(state, ball, step_sizes, random_start=random_start, start=start)
        ActiveBatch(loop.init_rows, loop.step, restarts if random_start else 1).run(*state.queue())
        return state.best


def constant_steps(steps: int, step_size: float) -> list[float]:
    """The same step size at every step, as a share of eps."""
    check_at_least(step_size, 0, "a step size")
    return [step_size] * steps


def cosine_steps(steps: int) -> list[float]:
    """Step sizes from 1 to 0, as shares of eps: the first cross the ball, the last converge."""
    return [(1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps)]


@dataclass
class _PGDRows(Rows):
    eps: Tensor
    t: Tensor  # the iteration
    momentum: Tensor | None


class PGDLoop:
    """The iteration of BIM, PGD and MI-FGSM on an active batch.

    Args:
        state: Model and images.
        ball: The threat model.
        step_sizes: One per step, as shares of eps.
        random_start: Start from a uniform point of the ball.
        start: Where to start instead.
        decay: MI-FGSM's mu: accumulates gradients. None accumulates nothing.
    """

    def __init__(
        self,
        state: AttackState,
        ball: Ball,
        step_sizes: Sequence[float],
        *,
        random_start: bool = False,
        start: Tensor | None = None,
        decay: float | None = None,
    ) -> None:
        self.state = state
        self.ball = ball
        self.radii = ball.radii(state.x)
        self.steps = len(step_sizes)
        # One entry more, of 0: the step of rows that finish in the same pass as others go on.
        self.alpha = torch.tensor([*step_sizes, 0.0], dtype=state.x.dtype, device=state.x.device)
        self.random_start = random_start
        self.start = state.x if start is None else state.checked_start(ball, start)
        self.decay = decay

    def init_rows(self, indices: Tensor, trials: Tensor) -> _PGDRows:
        """Rows for images (m,) in their trials (m,)."""
        state, x, eps = self.state, self.state.x[indices], self.radii[indices]
        x0 = self.start[indices]
        if self.random_start:
            x0 = self.ball.with_eps(eps).sample(x, state.generators(indices, trials, "pgd"))
        momentum = None if self.decay is None else torch.zeros_like(x)
        t = torch.zeros_like(indices)
        return _PGDRows(indices, trials, x, x0, state.y[indices], state.target(indices), eps, t, momentum)

    def step(self, rows: _PGDRows) -> Tensor:
        """One iteration of every row. Returns which have finished (b,)."""
        leaf, logits = self.state.frozen.trace(rows.x_adv)
        loss = self.state.loss(logits, rows)
        adversarial = self.state.keep_best(rows.index, rows.x_adv, logits)
        over = (rows.t == self.steps) | (adversarial & self.state.stop)
        if bool(over.all()):  # the last gradient would go unused
            return over
        gradient = self.state.frozen.gradient(loss, leaf)
        if rows.momentum is not None and self.decay is not None:
            # MI-FGSM, eq. 6: g_{t+1} = mu g_t + gradient / |gradient|_1
            gradient = gradient / batch_view(nonzero_norm(gradient, 1.0), leaf)
            gradient = rows.momentum = self.decay * rows.momentum + gradient
        # x^{t+1} = P(x^t + alpha_t eps direction(g))
        ball = self.ball.with_eps(rows.eps)
        rows.x_adv = ball.project(ball.step(rows.x_adv, gradient, self.alpha[rows.t] * rows.eps), rows.x)
        rows.t = rows.t + 1
        return over
