"""The attack of Carlini & Wagner (2017) in L2: distance and margin in one objective, minimised without walls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.hunt import Hunt, Hunting, hunt
from rivals.attacks.hyperplane import clearance
from rivals.attacks.siege import Model, at_least
from rivals.attacks.standing import Rows
from rivals.base.balls import L2, Ball
from rivals.base.errors import UserError

_INSIDE = 0.99  # walls are drawn in to this: no finite w reaches them, and near them tanh hardly moves
_FADE, _FADE_SQUARE, _FLOOR = 0.9, 0.999, 1e-8  # Adam's


def carlini_wagner(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 100,
    searches: int = 6,
    step: float = 0.1,
    weight: float = 1.0,
    **hunting: Unpack[Hunting],
) -> Tensor:
    """Carlini & Wagner (2017, sec. V-A and VI-A): the nearest point that fools, in L2.

    With images written as ``(1 + tanh w) / 2`` (for bounds of 0 and 1), Adam minimises
    ``|x_adv - x|^2 + c * max(z_y - max_{i != y} z_i, 0)`` by w (with a target t, ``max_{i != t} z_i - z_t``). The
    weight c is searched for: after each search it is raised tenfold if no weight has fooled yet, or else goes half way
    between the largest that failed and the smallest that fooled. A search ends early where it has stopped to gain.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`~rivals.attacks.frozen.Frozen`.
        x: Images (n, ...) within the ball's bounds.
        y: Labels (n,).
        ball: ``L2``: its bounds, and how far a point may lie to count, by its eps, a number or one for each image.
        steps: The most gradients in each search.
        searches: How many weights are tried.
        step: Adam's step. With the published 0.01, and images that begin at 0.999999 of the way to the walls, values at
            a wall do not come loose in some hundred steps: the black of a digit's image stays black.
        weight: The first c. The published attack takes 1e-3, 9 searches and 1000 steps.
        hunting: targets, seed, batch_size, clean, slides: see :class:`~rivals.attacks.hunt.Hunting`.

    Returns:
        For each image the nearest point found that fools, drawn to the boundary (see :mod:`rivals.attacks.hunt`), if it
        lies within eps; else the image. Images that are misclassified already come back as they are.

    Raises:
        UserError: bad input, in one line.
    """
    if isinstance(ball, Ball) and not isinstance(ball, L2):
        raise UserError(
            f"carlini_wagner is an attack in L2, the ball is {ball}: take one in L2 (--norm l2), or fmn or fab"
        )
    at_least(steps, 1, "steps")
    at_least(searches, 1, "searches")
    if not (step > 0 and weight > 0):
        name, value = ("step", step) if not step > 0 else ("weight", weight)
        raise UserError(f"a {name} of {value:g} leads nowhere: take one above 0")
    with hunt(model, x, y, ball, **hunting) as found:
        descent = _Descent(found, steps, searches, step, weight)
        found.storm(descent.begin, descent.advance)
        return found.result()


@dataclass
class _Descending(Rows):
    """``weight`` lies between ``low``, the largest that failed, and ``high``, the smallest that fooled."""

    w: Tensor
    mean: Tensor
    square: Tensor
    weight: Tensor
    low: Tensor
    high: Tensor
    fooled: Tensor
    before: Tensor
    taken: Tensor
    search: Tensor


class _Descent:
    """Adam and the search for the weight, one step at a time."""

    def __init__(self, found: Hunt, steps: int, searches: int, step: float, weight: float) -> None:
        self.found = found
        self.steps = steps
        self.searches = searches
        self.step = step
        self.weight = weight
        self.period = max(steps // 10, 1)
        low, high = found.ball.bounds
        self.middle, self.half = (low + high) / 2, (high - low) / 2

    def begin(self, points: Tensor, trials: Tensor) -> _Descending:
        siege, x, one = self.found.siege, self.found.siege.x[points], torch.ones_like(self.found.radii[points])
        zeros, count = torch.zeros_like(x), torch.zeros_like(points)
        return _Descending(
            *(points, trials, x, x, siege.y[points], siege.goal(points)),
            w=self._free(x),
            mean=zeros,
            square=zeros,
            weight=one * self.weight,
            low=0 * one,
            high=one * torch.inf,
            fooled=torch.zeros_like(points, dtype=torch.bool),
            before=torch.full_like(one, torch.inf),
            taken=count,
            search=count,
        )

    def advance(self, rows: _Descending) -> Tensor:
        siege, x = self.found.siege, rows.x
        curve = rows.w.tanh()
        rows.x_adv = (self.middle + self.half * curve).clamp_(*self.found.ball.bounds)
        leaf, logits, margins = siege.climb(rows)
        rows.fooled = rows.fooled | self.found.offer(rows.point, rows.x_adv, logits)
        short = (clearance(logits) - margins.detach()).clamp_min(0)
        loss = (rows.x_adv - x).square().flatten(1).sum(1) + rows.weight * short
        check = (rows.taken % self.period == 0) & (rows.taken > 0)
        idle = check & (loss > 0.9999 * rows.before)
        rows.before = torch.where(check | (rows.taken == 0), loss, rows.before)
        ending = idle | (rows.taken == self.steps)
        over = ending & (rows.search + 1 == self.searches)
        if bool(over.all()):  # the last gradient would go unused
            return over

        pull = _column(rows.weight * short.sign(), x) * siege.frozen.gradient(margins, leaf)
        slope = (2 * (rows.x_adv - x) - pull) * self.half * (1 - curve.square())
        rows.taken = rows.taken + 1
        rows.mean = _FADE * rows.mean + (1 - _FADE) * slope
        rows.square = _FADE_SQUARE * rows.square + (1 - _FADE_SQUARE) * slope.square()
        mean = rows.mean / _column(1 - _FADE**rows.taken, x)
        square = rows.square / _column(1 - _FADE_SQUARE**rows.taken, x)
        rows.w = rows.w - self.step * mean / (square.sqrt() + _FLOOR)
        if bool(ending.any()):
            self._search_on(rows, ending)
        return over

    def _search_on(self, rows: _Descending, ending: Tensor) -> None:
        """Begin the next search where one has ended."""
        rows.high = torch.where(ending & rows.fooled, torch.minimum(rows.high, rows.weight), rows.high)
        rows.low = torch.where(ending & ~rows.fooled, torch.maximum(rows.low, rows.weight), rows.low)
        between = torch.where(rows.high.isfinite(), (rows.low + rows.high) / 2, rows.weight * 10)
        rows.weight = torch.where(ending, between, rows.weight)
        again = _column(ending, rows.x)
        rows.w = torch.where(again, self._free(rows.x), rows.w)
        rows.mean, rows.square = rows.mean.masked_fill(again, 0), rows.square.masked_fill(again, 0)
        rows.taken, rows.fooled = rows.taken.masked_fill(ending, 0), rows.fooled & ~ending
        rows.before = rows.before.masked_fill(ending, torch.inf)
        rows.search = rows.search + ending

    def _free(self, x: Tensor) -> Tensor:
        return ((x - self.middle) / self.half * _INSIDE).atanh()


def _column(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.ndim - 1))
