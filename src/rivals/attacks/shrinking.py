"""Attacks that climb on a sphere or in a ball whose radius shrinks while the model is fooled and grows while it is not:
DDN (Rony et al. 2019) and FMN (Pintor et al. 2021)."""

from __future__ import annotations

import math
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

_BEYOND = (
    1.001  # where FMN's first radius ends, in shares of the way to the boundary made linear: on it, rounding rules
)


def ddn(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 100,
    radius: float = 1.0,
    gamma: float = 0.05,
    **hunting: Unpack[Hunting],
) -> Tensor:
    """Decoupled direction and norm (Rony et al. 2019, alg. 1): the nearest point that fools, in L2.

    The change takes a step along the gradient of the cross-entropy, of a length that falls from 1 to 0.01 along half a
    cosine, and is then scaled to a norm, which is cut by ``gamma`` if the point before fooled, and else raised by it.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`~rivals.attacks.frozen.Frozen`.
        x: Images (n, ...) within the ball's bounds.
        y: Labels (n,).
        ball: ``L2``: its bounds, and how far a point may lie to count, by its eps, a number or one for each image.
        steps: How many gradients are taken. The last iterate is judged too.
        radius: The first norm.
        gamma: By what share the norm changes in each step, below 1.
        hunting: targets, seed, batch_size, clean, slides: see :class:`~rivals.attacks.hunt.Hunting`.

    Returns:
        For each image the nearest point found that fools, drawn to the boundary (see :mod:`rivals.attacks.hunt`), if it
        lies within eps; else the image. Images that are misclassified already come back as they are.

    Raises:
        UserError: bad input, in one line.
    """
    if isinstance(ball, Ball) and not isinstance(ball, L2):
        raise UserError(f"ddn is an attack in L2, the ball is {ball}: take one in L2 (--norm l2), or fmn or fab")
    at_least(steps, 1, "steps")
    at_least(radius, 0, "a radius")
    _share(gamma)
    with hunt(model, x, y, ball, loss="ce", **hunting) as found:
        search = _OnSphere(found, steps, radius, gamma)
        found.storm(search.begin, search.advance)
        return found.result()


def fmn(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 100,
    step: float = 1.0,
    gamma: float = 0.05,
    **hunting: Unpack[Hunting],
) -> Tensor:
    """Fast minimum-norm attack (Pintor et al. 2021, alg. 1): the nearest point that fools, in Linf, L2 or L1.

    The change takes a step along the gradient of the margin and is projected to a ball (and, here, box: exactly). Until
    a point fools, the ball reaches to where the margin, made linear, is 0. From then on its radius is cut by a share if
    the point before fooled, but to no more than the best distance, and else raised by it. The share falls from
    ``gamma`` to 0 and the length of a step from ``step`` to a hundredth of it along half a cosine.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`~rivals.attacks.frozen.Frozen`.
        x: Images (n, ...) within the ball's bounds.
        y: Labels (n,).
        ball: Names the norm and the bounds; its eps, a number or one for each image, is how far a point may lie to
            count.
        steps: How many gradients are taken. The last iterate is judged too.
        step: The Euclidean length of the first step, whatever the norm.
        gamma: By what share the radius changes at first, below 1.
        hunting: targets, seed, batch_size, clean, slides: see :class:`~rivals.attacks.hunt.Hunting`.

    Returns:
        For each image the nearest point found that fools, drawn to the boundary (see :mod:`rivals.attacks.hunt`), if it
        lies within eps; else the image. Images that are misclassified already come back as they are.

    Raises:
        UserError: bad input, in one line.
    """
    at_least(steps, 1, "steps")
    at_least(step, 0, "a step")
    _share(gamma)
    with hunt(model, x, y, ball, **hunting) as found:
        search = _InBall(found, steps, step, gamma)
        found.storm(search.begin, search.advance)
        return found.result()


@dataclass
class _Shrinking(Rows):
    radius: Tensor
    taken: Tensor


