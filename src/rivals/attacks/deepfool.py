"""DeepFool: from one linear model of the boundary to the next, until it is crossed (Moosavi-Dezfooli et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.hunt import Hunt, Hunting, hunt
from rivals.attacks.hyperplane import facets, reach
from rivals.attacks.objectives import runners_up
from rivals.attacks.siege import Model, at_least
from rivals.attacks.standing import Rows
from rivals.base.balls import Ball
from rivals.base.errors import UserError


def deepfool(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 50,
    overshoot: float = 0.02,
    classes: int = 10,
    **hunting: Unpack[Hunting],
) -> Tensor:
    """DeepFool (Moosavi-Dezfooli et al. 2016, alg. 2): a near point that fools, in a few steps; in Linf, L2 or L1.

    Each step makes the model linear and goes to the nearest of the boundaries to other classes, and a little beyond,
    until the model is fooled. Here the way is the shortest *within the box* (exactly; clipping falls short), and the
    end is drawn back to the boundary, see :mod:`rivals.attacks.hunt`.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`~rivals.attacks.frozen.Frozen`.
        x: Images (n, ...) within the ball's bounds.
        y: Labels (n,).
        ball: Names the norm and the bounds; its eps, a number or one for each image, is how far a point may lie to
            count.
        steps: The most steps; few are needed as a rule.
        overshoot: By what share a step goes beyond the boundary of the linear model.
        classes: Among how many of the strongest classes of the clean logits, the label with them, the nearest boundary
            is looked for: a backward pass each but the label's, in every step.
        hunting: seed, batch_size, clean, slides: see :class:`~rivals.attacks.hunt.Hunting`. There is no targeted
            DeepFool.

    Returns:
        For each image a near point that fools, if it lies within eps; else the image. Images that are misclassified
        already come back as they are.

    Raises:
        UserError: bad input, in one line.
    """
    at_least(steps, 1, "steps")
    at_least(overshoot, 0, "an overshoot")
    at_least(classes, 2, "classes")
    if hunting.get("targets") is not None:
        raise UserError("deepfool has no targeted form: leave targets out, or take fab, ddn, fmn or carlini_wagner")
    with hunt(model, x, y, ball, **hunting) as found:
        if len(found.clean):
            others = runners_up(found.clean, found.siege.y, min(classes, found.siege.frozen.classes) - 1)
            hops = _Hops(found, others, steps, overshoot)
            found.storm(hops.begin, hops.advance)
        return found.result()


@dataclass
class _Hopping(Rows):
    classes: Tensor
    taken: Tensor


class _Hops:
    """The loop of DeepFool, one step at a time."""

    def __init__(self, found: Hunt, classes: Tensor, steps: int, overshoot: float) -> None:
        self.found = found
        self.classes = classes
        self.steps = steps
        self.overshoot = overshoot

    def begin(self, points: Tensor, trials: Tensor) -> _Hopping:
        x, y = self.found.siege.x[points], self.found.siege.y[points]
        return _Hopping(points, trials, x, x, y, None, self.classes[points], torch.zeros_like(points))

    def advance(self, rows: _Hopping) -> Tensor:
        ball, frozen = self.found.ball, self.found.siege.frozen
        leaf, logits = frozen.trace(rows.x_adv)
        over = self.found.offer(rows.point, rows.x_adv, logits.detach()) | (rows.taken == self.steps)
        if bool(over.all()):  # the last gradients would go unused
            return over
        lead, normal = facets(frozen, leaf, logits, rows.y, ball, rows.classes)
        hop = reach(rows.x_adv, normal, -lead * (1 + self.overshoot), ball)
        rows.x_adv = (rows.x_adv + hop).clamp_(*ball.bounds)
        rows.taken = rows.taken + 1
        return over
