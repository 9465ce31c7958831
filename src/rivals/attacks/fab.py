"""FAB, the fast adaptive boundary attack in Linf, L2 and L1 (Croce & Hein 2020, "Minimally distorted adversarial
examples", Alg. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.active_batch import Rows
from rivals.attacks.attack_losses import strongest_others
from rivals.attacks.attack_state import Model, check_at_least, check_norm
from rivals.attacks.linear_boundary import class_pair, min_norm_step, nearest_boundary
from rivals.attacks.min_norm import MinNormOptions, MinNormSearch, min_norm_search
from rivals.base.errors import UserError
from rivals.base.norm_balls import L1, L2, Ball, Linf
from rivals.base.tensors import batch_view


def fab(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 100,
    restarts: int = 1,
    n_targets: int = 0,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    stop_within: bool = False,
    **options: Unpack[MinNormOptions],
) -> Tensor:
    """Fast adaptive boundary attack (Croce & Hein 2020): a nearest adversarial example in Linf, L2 or L1.

    Each step linearizes the boundary to the nearest other class, projects both the iterate and the clean image onto
    that hyperplane within the box (exactly), and moves to a convex combination of the two, a little beyond the
    hyperplane: ``(1 - a) (x_i + eta d_i) + a (x + eta d_x)`` with ``a = min(|d_i| / (|d_i| + |d_x|), alpha_max)`` (eq.
    9 and 10). An adversarial iterate is kept if it is nearer than the best, and the search goes back to ``x + beta (x_i
    - x)``. At the end the best is refined, see :mod:`rivals.attacks.min_norm`.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: Its norm, its bounds and, by its eps, how far an adversarial example may be to count.
        steps: Gradients per trial.
        restarts: Trials: the first from ``x``, others from random points half as far as the best, or as eps.
        n_targets: 0: all other classes are linearized in every step, for K - 1 backward passes. Else, how many of the
            wrong classes with the largest clean logits are targeted, in a trial each, for one backward pass per step;
            at most K - 1. With 9 this is FAB-T of AutoAttack. Any wrong class is a success.
        alpha_max: The largest weight of the clean image's projection, from 0 to 1.
        eta: How far beyond the hyperplane a step goes; 1 ends on it.
        beta: The share of its perturbation that an adversarial iterate keeps, from 0 to 1.
        stop_within: Leave an image alone once an adversarial example within eps is found: enough for an ensemble.
        options: See :class:`MinNormOptions`.

    Returns:
        For each image the nearest adversarial example found, refined, if it lies within eps; else the image.
        Misclassified images are returned as they are.

    Raises:
        UserError: bad input, in one line.
    """
    check_norm(ball, "fab", (Linf, L2, L1))
    check_at_least(steps, 1, "steps")
    check_at_least(restarts, 1, "restarts")
    check_at_least(n_targets, 0, "n_targets")
    check_at_least(eta, 1, "an eta")
    for name, share in (("alpha_max", alpha_max), ("beta", beta)):
        if not 0 <= share <= 1:
            raise UserError(f"{name} of {share:g} is not a share: take 0 to 1")
    if n_targets and options.get("targets") is not None:
        raise UserError(f"targets name the class to aim at, so n_targets of {n_targets} has no use: leave one out")
    with min_norm_search(model, x, y, ball, **options) as search:
        if len(search.clean):
            attack = _FAB(search, steps, restarts, n_targets, (alpha_max, eta, beta), stop_within)
            search.run(attack.init_rows, attack.step, attack.trials, stop_within=stop_within)
        return search.result(stop_within=stop_within)


@dataclass
class _FABRows(Rows):
    classes: Tensor
    k: Tensor


class _FAB:
    """Alg. 1 on an active batch."""

    def __init__(
        self,
        search: MinNormSearch,
        steps: int,
        restarts: int,
        n_targets: int,
        shares: tuple[float, float, float],
        stop_within: bool,
    ) -> None:
        self.search = search
        self.ball = search.ball
        self.steps = steps
        self.restarts = restarts
        self.alpha_max, self.eta, self.beta = shares
        self.stop_within = stop_within
        targets, others = search.state.targets, search.state.frozen.classes - 1
        if targets is None:
            self.classes = strongest_others(
                search.clean, search.state.y, min(n_targets, others) if n_targets else others
            )
        else:
            self.classes = targets[:, None]
        self.together = not n_targets
        self.trials = restarts * (1 if self.together else self.classes.shape[1])

    def init_rows(self, indices: Tensor, trials: Tensor) -> _FABRows:
        state, x, classes = self.search.state, self.search.state.x[indices], self.classes[indices]
        if not self.together:
            classes = classes.gather(1, (trials // self.restarts)[:, None])
        start, again = x.clone(), (trials % self.restarts > 0).nonzero()[:, 0]
        if len(again):
            who = indices[again]
            half = torch.minimum(self.search.distances[who], self.search.radii[who]) / 2
            generators = state.generators(who, trials[again], "fab")
            start[again] = self.ball.with_eps(half).sample_sphere(x[again], generators)
        target, k = state.target(indices), torch.zeros_like(indices)
        return _FABRows(indices, trials, x, start, state.y[indices], target, classes, k)

    def step(self, rows: _FABRows) -> Tensor:
        frozen, ball, x = self.search.state.frozen, self.ball, rows.x
        leaf, logits = frozen.trace(rows.x_adv)
        self.search.keep_best(rows.index, rows.x_adv, logits.detach())
        # The hyperplane pi_s of the nearest class s, linearized at x_i (eq. 7)
        if rows.target is None:
            margin, normal = nearest_boundary(frozen, leaf, logits, rows.y, ball, rows.classes)
        else:
            inside, outside = class_pair(logits, rows.y, rows.target)
            margin, normal = nearest_boundary(frozen, leaf, logits, inside, ball, outside[:, None])

        # Projections of the iterate, x_i + d_i, and of the clean image, x + d_x, onto pi_s within the box (eq. 8)
        d_i = min_norm_step(rows.x_adv, normal, -margin, ball)
        behind = (normal * (rows.x_adv - x)).flatten(1).sum(1)
        d_x = min_norm_step(x, normal, behind - margin, ball)
        # The biased step between the two (eq. 9 and 10)
        sizes = (_norm(ball, d_i), _norm(ball, d_x))
        alpha = batch_view((sizes[0] / (sizes[0] + sizes[1])).clamp_max(self.alpha_max), x)
        x_next = (1 - alpha) * (rows.x_adv + self.eta * d_i) + alpha * (x + self.eta * d_x)
        x_next = ball.keep_mask(x_next.clamp_(*ball.bounds), x)

        # The backward step from an adversarial iterate toward x (eq. 11)
        adversarial = self.search.keep_best(rows.index, x_next, frozen.logits(x_next))
        rows.x_adv = torch.where(batch_view(adversarial, x), x + self.beta * (x_next - x), x_next)
        rows.k = rows.k + 1
        over = rows.k == self.steps
        return over | self.search.within(rows.index) if self.stop_within else over


def _norm(ball: Ball, perturbation: Tensor) -> Tensor:
    return ball.distance(perturbation, torch.zeros_like(perturbation)).clamp_min(1e-8)
