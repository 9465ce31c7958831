"""APGD, Auto-PGD: projected gradient ascent that adapts its step size (Croce & Hein 2020, Alg. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.active_batch import ActiveBatch, Rows
from rivals.attacks.apgd_l1 import APGDL1
from rivals.attacks.attack_losses import strongest_others
from rivals.attacks.attack_state import AttackState, CommonOptions, Model, check_at_least, check_norm, prepare
from rivals.base.errors import UserError
from rivals.base.norm_balls import L1, L2, Ball, Linf
from rivals.base.tensors import batch_view

RHO = 0.75  # Condition 1: more than this share of the steps between two checkpoints must increase the loss
ALPHA = 0.75  # weight of the new step against the momentum of the step before


def apgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 100,
    restarts: int = 1,
    n_targets: int = 0,
    clean: Tensor | None = None,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """Auto-PGD (Croce & Hein 2020, Alg. 1; in L1, Croce & Hein 2021): large steps first, halved when progress stalls.

    ``z = P(x_k + eta * direction(gradient))``, then ``x_{k+1} = P(x_k + alpha (z - x_k) + (1 - alpha)(x_k - x_{k-1}))``
    with alpha = 0.75, eta = 2 eps at first. At checkpoints (after 22, 41, 57, 70, 80, 87, 93, 99 steps of 100) eta is
    halved and the best iterate restored, if at most 75% of the steps since the last checkpoint increased the loss,
    or if neither eta nor the best loss has changed since. Each image has its own eta.

    In L1 the steps are sparse: see :mod:`rivals.attacks.apgd_l1`.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: The threat model. With one eps per image, one call on repeated images gives a curve against eps.
        steps: Gradients per trial: per restart and, with ``n_targets``, per target. The last iterate is evaluated too.
        restarts: How many random starts an image has while it is still classified correctly.
        n_targets: 0, or how many of the wrong classes with the largest clean logits are targeted, each in a trial of
            its own per restart; at most K - 1. With ``loss="dlr"`` and 9 this is APGD-T. Any wrong class is a success.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        options: See :class:`CommonOptions`. With fewer than four classes (three without a target) ``dlr`` is the
            margin.

    Returns:
        The best iterate of each image: an adversarial one before one that is not, then the larger loss.

    Raises:
        UserError: bad input, in one line.
    """
    check_norm(ball, "apgd", (Linf, L2, L1))
    check_at_least(steps, 1, "steps")
    check_at_least(restarts, 1, "restarts")
    check_at_least(n_targets, 0, "n_targets")
    if n_targets and options.get("targets") is not None:
        raise UserError(f"targets name the class to aim at, so n_targets of {n_targets} has no use: leave one out")
    with prepare(model, x, y, ball, **options) as state:
        classes = None
        if state.stop or n_targets or clean is not None:
            logits = state.clean_logits(clean)
            if n_targets and len(logits):
                classes = strongest_others(logits, state.y, min(n_targets, state.frozen.classes - 1))
        trials = restarts * (1 if classes is None else classes.shape[1])
        if isinstance(ball, L1):
            sparse = APGDL1(state, ball, steps, classes)
            ActiveBatch(sparse.init_rows, sparse.step, trials).run(*state.queue())
        else:
            dense = _APGD(state, ball, steps, classes)
            ActiveBatch(dense.init_rows, dense.step, trials).run(*state.queue())
        return state.best


def checkpoints(steps: int) -> list[int]:
    """For each step k from 0 to ``steps``: how many steps ago the last checkpoint was, if k is one (in W); else 0.

    ``p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)`` of the steps (their sec. 3.1). As in the
    authors' code each of the three shares is rounded down; the paper rounds up ``p_j`` times the steps. For 100 steps
    both are the same.
    """
    window, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    lengths, w = [0] * (steps + 1), window
    while w <= steps:
        lengths[w] = window
        window = max(window - less, least)
        w += window
    return lengths


@dataclass
class _APGDRows(Rows):
    """In the paper's letters; ``_w`` marks what was so at the last checkpoint."""

    eps: Tensor
    k: Tensor
    eta: Tensor
    x_prev: Tensor  # x_{k-1}
    f_prev: Tensor  # f(x_{k-1})
    x_max: Tensor
    f_max: Tensor
    gradient_max: Tensor  # at x_max, to go on from there without another pass
    increases: Tensor  # steps since the last checkpoint that increased f
    f_max_w: Tensor
    eta_halved_w: Tensor  # at first True, as in the authors' code: Condition 2 takes two checkpoints


