"""FMN, the fast minimum-norm attack in Linf, L2, L1 and L0 (Pintor et al. 2021, Alg. 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.active_batch import Rows
from rivals.attacks.attack_state import Model, check_at_least
from rivals.attacks.linear_boundary import numerical_margin
from rivals.attacks.min_norm import MinNormOptions, MinNormSearch, check_gamma, cosine_schedule, min_norm_search
from rivals.base.norm_balls import L0, L2, Ball
from rivals.base.tensors import batch_view

# Where the first radius ends, in shares of the way to the linearized boundary: exactly on it, rounding would decide.
OVERSHOOT = 1.001


def fmn(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 100,
    step_size: float = 1.0,
    gamma: float = 0.05,
    **options: Unpack[MinNormOptions],
) -> Tensor:
    """Fast minimum-norm attack (Pintor et al. 2021, Alg. 1): a nearest adversarial example in any norm.

    The perturbation takes a step along the gradient of the margin and is projected onto a ball (and, here, the box:
    exactly). Until an iterate is adversarial, the ball reaches to where the linearized margin is 0. From then on its
    radius is cut by a share if the iterate before was adversarial, but to no more than the best distance, and else
    raised by it. The share falls from ``gamma`` to 0 and the step size from ``step_size`` to a hundredth of it along
    half a cosine. In L0 the radius starts at 1 and changes by 1 at least.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: Its norm, its bounds and, by its eps, how far an adversarial example may be to count.
        steps: Gradients. The last iterate is evaluated too.
        step_size: Alpha_0, the Euclidean length of the first step, whatever the norm.
        gamma: Gamma_0, by what share the radius changes at first, below 1.
        options: See :class:`MinNormOptions`.

    Returns:
        For each image the nearest adversarial example found, refined (see :mod:`rivals.attacks.min_norm`), if it lies
        within eps; else the image. Misclassified images are returned as they are.

    Raises:
        UserError: bad input, in one line.
    """
    check_at_least(steps, 1, "steps")
    check_at_least(step_size, 0, "a step size")
    check_gamma(gamma)
    with min_norm_search(model, x, y, ball, **options) as search:
        attack = _FMN(search, steps, step_size, gamma)
        search.run(attack.init_rows, attack.step)
        return search.result()


@dataclass
class _FMNRows(Rows):
    eps: Tensor
    k: Tensor


class _FMN:
    """Alg. 1 on an active batch."""

    def __init__(self, search: MinNormSearch, steps: int, step_size: float, gamma: float) -> None:
        self.search = search
        self.steps = steps
        self.dual_p = {1.0: math.inf, 2.0: 2.0}.get(search.ball.p, 1.0)
        self.alpha = cosine_schedule(step_size, step_size / 100, steps, search.state.x)
        self.gamma = cosine_schedule(gamma, 0.0, steps, search.state.x)

    def init_rows(self, indices: Tensor, trials: Tensor) -> _FMNRows:
        state, x = self.search.state, self.search.state.x[indices]
        eps, k = torch.zeros_like(self.search.radii[indices]), torch.zeros_like(indices)
        return _FMNRows(indices, trials, x, x, state.y[indices], state.target(indices), eps, k)

    def step(self, rows: _FMNRows) -> Tensor:
        search, ball = self.search, self.search.ball
        leaf, logits = search.state.frozen.trace(rows.x_adv)
        margins = search.state.loss(logits, rows)
        adversarial, over = search.keep_best(rows.index, rows.x_adv, logits), rows.k == self.steps
        if bool(over.all()):  # the last gradient would go unused
            return over
        gradient, margins = search.state.frozen.gradient(margins, leaf), margins.detach() - numerical_margin(logits)
        rows.eps = self._radius(rows, gradient, margins, adversarial)
        # Alg. 1, lines 13 to 15: the step alpha * g / |g|_2 and the projection
        moved = rows.x_adv + batch_view(self.alpha[rows.k], leaf) * L2(0.0).steepest_direction(gradient)
        rows.x_adv = ball.with_eps(rows.eps).project(moved, rows.x)
        rows.k = rows.k + 1
        return over

    def _radius(self, rows: _FMNRows, gradient: Tensor, margins: Tensor, adversarial: Tensor) -> Tensor:
        """Alg. 1, lines 6 to 12. Not adversarial yet: |delta| + |margin| / |gradient|_q."""
        ball, best, gamma = self.search.ball, self.search.distances[rows.index], self.gamma[rows.k]
        if isinstance(ball, L0):
            cut = torch.minimum(torch.minimum(rows.eps - 1, (rows.eps * (1 - gamma)).floor()), best).clamp_min(0)
            return torch.where(adversarial, cut, torch.maximum(rows.eps + 1, (rows.eps * (1 + gamma)).floor()))
        scaled = gradient if ball.scale is None else gradient * ball.scale
        gradient_norm = torch.linalg.vector_norm(scaled.flatten(1), self.dual_p, dim=1)
        linear = ball.distance(rows.x_adv, rows.x) - margins / gradient_norm.clamp_min(torch.finfo(margins.dtype).tiny)
        linear = (linear * OVERSHOOT).clamp_max(_box_diameter(ball, rows.x))
        raised = torch.where(best.isinf(), linear, rows.eps * (1 + gamma))
        return torch.where(adversarial, torch.minimum(rows.eps * (1 - gamma), best), raised)


def _box_diameter(ball: Ball, x: Tensor) -> float:
    """The norm of a perturbation from one corner of the box to the other."""
    low, high = ball.bounds
    if ball.per_feature:
        side = torch.as_tensor(high - low).to(x).expand(1, *x.shape[1:])
        return float(ball.distance(side, torch.zeros_like(side)).clamp_max(torch.finfo(x.dtype).max))
    return float((high - low) * math.prod(x.shape[1:]) ** (1 / ball.p))
