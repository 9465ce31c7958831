"""What the minimum-norm attacks share: the nearest point that fools so far, and the last stretch to the boundary.

All end alike. The best point is drawn along the straight way to the original up to the boundary; then it slides along
the boundary, made linear there, towards the original, and is drawn to the boundary again. What an attack leaves over
for its step lengths, overshoots or constants is so taken off; on a linear model the result is exact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypedDict, TypeVar

import torch
from torch import Tensor

from rivals.attacks.hyperplane import facets, reach
from rivals.attacks.objectives import margin, runners_up
from rivals.attacks.siege import Model, Siege, besiege
from rivals.attacks.standing import Rows, Storm
from rivals.base.balls import Ball

R = TypeVar("R", bound=Rows)

_LOOKS = 10  # the most passes forward in search of the crossing
_CLOSE = 2e-5  # how near, as a share of the way from the original, the last stretch comes to the boundary


class Hunting(TypedDict, total=False):
    """The knobs that every minimum-norm attack has, by keyword.

    Attributes:
        targets: Classes (n,) to be mistaken for. None (default): any wrong class will do.
        seed: Of everything random; 0 if not given. Each image has a stream of its own, as in other attacks.
        batch_size: The most images in one pass, 128 if not given. But for rounding, results do not depend on it.
        clean: The model's logits for ``x``, if they are known: saves a pass.
    """

    targets: Tensor | None
    seed: int
    batch_size: int
    clean: Tensor | None


class Hunt:
    """A search for the nearest points that fool. Made by :func:`hunt`.

    Attributes:
        siege: The model, the points and their labels.
        ball: Names the norm and the bounds, and by its eps how far a point may lie to count in the end.
        radii: That eps for each point (n,).
        clean: The logits (n, K) of the originals.
        best: The nearest found so far (n, ...), however far; the original where there is none.
        distances: How far those are (n,): infinity where there is none, 0 where the original fools.
        leads: By what margin (n,) the best fool; that of the original where there is none.
        drawn: Which of the best have been drawn to the boundary (n,).
    """

    def __init__(self, siege: Siege, ball: Ball, clean: Tensor) -> None:
        self.siege = siege
        self.ball = ball
        self.radii = ball.radii(siege.x)
        self.clean = clean
        self.best = siege.x.clone()
        self.distances = torch.full_like(self.radii, torch.inf).masked_fill(siege.fooled, 0)
        self.drawn = torch.zeros_like(siege.fooled)
        self.leads = torch.zeros_like(self.radii)
        if len(clean):
            self.leads = margin(clean, siege.y, siege.goals).to(self.radii.dtype)

    def offer(self, points: Tensor, x_adv: Tensor, logits: Tensor) -> Tensor:
        """Keep ``x_adv`` where it fools and is nearer than the best so far; return which of it fools (m,).

        Args:
            points: Which points they are (m,), none twice.
            x_adv: Images in the box (m, ...).
            logits: The model's answers to them (m, K).
        """
        fools = self.siege.fools(points, logits)
        far = self.ball.distance(x_adv, self.siege.x[points])
        better = fools & (far < self.distances[points])
        chosen = points[better]
        self.best[chosen] = x_adv.detach()[better]
        self.distances[chosen] = far[better]
        self.drawn[chosen] = False
        if len(chosen):
            leads = margin(logits[better], self.siege.y[chosen], self.siege.goal(chosen))
            self.leads[chosen] = leads.to(self.leads.dtype)
        return fools

    def within(self, points: Tensor) -> Tensor:
        """Which of some points have been found a point that counts."""
        return self.distances[points] <= self.radii[points]

    def storm(
        self,
        begin: Callable[[Tensor, Tensor], R],
        advance: Callable[[R], Tensor],
        trials: int = 1,
        *,
        stop_within: bool = False,
    ) -> None:
        """Run an attack, see :class:`~rivals.attacks.standing.Storm`, on all points that do not fool by themselves."""
        points = (~self.siege.fooled).nonzero()[:, 0]
        never = torch.zeros_like(self.siege.fooled)
        fallen = self.within if stop_within else lambda points: never[points]
        Storm(begin, advance, trials).run(points, self.siege.capacity, fallen)

    def result(self, slides: int = 2, *, stop_within: bool = False) -> Tensor:
        """The nearest points found, drawn to the boundary, where they lie within the ball; else the originals.

        Args:
            slides: How often a point may slide along the boundary; each takes a gradient.
            stop_within: Spare those that lie within the ball already.
        """

        def due() -> Tensor:
            due = (self.distances > 0) & self.distances.isfinite()
            return due & (self.distances > self.radii) if stop_within else due

        def run(begin: Callable[[Tensor, Tensor], R], advance: Callable[[R], Tensor], points: Tensor) -> None:
            Storm(begin, advance).run(points.nonzero()[:, 0], self.siege.capacity, self.within)

        retreat, slide = _Retreat(self), _Slide(self)
        run(retreat.begin, retreat.advance, due())
        moving = self.drawn
        for _ in range(slides):
            run(slide.begin, slide.advance, due() & moving)
            moving = moving & ~self.drawn  # who slid nowhere need not try again
            run(retreat.begin, retreat.advance, due() & moving)
        counts = (self.distances <= self.radii).view(-1, *[1] * (self.best.ndim - 1))
        return torch.where(counts, self.best, self.siege.x)


@dataclass
class _Retreating(Rows):
    """A point that fools at 1, the original at 0: shares of the way, and by how much the point fools there."""

    end: Tensor
    low: Tensor
    high: Tensor
    value_low: Tensor
    value_high: Tensor
    aim: Tensor
    taken: Tensor


class _Retreat:
    """The final search of FAB (Croce & Hein 2020): the crossing on the way from the original to the best.

    By the rule of false position, where the value of an end that stays is halved (as in the Illinois rule), so that
    both ends close in. Each guess is aimed a little beyond the crossing, as seen from the end that moved last.
    """

    def __init__(self, hunt: Hunt) -> None:
        self.hunt = hunt

    def begin(self, points: Tensor, trials: Tensor) -> _Retreating:
        siege, hunt = self.hunt.siege, self.hunt
        x, end, y, goal = siege.x[points], hunt.best[points].clone(), siege.y[points], siege.goal(points)
        zero, one = torch.zeros_like(hunt.radii[points]), torch.ones_like(hunt.radii[points])
        low, high = margin(hunt.clean[points], y, goal).to(zero.dtype), hunt.leads[points]
        return _Retreating(points, trials, x, end, y, goal, end, zero, one, low, high, one, torch.zeros_like(points))

    def advance(self, rows: _Retreating) -> Tensor:
        hunt, width = self.hunt, rows.high - rows.low
        share = rows.value_low / (rows.value_low - rows.value_high).clamp_max(-torch.finfo(width.dtype).tiny)
        nudge = _CLOSE / 2 * rows.high
        at = rows.low + width * share.clamp(0.0, 1.0) + rows.aim * nudge
        at = torch.minimum(torch.maximum(at, rows.low + nudge), rows.high - nudge)
        rows.x_adv = rows.x + at.view(-1, *[1] * (rows.x.ndim - 1)) * (rows.end - rows.x)
        rows.x_adv = rows.x_adv.clamp_(*hunt.ball.bounds)
        logits = hunt.siege.frozen.logits(rows.x_adv)
        fools = hunt.offer(rows.point, rows.x_adv, logits)
        value = margin(logits, rows.y, rows.goal).to(width.dtype)
        rows.value_low = torch.where(fools, rows.value_low / 2, value)
        rows.value_high = torch.where(fools, value, rows.value_high / 2)
        rows.low, rows.high = torch.where(fools, rows.low, at), torch.where(fools, at, rows.high)
        rows.aim = torch.where(fools, -1.0, 1.0).to(width.dtype)
        rows.taken = rows.taken + 1
        over = (rows.taken >= _LOOKS) | (rows.high - rows.low <= _CLOSE * rows.high)
        hunt.drawn[rows.point[over]] = True
        return over


class _Slide:
    """One step of FAB with the original's weight at 1: the nearest point on the boundary, made linear at the best."""

    def __init__(self, hunt: Hunt) -> None:
        self.hunt = hunt

    def begin(self, points: Tensor, trials: Tensor) -> Rows:
        siege = self.hunt.siege
        goal = siege.goal(points)
        return Rows(points, trials, siege.x[points], self.hunt.best[points], siege.y[points], goal)

    def advance(self, rows: Rows) -> Tensor:
        hunt, frozen, ball = self.hunt, self.hunt.siege.frozen, self.hunt.ball
        leaf, logits = frozen.trace(rows.x_adv)
        # With a goal, the boundary is that to the best of all others, not only to the label.
        if rows.goal is None:
            inside, outside = rows.y, runners_up(logits.detach(), rows.y, 1)[:, 0]
        else:
            inside, outside = runners_up(logits.detach(), rows.goal, 1)[:, 0], rows.goal
        lead, normal = facets(frozen, leaf, logits, inside, ball, outside[:, None])
        behind = (normal * (rows.x_adv - rows.x)).flatten(1).sum(1)
        home = reach(rows.x, normal, (behind - lead) * (1 + _CLOSE / 2), ball)
        aim = (rows.x + home).clamp_(*ball.bounds)
        hunt.offer(rows.point, aim, frozen.logits(aim))
        return torch.ones_like(rows.point, dtype=torch.bool)


@contextlib.contextmanager
def hunt(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    loss: str = "margin",
    clean: Tensor | None = None,
    targets: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 128,
) -> Iterator[Hunt]:
    """Check everything, freeze the model, look at the originals, and hand over a :class:`Hunt`.

    Args:
        loss: What :meth:`~rivals.attacks.siege.Siege.climb` climbs; no matter of the user's.

    Raises:
        UserError: bad input, in one line; see :func:`~rivals.attacks.siege.besiege`.
    """
    with besiege(model, x, y, ball, loss=loss, targets=targets, seed=seed, batch_size=batch_size) as siege:
        yield Hunt(siege, ball, siege.look(clean))
