"""DeepFool: cross the nearest linearized boundary until misclassified (Moosavi-Dezfooli et al. 2016, Alg. 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.active_batch import Rows
from rivals.attacks.attack_losses import strongest_others
from rivals.attacks.attack_state import Model, check_at_least, check_norm
from rivals.attacks.linear_boundary import min_norm_step, nearest_boundary
from rivals.attacks.min_norm import MinNormOptions, MinNormSearch, min_norm_search
from rivals.base.errors import UserError
from rivals.base.norm_balls import L1, L2, Ball, Linf


def deepfool(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 50,
    overshoot: float = 0.02,
    classes: int = 10,
    **options: Unpack[MinNormOptions],
) -> Tensor:
    """DeepFool (Moosavi-Dezfooli et al. 2016, Alg. 2): a near adversarial example in a few steps; in Linf, L2 or L1.

    Each step linearizes the model and moves to the nearest of the boundaries to other classes, and a little beyond,
    until the image is misclassified. Here the step has minimum norm *within the box* (exactly; clipping would fall
    short), and the result is refined, see :mod:`rivals.attacks.min_norm`.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: Its norm, its bounds and, by its eps, how far an adversarial example may be to count.
        steps: The most steps; few are needed as a rule.
        overshoot: By what share a step goes beyond the linearized boundary.
        classes: How many classes with the largest clean logits, the label among them, are considered: a backward pass
            for each but the label in every step.
        options: See :class:`MinNormOptions`. There is no targeted DeepFool.

    Returns:
        For each image a near adversarial example, refined, if it lies within eps; else the image. Misclassified images
        are returned as they are.

    Raises:
        UserError: bad input, in one line.
    """
    check_norm(ball, "deepfool", (Linf, L2, L1))
    check_at_least(steps, 1, "steps")
    check_at_least(overshoot, 0, "an overshoot")
    check_at_least(classes, 2, "classes")
    if options.get("targets") is not None:
        raise UserError("deepfool has no targeted form: leave targets out, or take fab, ddn, fmn or carlini_wagner")
    with min_norm_search(model, x, y, ball, **options) as search:
        if len(search.clean):
            others = strongest_others(search.clean, search.state.y, min(classes, search.state.frozen.classes) - 1)
            attack = _DeepFool(search, others, steps, overshoot)
            search.run(attack.init_rows, attack.step)
        return search.result()


@dataclass
class _DeepFoolRows(Rows):
    classes: Tensor
    k: Tensor


class _DeepFool:
    """Alg. 2 on an active batch."""

    def __init__(self, search: MinNormSearch, classes: Tensor, steps: int, overshoot: float) -> None:
        self.search = search
        self.classes = classes
        self.steps = steps
        self.overshoot = overshoot

    def init_rows(self, indices: Tensor, trials: Tensor) -> _DeepFoolRows:
        x, y = self.search.state.x[indices], self.search.state.y[indices]
        return _DeepFoolRows(indices, trials, x, x, y, None, self.classes[indices], torch.zeros_like(indices))

    def step(self, rows: _DeepFoolRows) -> Tensor:
        ball, frozen = self.search.ball, self.search.state.frozen
        leaf, logits = frozen.trace(rows.x_adv)
        over = self.search.keep_best(rows.index, rows.x_adv, logits.detach()) | (rows.k == self.steps)
        if bool(over.all()):  # the last gradients would go unused
            return over
        f_k, w_k = nearest_boundary(frozen, leaf, logits, rows.y, ball, rows.classes)
        # Alg. 2, lines 8 to 11: the nearest hyperplane k, and the minimum-norm step r_i to it
        r = min_norm_step(rows.x_adv, w_k, -f_k * (1 + self.overshoot), ball)
        rows.x_adv = (rows.x_adv + r).clamp_(*ball.bounds)
        rows.k = rows.k + 1
        return over
