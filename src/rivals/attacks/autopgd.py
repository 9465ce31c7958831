"""APGD: projected gradient ascent that sets its own step (Croce & Hein 2020; in L1, Croce & Hein 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.objectives import runners_up
from rivals.attacks.siege import Model, Shared, Siege, at_least, besiege
from rivals.attacks.standing import Rows, Storm
from rivals.base.balls import L1, Ball
from rivals.base.errors import UserError

_ENOUGH = 0.75  # the share of steps in a window that must have raised the loss
_KEEP = 0.75  # how much of a step is the new one; the rest repeats the step before
_STAGES = ((3.0, 0.3), (2.0, 0.6), (1.0, 1.0))  # in L1: radius in eps, by what share of the steps it ends
_SPARSER = 0.95  # in L1: the best point is sparser if its changes are fewer than this share of those at the last check
_SHRINK, _SMALLEST = (
    1.5,
    10.0,
)  # in L1: steps shrink by this, to this part of the radius; 1 in 1.5 of the changed values step


def apgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 100,
    restarts: int = 1,
    rivals: int = 0,
    clean: Tensor | None = None,
    **shared: Unpack[Shared],
) -> Tensor:
    """Auto-PGD (Croce & Hein 2020): long steps first; halved, from the best point so far, when they stop paying.

    A step goes to ``z = P(x + eta * dual(gradient))`` and on to ``P(x + .75 (z - x) + .25 (x - x_before))``, where
    eta starts at 2 eps. At the ends of windows (of 22, 19, 16, 13, 10, 7, 6, 6 steps if ``steps`` is 100) eta is
    halved, and the best point taken up again, if less than three in four steps of the window raised the loss, or if
    the best loss is what it was at the last check and eta was not halved there. Each image keeps its own eta.

    In L1 (Croce & Hein 2021) the steps are sparse: the number of coordinates and eta follow how sparse the best point
    is, and the ball shrinks from 3 eps to 2 eps to eps after 3 and 6 tenths of the steps.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`~rivals.attacks.frozen.Frozen`.
        x: Images (n, ...) within the ball's bounds.
        y: Labels (n,).
        ball: Where to look. With an eps for each image, one call on repeated images traces a curve against eps.
        steps: How many gradients a trial takes. The last iterate is judged too.
        restarts: How many trials, from different random starts, a point that still stands is due.
        rivals: 0, or how many of the strongest wrong classes of the clean logits are pulled towards in turn, in a trial
            each and for each restart; no more are tried than there are. With ``loss="dlr"`` and 9 this is APGD-T.
            Success is still any wrong class.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        shared: loss, targets, seed, batch_size, stop_when_fooled: see :class:`~rivals.attacks.siege.Shared`. With
            fewer than four classes (three without a target) ``dlr`` is the margin.

    Returns:
        The best iterate of each image: one that fools before one that does not, then the larger loss.

    Raises:
        UserError: bad input, in one line.
    """
    at_least(steps, 1, "steps")
    at_least(restarts, 1, "restarts")
    at_least(rivals, 0, "rivals")
    if rivals and shared.get("targets") is not None:
        raise UserError(
            f"targets name the class to pull towards, so rivals of {rivals} have no use: leave one of them out"
        )
    with besiege(model, x, y, ball, **shared) as siege:
        classes = None
        if siege.stop or rivals or clean is not None:
            logits = siege.look(clean)
            if rivals and len(logits):
                classes = runners_up(logits, siege.y, min(rivals, siege.frozen.classes - 1))
        trials = restarts * (1 if classes is None else classes.shape[1])
        if isinstance(ball, L1):
            sparse = _Sparse(siege, ball, steps, classes)
            siege.storm(Storm(sparse.begin, sparse.advance, trials))
        else:
            dense = _Dense(siege, ball, steps, classes)
            siege.storm(Storm(dense.begin, dense.advance, trials))
        return siege.best


def windows(steps: int) -> list[int]:
    """For each count of steps taken, from 0 to ``steps``: the length of the window that ends there, or 0."""
    window, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    ends, end = [0] * (steps + 1), window
    while end <= steps:
        ends[end] = window
        window = max(window - less, least)
        end += window
    return ends


@dataclass
class _Searching(Rows):
    """What both searches remember; ``best_value`` is that of ``best``, the top of the trial (of the stage, in L1)."""

    eps: Tensor
    taken: Tensor
    length: Tensor
    best: Tensor
    best_gradient: Tensor
    best_value: Tensor

    def remember(self, values: Tensor, gradient: Tensor) -> None:
        better = values > self.best_value
        self.best = torch.where(_column(better, self.x), self.x_adv, self.best)
        self.best_gradient = torch.where(_column(better, self.x), gradient, self.best_gradient)
        self.best_value = torch.where(better, values, self.best_value)


@dataclass
class _DenseRows(_Searching):
    before: Tensor
    value_before: Tensor
    rises: Tensor
    halved: Tensor
    checked: Tensor


class _Dense:
    """The search in Linf and L2."""

    def __init__(self, siege: Siege, ball: Ball, steps: int, classes: Tensor | None) -> None:
        self.siege = siege
        self.ball = ball
        self.radii = ball.radii(siege.x)
        self.steps = steps
        self.classes = classes
        self.windows = torch.tensor(windows(steps), device=siege.x.device)

    def begin(self, points: Tensor, trials: Tensor) -> _DenseRows:
        siege, x, eps = self.siege, self.siege.x[points], self.radii[points]
        start = self.ball.sized(eps).edge(x, siege.generators(points, trials, "apgd"))
        low = torch.full_like(eps, -torch.inf)
        return _DenseRows(
            *(points, trials, x, start, siege.y[points], _goal(siege, self.classes, points, trials)),
            eps=eps,
            taken=torch.zeros_like(points),
            length=2 * eps,
            best=start,
            best_gradient=start,
            best_value=low,
            before=start,
            value_before=-low,
            rises=torch.zeros_like(points),
            halved=torch.ones_like(points, dtype=torch.bool),
            checked=low,
        )

    def advance(self, rows: _DenseRows) -> Tensor:
        leaf, logits, values = self.siege.climb(rows)
        fools = self.siege.offer(rows.point, rows.x_adv, logits)
        over = (rows.taken == self.steps) | (fools & self.siege.stop)
        if bool(over.all()):  # the last gradient would go unused
            return over
        gradient, values = self.siege.frozen.gradient(values, leaf), values.detach()
        rows.remember(values, gradient)
        rows.rises = rows.rises + (values > rows.value_before)
        rows.value_before = values
        rows.checked = torch.where(rows.taken == 0, values, rows.checked)

        window = self.windows[rows.taken]
        stuck = (rows.rises <= _ENOUGH * window) | (~rows.halved & (rows.best_value <= rows.checked))
        due = window > 0
        rows.halved = torch.where(due, stuck, rows.halved)
        rows.checked = torch.where(due, rows.best_value, rows.checked)
        rows.rises = rows.rises.masked_fill(due, 0)
        back = due & stuck
        rows.length = torch.where(back, rows.length / 2, rows.length)
        here = torch.where(_column(back, leaf), rows.best, rows.x_adv)
        gradient = torch.where(_column(back, leaf), rows.best_gradient, gradient)

        ball = self.ball.sized(rows.eps)
        aim = ball.project(here + _column(rows.length, leaf) * ball.dual(gradient), rows.x)
        keep = _column(torch.where(rows.taken == 0, 1.0, _KEEP).to(leaf.dtype), leaf)
        rows.x_adv = ball.project(here + keep * (aim - here) + (1 - keep) * (here - rows.before), rows.x)
        rows.before = here
        rows.taken = rows.taken + 1
        return over


@dataclass
class _SparseRows(_Searching):
    stage: Tensor
    support: Tensor


class _Sparse:
    """The search in L1."""

    def __init__(self, siege: Siege, ball: L1, steps: int, classes: Tensor | None) -> None:
        self.siege = siege
        self.ball = ball
        self.radii = ball.radii(siege.x)
        self.classes = classes
        ends = [round(share * steps) for _, share in _STAGES]
        lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        self.lengths = torch.tensor(lengths, device=siege.x.device)
        self.periods = (self.lengths * 4 // 100).clamp_min(1)
        self.factors = torch.tensor([factor for factor, _ in _STAGES], dtype=siege.x.dtype, device=siege.x.device)

    def begin(self, points: Tensor, trials: Tensor) -> _SparseRows:
        siege, x, eps = self.siege, self.siege.x[points], self.radii[points]
        radius = self.factors[0] * eps
        start = self.ball.sized(radius).edge(x, siege.generators(points, trials, "apgd"))
        return _SparseRows(
            *(points, trials, x, start, siege.y[points], _goal(siege, self.classes, points, trials)),
            eps=eps,
            taken=torch.zeros_like(points),
            length=radius,
            best=start,
            best_gradient=start,
            best_value=torch.full_like(eps, -torch.inf),
            stage=torch.zeros_like(points),
            support=_support(start, x),
        )

    def advance(self, rows: _SparseRows) -> Tensor:
        leaf, logits, values = self.siege.climb(rows)
        last = rows.stage == len(_STAGES) - 1  # before, the iterates lie outside the ball
        fools = torch.zeros_like(last)
        fools[last] = self.siege.offer(rows.point[last], rows.x_adv[last], logits[last])
        ending = rows.taken == self.lengths[rows.stage]
        over = (ending & last) | (fools & self.siege.stop)
        if bool(over.all()):  # the last gradient would go unused
            return over
        gradient, values = self.siege.frozen.gradient(values, leaf), values.detach()
        rows.remember(values, gradient)

        radius = self.factors[rows.stage] * rows.eps
        due = (rows.taken > 0) & (rows.taken % self.periods[rows.stage] == 0)
        support = _support(rows.best, rows.x)
        back = due & (support < _SPARSER * rows.support)
        shorter = torch.maximum(rows.length / _SHRINK, radius / _SMALLEST)
        rows.length = torch.where(back, radius, torch.where(due, shorter, rows.length))
        rows.support = torch.where(due, support, rows.support)
        here = torch.where(_column(back, leaf), rows.best, rows.x_adv)
        gradient = torch.where(_column(back, leaf), rows.best_gradient, gradient)

        step = _column(rows.length, leaf) * self.ball.dual(gradient, count=rows.support / _SHRINK)
        # A stage ends by projecting the best point to the smaller ball; there everything begins anew.
        ending = ending & ~last
        rows.stage = rows.stage + ending
        radius = self.factors[rows.stage] * rows.eps
        rows.x_adv = self.ball.sized(radius).project(torch.where(_column(ending, leaf), rows.best, here + step), rows.x)
        rows.taken = torch.where(ending, 0, rows.taken + 1)
        rows.length = torch.where(ending, radius, rows.length)
        rows.support = torch.where(ending, _support(rows.x_adv, rows.x), rows.support)
        rows.best_value = rows.best_value.masked_fill(ending, -torch.inf)
        return over


def _goal(siege: Siege, classes: Tensor | None, points: Tensor, trials: Tensor) -> Tensor | None:
    """The class each point is pulled towards: asked for, or by turns one of its strongest wrong ones."""
    return siege.goal(points) if classes is None else classes[points, trials % classes.shape[1]]


def _support(x_adv: Tensor, x: Tensor) -> Tensor:
    """How many values of each image differ."""
    return (x_adv != x).flatten(1).sum(1).to(x.dtype)


def _column(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.ndim - 1))
