"""APGD in L1: sparse steps in a ball that shrinks in stages (Croce & Hein 2021, "Mind the box", Alg. 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rivals.attacks.active_batch import Rows
from rivals.attacks.attack_state import AttackState
from rivals.base.norm_balls import L1
from rivals.base.tensors import batch_view

STAGES = ((3.0, 0.3), (2.0, 0.6), (1.0, 1.0))  # radius in eps, and the share of the steps at which the stage ends
SPARSER = 0.95  # the best iterate is sparser if its support is below this share of that at the last check
SHRINK = 1.5  # eta is divided by this at a check without a sparser best iterate,
SMALLEST = 10.0  # but never falls below the radius over this
MOVED = 1.5  # a step changes as many components as the support over this


@dataclass
class _L1Rows(Rows):
    """``x_max``, ``f_max`` and ``gradient_max`` are those of the stage."""

    eps: Tensor
    k: Tensor  # steps in this stage
    eta: Tensor
    x_max: Tensor
    f_max: Tensor
    gradient_max: Tensor
    stage: Tensor
    support: Tensor  # changed components of x_max at the last check


class APGDL1:
    """Alg. 1 on an active batch.

    The number of components that a step changes, and its size eta, follow the sparsity of the best iterate. The ball
    shrinks from 3 eps to 2 eps to eps after 30% and 60% of the steps; in the first stages iterates lie outside the
    ball that counts.

    Args:
        state: Model and images.
        ball: The threat model.
        steps: Gradients per trial, over all stages.
        classes: Target classes of each image by trial (n, m), or None.
    """

    def __init__(self, state: AttackState, ball: L1, steps: int, classes: Tensor | None) -> None:
        self.state = state
        self.ball = ball
        self.radii = ball.radii(state.x)
        self.classes = classes
        ends = [round(share * steps) for _, share in STAGES]
        lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        self.lengths = torch.tensor(lengths, device=state.x.device)
        self.periods = (self.lengths * 4 // 100).clamp_min(1)  # steps between checks of the sparsity
        self.factors = torch.tensor([factor for factor, _ in STAGES], dtype=state.x.dtype, device=state.x.device)

    def init_rows(self, indices: Tensor, trials: Tensor) -> _L1Rows:
        state, x, eps = self.state, self.state.x[indices], self.radii[indices]
        radius = self.factors[0] * eps
        x0 = self.ball.with_eps(radius).sample_sphere(x, state.generators(indices, trials, "apgd"))
        target = state.target(indices)
        if self.classes is not None:
            target = self.classes[indices, trials % self.classes.shape[1]]
        return _L1Rows(
            index=indices,
            trial=trials,
            x=x,
            x_adv=x0,
            y=state.y[indices],
            target=target,
            eps=eps,
            k=torch.zeros_like(indices),
            eta=radius,
            x_max=x0,
            f_max=torch.full_like(eps, -torch.inf),
            gradient_max=x0,
            stage=torch.zeros_like(indices),
            support=_support(x0, x),
        )

    def step(self, rows: _L1Rows) -> Tensor:
        leaf, logits = self.state.frozen.trace(rows.x_adv)
        f = self.state.loss(logits, rows)
        last_stage = rows.stage == len(STAGES) - 1  # before it, the iterates lie outside the ball
        adversarial = torch.zeros_like(last_stage)
        adversarial[last_stage] = self.state.keep_best(
            rows.index[last_stage], rows.x_adv[last_stage], logits[last_stage]
        )
        stage_ends = rows.k == self.lengths[rows.stage]
        over = (stage_ends & last_stage) | (adversarial & self.state.stop)
        if bool(over.all()):  # the last gradient would go unused
            return over
        gradient, f = self.state.frozen.gradient(f, leaf), f.detach()

        # Alg. 1, update of the best point: the best iterate of this stage
        better = f > rows.f_max
        rows.x_max = torch.where(batch_view(better, leaf), rows.x_adv, rows.x_max)
        rows.gradient_max = torch.where(batch_view(better, leaf), gradient, rows.gradient_max)
        rows.f_max = torch.where(better, f, rows.f_max)

        # Alg. 1, adjustment of sparsity and step size, at a check: if the best iterate became sparser, restore it and
        # the largest eta; else shrink eta.
        radius = self.factors[rows.stage] * rows.eps
        check = (rows.k > 0) & (rows.k % self.periods[rows.stage] == 0)
        support = _support(rows.x_max, rows.x)
        restore = check & (support < SPARSER * rows.support)
        smaller = torch.maximum(rows.eta / SHRINK, radius / SMALLEST)
        rows.eta = torch.where(restore, radius, torch.where(check, smaller, rows.eta))
        rows.support = torch.where(check, support, rows.support)
        x_k = torch.where(batch_view(restore, leaf), rows.x_max, rows.x_adv)
        gradient = torch.where(batch_view(restore, leaf), rows.gradient_max, gradient)

        # Alg. 1, update step, a sparse one: only the largest components of the gradient, their number by the support.
        change = batch_view(rows.eta, leaf) * self.ball.steepest_direction(gradient, count=rows.support / MOVED)
        # A stage ends by projecting its best iterate to the smaller ball; there everything starts anew.
        stage_ends = stage_ends & ~last_stage
        rows.stage = rows.stage + stage_ends
        radius = self.factors[rows.stage] * rows.eps
        moved = torch.where(batch_view(stage_ends, leaf), rows.x_max, x_k + change)
        rows.x_adv = self.ball.with_eps(radius).project(moved, rows.x)
        rows.k = torch.where(stage_ends, 0, rows.k + 1)
        rows.eta = torch.where(stage_ends, radius, rows.eta)
        rows.support = torch.where(stage_ends, _support(rows.x_adv, rows.x), rows.support)
        rows.f_max = rows.f_max.masked_fill(stage_ends, -torch.inf)
        return over


def _support(x_adv: Tensor, x: Tensor) -> Tensor:
    """How many components of each image differ (n,)."""
    return (x_adv != x).flatten(1).sum(1).to(x.dtype)
