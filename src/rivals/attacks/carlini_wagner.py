"""The L2 attack of Carlini & Wagner (2017): distance plus c times the margin, minimized over tanh space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.active_batch import Rows
from rivals.attacks.attack_state import Model, check_at_least, check_norm
from rivals.attacks.linear_boundary import numerical_margin
from rivals.attacks.min_norm import MinNormOptions, MinNormSearch, min_norm_search
from rivals.base.errors import UserError
from rivals.base.norm_balls import L2, Ball
from rivals.base.tensors import batch_view

_INSIDE = 0.99  # the bounds are scaled by this: no finite w reaches them, and near them tanh hardly moves
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's


def carlini_wagner(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 100,
    searches: int = 6,
    step_size: float = 0.1,
    weight: float = 1.0,
    **options: Unpack[MinNormOptions],
) -> Tensor:
    """Carlini & Wagner (2017, sec. V-A and VI-A): a nearest adversarial example in L2.

    With images written as ``(1 + tanh w) / 2`` (for bounds of 0 and 1), Adam minimizes
    ``|x_adv - x|^2 + c * max(z_y - max_{i != y} z_i, 0)`` over w (with a target t, ``max_{i != t} z_i - z_t``). The
    weight c is found by binary search: after each search it is raised tenfold if no c has succeeded yet, or else set
    halfway between the largest that failed and the smallest that succeeded. A search ends early once it stops
    improving.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: ``L2``: its bounds and, by its eps, how far an adversarial example may be to count.
        steps: The most gradients in each search.
        searches: How many values of c are tried.
        step_size: Adam's learning rate. With the published 0.01, and images that start at 0.999999 of the way to the
            bounds, values at a bound do not leave it in some hundred steps: the black of a digit stays black.
        weight: The first c. The published attack takes 1e-3, 9 searches and 1000 steps.
        options: See :class:`MinNormOptions`.

    Returns:
        For each image the nearest adversarial example found, refined (see :mod:`rivals.attacks.min_norm`), if it lies
        within eps; else the image. Misclassified images are returned as they are.

    Raises:
        UserError: bad input, in one line.
    """
    check_norm(ball, "carlini_wagner", (L2,))
    check_at_least(steps, 1, "steps")
    check_at_least(searches, 1, "searches")
    if not (step_size > 0 and weight > 0):
        name, value = ("step size", step_size) if not step_size > 0 else ("weight", weight)
        raise UserError(f"a {name} of {value:g} cannot work: take one above 0")
    with min_norm_search(model, x, y, ball, **options) as search:
        attack = _CarliniWagner(search, steps, searches, step_size, weight)
        search.run(attack.init_rows, attack.step)
        return search.result()


@dataclass
class _CWRows(Rows):
    """``weight``, the c of the paper, lies between ``low``, the largest that failed, and ``high``, the smallest that
    succeeded; ``mean`` and ``square`` are Adam's moments."""

    w: Tensor
    mean: Tensor
    square: Tensor
    weight: Tensor
    low: Tensor
    high: Tensor
    fooled: Tensor
    loss_before: Tensor  # at the last check
    k: Tensor
    search: Tensor


class _CarliniWagner:
    """Adam and the binary search over c, on an active batch."""

    def __init__(self, search: MinNormSearch, steps: int, searches: int, step_size: float, weight: float) -> None:
        self.search = search
        self.steps = steps
        self.searches = searches
        self.step_size = step_size
        self.weight = weight
        self.period = max(steps // 10, 1)
        low, high = search.ball.bounds
        self.middle, self.half = (low + high) / 2, (high - low) / 2

    def init_rows(self, indices: Tensor, trials: Tensor) -> _CWRows:
        state, x, one = self.search.state, self.search.state.x[indices], torch.ones_like(self.search.radii[indices])
        zeros, count = torch.zeros_like(x), torch.zeros_like(indices)
        return _CWRows(
            index=indices,
            trial=trials,
            x=x,
            x_adv=x,
            y=state.y[indices],
            target=state.target(indices),
            w=self._to_w(x),
            mean=zeros,
            square=zeros,
            weight=one * self.weight,
            low=0 * one,
            high=one * torch.inf,
            fooled=torch.zeros_like(indices, dtype=torch.bool),
            loss_before=torch.full_like(one, torch.inf),
            k=count,
            search=count,
        )

    def step(self, rows: _CWRows) -> Tensor:
        state, x = self.search.state, rows.x
        tanh = rows.w.tanh()
        rows.x_adv = (self.middle + self.half * tanh).clamp_(*self.search.ball.bounds)
        rows.x_adv = self.search.ball.keep_mask(rows.x_adv, x)
        leaf, logits = state.frozen.trace(rows.x_adv)
        margins = state.loss(logits, rows)
        rows.fooled = rows.fooled | self.search.keep_best(rows.index, rows.x_adv, logits)
        # |x_adv - x|^2 + c f(x_adv), with f of eq. 6 for a confidence kappa of 0
        f = (numerical_margin(logits) - margins.detach()).clamp_min(0)
        loss = (rows.x_adv - x).square().flatten(1).sum(1) + rows.weight * f
        check = (rows.k % self.period == 0) & (rows.k > 0)
        stalled = check & (loss > 0.9999 * rows.loss_before)  # abort early, as the published code does
        rows.loss_before = torch.where(check | (rows.k == 0), loss, rows.loss_before)
        ending = stalled | (rows.k == self.steps)
        over = ending & (rows.search + 1 == self.searches)
        if bool(over.all()):  # the last gradient would go unused
            return over

        # The gradient by w, and Adam's update of w
        margin_gradient = batch_view(rows.weight * f.sign(), x) * state.frozen.gradient(margins, leaf)
        gradient = (2 * (rows.x_adv - x) - margin_gradient) * self.half * (1 - tanh.square())
        rows.k = rows.k + 1
        rows.mean = BETA1 * rows.mean + (1 - BETA1) * gradient
        rows.square = BETA2 * rows.square + (1 - BETA2) * gradient.square()
        mean = rows.mean / batch_view((1 - BETA1**rows.k).to(x.dtype), x)
        square = rows.square / batch_view((1 - BETA2**rows.k).to(x.dtype), x)
        rows.w = rows.w - self.step_size * mean / (square.sqrt() + max(EPSILON, torch.finfo(x.dtype).tiny))
        if bool(ending.any()):
            self._next_search(rows, ending)
        return over

    def _next_search(self, rows: _CWRows, ending: Tensor) -> None:
        """Binary search over c: start the next search where one has ended (sec. VI-A)."""
        rows.high = torch.where(ending & rows.fooled, torch.minimum(rows.high, rows.weight), rows.high)
        rows.low = torch.where(ending & ~rows.fooled, torch.maximum(rows.low, rows.weight), rows.low)
        between = torch.where(rows.high.isfinite(), (rows.low + rows.high) / 2, rows.weight * 10)
        rows.weight = torch.where(ending, between, rows.weight)
        again = batch_view(ending, rows.x)
        rows.w = torch.where(again, self._to_w(rows.x), rows.w)
        rows.mean, rows.square = rows.mean.masked_fill(again, 0), rows.square.masked_fill(again, 0)
        rows.k, rows.fooled = rows.k.masked_fill(ending, 0), rows.fooled & ~ending
        rows.loss_before = rows.loss_before.masked_fill(ending, torch.inf)
        rows.search = rows.search + ending

    def _to_w(self, x: Tensor) -> Tensor:
        """The w with ``x = (1 + tanh w) / 2``."""
        inside: Tensor = (x - self.middle) / self.half * _INSIDE
        return inside.atanh()