class _OnSphere:
    """The loop of DDN, one step at a time."""

    def __init__(self, found: Hunt, steps: int, radius: float, gamma: float) -> None:
        self.found = found
        self.steps = steps
        self.radius = radius
        self.gamma = gamma
        self.lengths = _falling(1.0, 0.01, steps, found.siege.x)

    def begin(self, points: Tensor, trials: Tensor) -> _Shrinking:
        return _begin(self.found, points, trials, self.radius)

    def advance(self, rows: _Shrinking) -> Tensor:
        found, ball = self.found, self.found.ball
        leaf, logits, values = found.siege.climb(rows)
        fools, over = found.offer(rows.point, rows.x_adv, logits), rows.taken == self.steps
        if bool(over.all()):  # the last gradient would go unused
            return over
        uphill = L2(0.0).dual(found.siege.frozen.gradient(values, leaf))
        change = rows.x_adv - rows.x + _column(self.lengths[rows.taken], leaf) * uphill
        rows.radius = rows.radius * torch.where(fools, 1 - self.gamma, 1 + self.gamma)
        size, limits = ball.distance(change, torch.zeros_like(change)), torch.finfo(change.dtype)
        scale = (rows.radius / size.clamp_min(limits.tiny)).clamp_max(limits.max)  # finite, so that 0 times it is 0
        rows.x_adv = (rows.x + _column(scale, leaf) * change).clamp_(*ball.bounds)
        rows.taken = rows.taken + 1
        return over


class _InBall:
    """The loop of FMN, one step at a time."""

    def __init__(self, found: Hunt, steps: int, step: float, gamma: float) -> None:
        self.found = found
        self.steps = steps
        self.dual = {1.0: math.inf, 2.0: 2.0}.get(found.ball.p, 1.0)
        self.lengths = _falling(step, step / 100, steps, found.siege.x)
        self.shares = _falling(gamma, 0.0, steps, found.siege.x)

    def begin(self, points: Tensor, trials: Tensor) -> _Shrinking:
        return _begin(self.found, points, trials, 0.0)

    def advance(self, rows: _Shrinking) -> Tensor:
        found, ball = self.found, self.found.ball
        leaf, logits, values = found.siege.climb(rows)
        fools, over = found.offer(rows.point, rows.x_adv, logits), rows.taken == self.steps
        if bool(over.all()):  # the last gradient would go unused
            return over
        gradient, values = found.siege.frozen.gradient(values, leaf), values.detach() - clearance(logits)
        steepness = torch.linalg.vector_norm(gradient.flatten(1), self.dual, dim=1)
        best, share = found.distances[rows.point], self.shares[rows.taken]
        linear = ball.distance(rows.x_adv, rows.x) - values / steepness.clamp_min(torch.finfo(values.dtype).tiny)
        linear = (linear * _BEYOND).clamp_max(_widest(ball, leaf))
        raised = torch.where(best.isinf(), linear, rows.radius * (1 + share))
        rows.radius = torch.where(fools, torch.minimum(rows.radius * (1 - share), best), raised)
        aim = rows.x_adv + _column(self.lengths[rows.taken], leaf) * L2(0.0).dual(gradient)
        rows.x_adv = ball.sized(rows.radius).project(aim, rows.x)
        rows.taken = rows.taken + 1
        return over


def _begin(found: Hunt, points: Tensor, trials: Tensor, radius: float) -> _Shrinking:
    siege, x = found.siege, found.siege.x[points]
    radii, goal = torch.full_like(found.radii[points], radius), siege.goal(points)
    return _Shrinking(points, trials, x, x, siege.y[points], goal, radii, torch.zeros_like(points))


def _falling(start: float, end: float, steps: int, x: Tensor) -> Tensor:
    """From ``start`` to ``end`` along half a cosine: one entry for each step, and one for the look at the last."""
    shares = [(1 + math.cos(math.pi * taken / max(steps - 1, 1))) / 2 for taken in range(steps)]
    return torch.tensor([end + (start - end) * share for share in [*shares, 0.0]], dtype=x.dtype, device=x.device)


def _widest(ball: Ball, x: Tensor) -> float:
    """The norm of a change from one corner of the box to the other."""
    low, high = ball.bounds
    return float((high - low) * math.prod(x.shape[1:]) ** (1 / ball.p))


def _share(gamma: float) -> None:
    if not 0 <= gamma < 1:
        raise UserError(f"a gamma of {gamma:g} is no share of the radius: take 0 or more, below 1")


def _column(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.ndim - 1))
