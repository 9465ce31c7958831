"""sigma-zero: a minimum-norm attack in L0 by a differentiable approximation of the norm (Cina et al. 2025, Alg. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.active_batch import Rows
from rivals.attacks.adam import adam_moments
from rivals.attacks.attack_state import Model, check_at_least, check_norm
from rivals.attacks.linear_boundary import numerical_margin
from rivals.attacks.min_norm import MinNormOptions, MinNormSearch, cosine_schedule, min_norm_search
from rivals.attacks.sparse_refinement import GRADIENTS
from rivals.base.errors import UserError
from rivals.base.l0_ball import L0
from rivals.base.norm_balls import Ball
from rivals.base.tensors import batch_view, nonzero_norm

REFINE_EVERY = 4 * GRADIENTS  # steps to a round of the refinement


def sigma_zero(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 100,
    step_size: float = 1.0,
    sigma: float = 1e-3,
    threshold: float = 0.3,
    threshold_step: float = 0.01,
    **options: Unpack[MinNormOptions],
) -> Tensor:
    """sigma-zero (Cina et al. 2025, Alg. 1): an adversarial example with few changed components, or pixels, in L0.

    The perturbation follows the gradient of the margin, as long as it is negative, less that of
    ``sum_i d_i^2 / (d_i^2 + sigma)`` over the number of components, an approximation of the L0 norm. Components below a
    threshold tau are set to 0 after each step; tau rises while the iterate is adversarial, and falls while it is not.
    As in the authors' code, the gradient is divided by its largest value and then passed to Adam.

    Up to a quarter of the gradients goes into the refinement of :mod:`rivals.attacks.sparse_refinement`, which
    restores what is not needed. It gains more there than in as many further steps.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: ``L0``: whether components or pixels count, its bounds and, by its eps, how many may change at most.
        steps: Gradients of an image at most, those of the refinement included from 36 on. The last iterate is evaluated
            too.
        step_size: Eta_0, in shares of the range of images; it falls to a tenth along half a cosine.
        sigma: How sharp the approximation of the norm is, in the square of the range of images.
        threshold: Tau_0, in shares of the range of images.
        threshold_step: By what share of eta tau changes in each step.
        options: See :class:`MinNormOptions`.

    Returns:
        For each image the adversarial example with the fewest changes found, if they are at most eps; else the image.
        Misclassified images are returned as they are.

    Raises:
        UserError: bad input, in one line.
    """
    check_norm(ball, "sigma_zero", (L0,))
    check_at_least(steps, 1, "steps")
    for name, value in (("step size", step_size), ("sigma", sigma)):
        if not value > 0:
            raise UserError(f"a {name} of {value:g} cannot work: take one above 0")
    for name, share in (("threshold", threshold), ("threshold_step", threshold_step)):
        if not 0 <= share <= 1:
            raise UserError(f"{name} of {share:g} is not a share of the images' range: take 0 to 1")
    rounds = min(options.get("refine_steps", 10), max(steps // REFINE_EVERY, 1))
    steps -= rounds * GRADIENTS if steps >= REFINE_EVERY else 0
    options["refine_steps"] = rounds
    with min_norm_search(model, x, y, ball, **options) as search:
        attack = _SigmaZero(search, steps, step_size, sigma, (threshold, threshold_step))
        search.run(attack.init_rows, attack.step)
        return search.result()


@dataclass
class _SigmaZeroRows(Rows):
    """``x_adv - x`` is delta; ``mean`` and ``square`` are Adam's moments."""

    tau: Tensor
    mean: Tensor
    square: Tensor
    k: Tensor


class _SigmaZero:
    """Alg. 1 on an active batch."""

    def __init__(
        self, search: MinNormSearch, steps: int, step_size: float, sigma: float, thresholds: tuple[float, float]
    ) -> None:
        self.search = search
        self.steps = steps
        self.eta = cosine_schedule(step_size, step_size / 10, steps, search.state.x)
        self.sigma = sigma
        self.tau, self.tau_step = thresholds
        self.pixels = isinstance(search.ball, L0) and search.ball.pixels
        low, high = search.ball.bounds
        self.range = high - low

    def init_rows(self, indices: Tensor, trials: Tensor) -> _SigmaZeroRows:
        state, x = self.search.state, self.search.state.x[indices]
        tau, zeros = torch.full_like(self.search.radii[indices], self.tau), torch.zeros_like(x)
        y, target, k = state.y[indices], state.target(indices), torch.zeros_like(indices)
        return _SigmaZeroRows(indices, trials, x, x, y, target, tau, zeros, zeros, k)

    def step(self, rows: _SigmaZeroRows) -> Tensor:
        search, ball = self.search, self.search.ball
        leaf, logits = search.state.frozen.trace(rows.x_adv)
        margins = search.state.loss(logits, rows)
        adversarial, over = search.keep_best(rows.index, rows.x_adv, logits), rows.k == self.steps
        if bool(over.all()):  # the last gradient would go unused
            return over
        # Alg. 1, line 4: the gradient of max(z_y - max z_i, 0) + (1 / d) l0(delta, sigma), eq. 4
        failing = (margins.detach() < numerical_margin(logits)).to(leaf.dtype)
        delta = (rows.x_adv - rows.x) / self.range
        gradient = self._l0_gradient(delta) - batch_view(failing, leaf) * search.state.frozen.gradient(margins, leaf)
        # Line 5: over its largest value; the step, and line 6: back into the box
        rows.k = rows.k + 1
        gradient = gradient * self.range
        mean, root = adam_moments(rows, gradient / batch_view(nonzero_norm(gradient, torch.inf), leaf))
        eta = self.eta[rows.k - 1]
        moved = (rows.x_adv - batch_view(eta, leaf) * self.range * mean / root).clamp_(*ball.bounds)
        # Lines 8 to 11: tau
        sign = torch.where(adversarial, 1.0, -1.0).to(leaf.dtype)
        rows.tau = (rows.tau + self.tau_step * sign * eta).clamp_(0, 1)
        # Line 7: components, or pixels, below tau are set to 0
        size = ((moved - rows.x) / self.range).abs()
        size = size.amax(1, keepdim=True) if self.pixels else size
        rows.x_adv = torch.where(size >= batch_view(rows.tau, leaf), moved, rows.x)
        return over

    def _l0_gradient(self, delta: Tensor) -> Tensor:
        """The gradient of the approximation of the L0 norm, ``sum s / (s + sigma)`` with ``s = d^2``, over d."""
        squares = delta.square()
        squares = squares.sum(1, keepdim=True) if self.pixels else squares
        slope: Tensor = 2 * self.sigma * delta / (squares + self.sigma).square() / self.range
        return slope / squares[0].numel()