class _APGD:
    """Alg. 1 in Linf and L2, on an active batch.

    Args:
        state: Model and images.
        ball: The threat model.
        steps: N_iter.
        classes: Target classes of each image by trial (n, m), or None.
    """

    def __init__(self, state: AttackState, ball: Ball, steps: int, classes: Tensor | None) -> None:
        self.state = state
        self.ball = ball
        self.radii = ball.radii(state.x)
        self.steps = steps
        self.classes = classes
        self.window = torch.tensor(checkpoints(steps), device=state.x.device)

    def init_rows(self, indices: Tensor, trials: Tensor) -> _APGDRows:
        state, x, eps = self.state, self.state.x[indices], self.radii[indices]
        x0 = self.ball.with_eps(eps).sample_sphere(x, state.generators(indices, trials, "apgd"))
        low = torch.full_like(eps, -torch.inf)
        return _APGDRows(
            index=indices,
            trial=trials,
            x=x,
            x_adv=x0,
            y=state.y[indices],
            target=state.target(indices) if self.classes is None else target_of_trial(self.classes, indices, trials),
            eps=eps,
            k=torch.zeros_like(indices),
            eta=2 * eps,
            x_prev=x0,
            f_prev=-low,
            x_max=x0,
            f_max=low,
            gradient_max=x0,
            increases=torch.zeros_like(indices),
            f_max_w=low,
            eta_halved_w=torch.ones_like(indices, dtype=torch.bool),
        )

    def step(self, rows: _APGDRows) -> Tensor:
        # The loop of Alg. 1, rotated to begin where x_k is evaluated, so that a step is one forward and backward pass.
        leaf, logits = self.state.frozen.trace(rows.x_adv)
        f = self.state.loss(logits, rows)
        adversarial = self.state.keep_best(rows.index, rows.x_adv, logits)
        over = (rows.k == self.steps) | (adversarial & self.state.stop)
        if bool(over.all()):  # the last gradient would go unused
            return over
        gradient, f = self.state.frozen.gradient(f, leaf), f.detach()

        # Alg. 1, lines 9 and 10: the best iterate of this trial
        better = f > rows.f_max
        rows.x_max = torch.where(batch_view(better, leaf), rows.x_adv, rows.x_max)
        rows.gradient_max = torch.where(batch_view(better, leaf), gradient, rows.gradient_max)
        rows.f_max = torch.where(better, f, rows.f_max)
        rows.increases = rows.increases + (f > rows.f_prev)
        rows.f_prev = f
        rows.f_max_w = torch.where(rows.k == 0, f, rows.f_max_w)

        # Alg. 1, lines 12 to 14: at a checkpoint, halve eta and go back to x_max if progress stalled
        window = self.window[rows.k]
        at_checkpoint = window > 0
        condition_1 = rows.increases <= RHO * window  # as in the authors' code; the paper has <
        # Condition 2: eta was kept at the last checkpoint, and f_max is what it was there
        condition_2 = ~rows.eta_halved_w & (rows.f_max <= rows.f_max_w)
        stalled = condition_1 | condition_2
        rows.eta_halved_w = torch.where(at_checkpoint, stalled, rows.eta_halved_w)
        rows.f_max_w = torch.where(at_checkpoint, rows.f_max, rows.f_max_w)
        rows.increases = rows.increases.masked_fill(at_checkpoint, 0)
        restore = at_checkpoint & stalled
        rows.eta = torch.where(restore, rows.eta / 2, rows.eta)
        x_k = torch.where(batch_view(restore, leaf), rows.x_max, rows.x_adv)
        gradient = torch.where(batch_view(restore, leaf), rows.gradient_max, gradient)

        # Alg. 1, lines 7 and 8; line 3, the first step, has no momentum
        ball = self.ball.with_eps(rows.eps)
        z = ball.project(x_k + batch_view(rows.eta, leaf) * ball.steepest_direction(gradient), rows.x)
        alpha = batch_view(torch.where(rows.k == 0, 1.0, ALPHA).to(leaf.dtype), leaf)
        rows.x_adv = ball.project(x_k + alpha * (z - x_k) + (1 - alpha) * (x_k - rows.x_prev), rows.x)
        rows.x_prev = x_k
        rows.k = rows.k + 1
        return over


def target_of_trial(classes: Tensor, indices: Tensor, trials: Tensor) -> Tensor:
    """The class that some images (m,) aim at in their trials (m,): those in ``classes`` (n, t) in turn."""
    return classes[indices, trials % classes.shape[1]]
