"""DDN, decoupled direction and norm: a minimum-norm attack in L2 (Rony et al. 2019, Alg. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.active_batch import Rows
from rivals.attacks.attack_state import Model, check_at_least, check_norm
from rivals.attacks.min_norm import (
    MinNormOptions,
    MinNormSearch,
    check_gamma,
    cosine_schedule,
    min_norm_search,
)
from rivals.base.norm_balls import L2, Ball
from rivals.base.tensors import batch_view


def ddn(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 100,
    radius: float = 1.0,
    gamma: float = 0.05,
    **options: Unpack[MinNormOptions],
) -> Tensor:
    """Decoupled direction and norm (Rony et al. 2019, Alg. 1): a nearest adversarial example in L2.

    The perturbation takes a step along the gradient of the cross-entropy, of a size alpha that falls from 1 to 0.01
    along half a cosine, and is then rescaled to a norm eps_k, which is cut by ``gamma`` if the iterate before was
    adversarial, and else raised by it.

    As in the authors' code, the perturbation is measured from the clipped iterate; that of the paper goes on unclipped.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: ``L2``: its bounds and, by its eps, how far an adversarial example may be to count.
        steps: Gradients. The last iterate is evaluated too.
        radius: Eps_0, the first norm.
        gamma: By what share the norm changes in each step, below 1.
        options: See :class:`MinNormOptions`.

    Returns:
        For each image the nearest adversarial example found, refined (see :mod:`rivals.attacks.min_norm`), if it lies
        within eps; else the image. Misclassified images are returned as they are.

    Raises:
        UserError: bad input, in one line.
    """
    check_norm(ball, "ddn", (L2,))
    check_at_least(steps, 1, "steps")
    check_at_least(radius, 0, "a radius")
    check_gamma(gamma)
    with min_norm_search(model, x, y, ball, loss="ce", **options) as search:
        attack = _DDN(search, steps, radius, gamma)
        search.run(attack.init_rows, attack.step)
        return search.result()


@dataclass
class _DDNRows(Rows):
    eps: Tensor  # eps_k
    k: Tensor


class _DDN:
    """Alg. 1 on an active batch."""

    def __init__(self, search: MinNormSearch, steps: int, radius: float, gamma: float) -> None:
        self.search = search
        self.steps = steps
        self.radius = radius
        self.gamma = gamma
        self.alpha = cosine_schedule(1.0, 0.01, steps, search.state.x)

    def init_rows(self, indices: Tensor, trials: Tensor) -> _DDNRows:
        state, x = self.search.state, self.search.state.x[indices]
        eps = torch.full_like(self.search.radii[indices], self.radius)
        k = torch.zeros_like(indices)
        return _DDNRows(indices, trials, x, x, state.y[indices], state.target(indices), eps, k)

    def step(self, rows: _DDNRows) -> Tensor:
        search, ball = self.search, self.search.ball
        leaf, logits = search.state.frozen.trace(rows.x_adv)
        loss = search.state.loss(logits, rows)
        adversarial, over = search.keep_best(rows.index, rows.x_adv, logits), rows.k == self.steps
        if bool(over.all()):  # the last gradient would go unused
            return over
        # Alg. 1, lines 4 to 6: delta_k = delta_{k-1} + alpha g / |g|_2
        ascent = L2(0.0).steepest_direction(search.state.frozen.gradient(loss, leaf))
        delta = rows.x_adv - rows.x + batch_view(self.alpha[rows.k], leaf) * ascent
        # Lines 7 to 11: eps_k = (1 -+ gamma) eps_{k-1}
        rows.eps = rows.eps * torch.where(adversarial, 1 - self.gamma, 1 + self.gamma).to(rows.eps.dtype)
        # Lines 12 and 13: x + eps_k delta_k / |delta_k|_2, clipped to the box
        size, limits = ball.distance(delta, torch.zeros_like(delta)), torch.finfo(delta.dtype)
        scale = (rows.eps / size.clamp_min(limits.tiny)).clamp_max(limits.max)  # finite, so that 0 times it is 0
        rows.x_adv = (rows.x + batch_view(scale, leaf) * delta).clamp_(*ball.bounds)
        rows.k = rows.k + 1
        return over
