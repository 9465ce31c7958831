"""FAB: a walk along the boundary, drawn towards the original (Croce & Hein 2020, "Minimally distorted adversarial
examples with a fast adaptive boundary attack")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.hunt import Hunt, Hunting, hunt
from rivals.attacks.hyperplane import facets, reach, sides
from rivals.attacks.objectives import runners_up
from rivals.attacks.siege import Model, at_least
from rivals.attacks.standing import Rows
from rivals.base.balls import Ball
from rivals.base.errors import UserError


def fab(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 100,
    restarts: int = 1,
    rivals: int = 0,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    stop_within: bool = False,
    **hunting: Unpack[Hunting],
) -> Tensor:
    """Fast adaptive boundary attack (Croce & Hein 2020): the nearest point that fools, in Linf, L2 or L1.

    Each step takes the boundary to the nearest other class as the plane it is to first order, projects both the iterate
    and the original onto that plane within the box (exactly), and goes to a mean of the two, a little beyond the plane:
    ``(1 - a) (x_i + eta d_i) + a (x + eta d_x)`` with ``a = min(|d_i| / (|d_i| + |d_x|), alpha_max)``. A
    point that fools is kept if it is nearer than the best, and the iterate goes back to ``x + beta (x_i - x)``. In the
    end the best is drawn to the boundary, see :mod:`rivals.attacks.hunt`.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`~rivals.attacks.frozen.Frozen`.
        x: Images (n, ...) within the ball's bounds.
        y: Labels (n,).
        ball: Names the norm and the bounds; its eps, a number or one for each image, is how far a point may lie to
            count.
        steps: How many gradients a trial takes.
        restarts: How many trials: the first from ``x``, others from random points half as far as the best, or as eps.
        rivals: 0: all other classes are looked at in every step, for K - 1 backward passes. Else, how many of the
            strongest wrong classes of the clean logits are walked towards in turn, in a trial each, for one backward
            pass a step; no more than there are. With 9 this is FAB-T of AutoAttack. Any wrong class is success.
        alpha_max: How much the original may pull at most, from 0 to 1.
        eta: How far beyond the plane a step goes; 1 ends on it.
        beta: What part of the way from the original an iterate that fools keeps, from 0 to 1.
        stop_within: Leave a point alone once one within eps is found, as a part of an ensemble needs no more.
        hunting: targets, seed, batch_size, clean, slides: see :class:`~rivals.attacks.hunt.Hunting`.

    Returns:
        For each image the nearest point found that fools, if it lies within eps; else the image. Images that are
        misclassified already come back as they are.

    Raises:
        UserError: bad input, in one line.
    """
    at_least(steps, 1, "steps")
    at_least(restarts, 1, "restarts")
    at_least(rivals, 0, "rivals")
    at_least(eta, 1, "an eta")
    for name, share in (("alpha_max", alpha_max), ("beta", beta)):
        if not 0 <= share <= 1:
            raise UserError(f"{name} of {share:g} is no share: take 0 to 1")
    if rivals and hunting.get("targets") is not None:
        raise UserError(f"targets name the class to walk to, so rivals of {rivals} have no use: leave one of them out")
    with hunt(model, x, y, ball, **hunting) as found:
        if len(found.clean):
            walk = _Walk(found, steps, restarts, rivals, (alpha_max, eta, beta), stop_within)
            found.storm(walk.begin, walk.advance, walk.trials, stop_within=stop_within)
        return found.result(stop_within=stop_within)


@dataclass
class _Walking(Rows):
    classes: Tensor
    taken: Tensor


class _Walk:
    """The loop of FAB, one step at a time."""

    def __init__(
        self,
        found: Hunt,
        steps: int,
        restarts: int,
        rivals: int,
        shares: tuple[float, float, float],
        stop_within: bool,
    ) -> None:
        self.found = found
        self.ball = found.ball
        self.steps = steps
        self.restarts = restarts
        self.alpha_max, self.eta, self.beta = shares
        self.stop_within = stop_within
        goals, others = found.siege.goals, found.siege.frozen.classes - 1
        if goals is None:
            self.classes = runners_up(found.clean, found.siege.y, min(rivals, others) if rivals else others)
        else:
            self.classes = goals[:, None]
        self.together = not rivals
        self.trials = restarts * (1 if self.together else self.classes.shape[1])

    def begin(self, points: Tensor, trials: Tensor) -> _Walking:
        siege, x, classes = self.found.siege, self.found.siege.x[points], self.classes[points]
        if not self.together:
            classes = classes.gather(1, (trials // self.restarts)[:, None])
        start, again = x.clone(), (trials % self.restarts > 0).nonzero()[:, 0]
        if len(again):
            who = points[again]
            half = torch.minimum(self.found.distances[who], self.found.radii[who]) / 2
            generators = siege.generators(who, trials[again], "fab")
            start[again] = self.ball.sized(half).edge(x[again], generators)
        goal, taken = siege.goal(points), torch.zeros_like(points)
        return _Walking(points, trials, x, start, siege.y[points], goal, classes, taken)

    def advance(self, rows: _Walking) -> Tensor:
        frozen, ball, x = self.found.siege.frozen, self.ball, rows.x
        leaf, logits = frozen.trace(rows.x_adv)
        self.found.offer(rows.point, rows.x_adv, logits.detach())
        if rows.goal is None:
            lead, normal = facets(frozen, leaf, logits, rows.y, ball, rows.classes)
        else:
            inside, outside = sides(logits, rows.y, rows.goal)
            lead, normal = facets(frozen, leaf, logits, inside, ball, outside[:, None])

        here = reach(rows.x_adv, normal, -lead, ball)
        behind = (normal * (rows.x_adv - x)).flatten(1).sum(1)
        home = reach(x, normal, behind - lead, ball)
        sizes = (_norm(ball, here), _norm(ball, home))
        pull = _column((sizes[0] / (sizes[0] + sizes[1])).clamp_max(self.alpha_max), x)
        aim = (1 - pull) * (rows.x_adv + self.eta * here) + pull * (x + self.eta * home)
        aim = aim.clamp_(*ball.bounds)

        fools = self.found.offer(rows.point, aim, frozen.logits(aim))
        rows.x_adv = torch.where(_column(fools, x), x + self.beta * (aim - x), aim)
        rows.taken = rows.taken + 1
        over = rows.taken == self.steps
        return over | self.found.within(rows.point) if self.stop_within else over


def _norm(ball: Ball, change: Tensor) -> Tensor:
    return ball.distance(change, torch.zeros_like(change)).clamp_min(1e-8)


def _column(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.ndim - 1))
