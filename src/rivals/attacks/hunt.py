"""What the minimum-norm attacks share: the nearest point that fools so far, and the last stretch to the boundary.

All end alike. The best point is drawn along the straight way to the original up to the boundary; then it slides along
the boundary, made linear there, towards the original, and is drawn to the boundary again. Then a look from the original
at all boundaries tells whether that to another class is nearer. What an attack leaves over for its step lengths,
overshoots or constants is so taken off; on a linear model, where no wall of the box is in the way, the result is exact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypedDict, TypeVar

import torch
from torch import Tensor

from rivals.attacks.hyperplane import clearance, facets, reach, sides
from rivals.attacks.objectives import margin, runners_up
from rivals.attacks.siege import Model, Siege, at_least, besiege
from rivals.attacks.standing import Rows, Storm
from rivals.base.balls import Ball

R = TypeVar("R", bound=Rows)

_SHARES = (1.0, 0.5, 0.25, 0.125)  # of the way along the boundary that are tried
_RIVALS = 9  # to how many of the strongest wrong classes the nearest boundary is looked for
_LOOKS = 10  # the most passes forward in search of the crossing
_CLOSE = 2e-5  # how near, as a share of the way from the original, the last stretch comes to the boundary


class Hunting(TypedDict, total=False):
    """The knobs that every minimum-norm attack has, by keyword.

    Attributes:
        targets: Classes (n,) to be mistaken for. None (default): any wrong class will do.
        seed: Of everything random; 0 if not given. Each image has a stream of its own, as in other attacks.
        batch_size: The most images in one pass, 128 if not given. But for rounding, results do not depend on it.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        slides: How often the best may slide along the boundary in the end, while that gains, 10 if not given: a
            gradient and a few passes forward each. With 0, an attack ends as published, but for the stretch back to the
            boundary.
    """

    targets: Tensor | None
    seed: int
    batch_size: int
    clean: Tensor | None
    slides: int


class Hunt:
    """A search for the nearest points that fool. Made by :func:`hunt`.

    Attributes:
        siege: The model, the points and their labels.
        ball: Names the norm and the bounds, and by its eps how far a point may lie to count in the end.
        radii: That eps for each point (n,).
        clean: The logits (n, K) of the originals.
        slides: How often the best may slide along the boundary in the end.
        best: The nearest found so far (n, ...), however far; the original where there is none.
        distances: How far those are (n,): infinity where there is none, 0 where the original fools.
        leads: By what margin (n,), less the clearance, the best fool; that of the original where there is none.
    """

    def __init__(self, siege: Siege, ball: Ball, clean: Tensor, slides: int) -> None:
        self.siege = siege
        self.ball = ball
        self.radii = ball.radii(siege.x)
        self.clean = clean
        self.slides = slides
        self.best = siege.x.clone()
        self.distances = torch.full_like(self.radii, torch.inf).masked_fill(siege.fooled, 0)
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
        far = self.ball.distance(x_adv, self.siege.x[points])
        leads = margin(logits, self.siege.y[points], self.siege.goal(points)) - clearance(logits)
        fools = leads > 0
        better = fools & (far < self.distances[points])
        chosen = points[better]
        self.best[chosen] = x_adv.detach()[better]
        self.distances[chosen] = far[better]
        self.leads[chosen] = leads[better].to(self.leads.dtype)
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

    def result(self, *, stop_within: bool = False) -> Tensor:
        """The nearest points found, drawn to the boundary, where they lie within the ball; else the originals.

        Args:
            stop_within: Spare those that lie within the ball already.
        """

        points = ((self.distances > 0) & self.distances.isfinite()).nonzero()[:, 0]
        self._settle(points, stop_within)
        if stop_within:
            points = points[~self.within(points)]
        if self.slides and self.siege.goals is None and len(points):
            parts = torch.split(points, self.siege.capacity)
            self._settle(torch.cat([some[self._scout(some)] for some in parts]), stop_within)
        counts = (self.distances <= self.radii).view(-1, *[1] * (self.best.ndim - 1))
        return torch.where(counts, self.best, self.siege.x)

    def _settle(self, points: Tensor, stop_within: bool) -> None:
        """Draw the best of some points to the boundary, and let them slide along it as long as that gains."""
        moving = points
        for turn in range(self.slides + 1):
            # To the crossing itself in the end; on the way, near it will do.
            now, looks = (points, _LOOKS) if turn == self.slides else (moving, 3)
            if stop_within:
                now, moving = now[~self.within(now)], moving[~self.within(moving)]
            retreat = _Retreat(self, looks)
            Storm(retreat.begin, retreat.advance).run(now, self.siege.capacity, self.within)
            if turn < self.slides and len(moving):
                moving = torch.cat([some[self._slide(some)] for some in torch.split(moving, self.siege.capacity)])

    def _scout(self, points: Tensor) -> Tensor:
        """Look for nearer points on the way to the nearest boundary as the originals see it, be it to another class.

        Returns for which of some points there is one (m,).
        """
        siege, x, y = self.siege, self.siege.x[points], self.siege.y[points]
        leaf, logits = siege.frozen.trace(x)
        rivals = runners_up(logits.detach(), y, min(_RIVALS, siege.frozen.classes - 1))
        lead, normal = facets(siege.frozen, leaf, logits, y, self.ball, rivals)
        return self._try(points, reach(x, normal, -lead, self.ball))

    def _try(self, points: Tensor, change: Tensor) -> Tensor:
        """Offer changes (m, ...) of originals, scaled to a size just below the best; return which fool (m,)."""
        size = self.ball.distance(change, torch.zeros_like(change)).clamp_min(torch.finfo(change.dtype).tiny)
        scale = (self.distances[points] * (1 - _CLOSE) / size).clamp_max(torch.finfo(change.dtype).max)
        aim = self.siege.x[points] + scale.view(-1, *[1] * (change.ndim - 1)) * change
        aim = aim.clamp_(*self.ball.bounds)
        return self.offer(points, aim, self.siege.frozen.logits(aim))

    def _slide(self, points: Tensor) -> Tensor:
        """Look for nearer points along the boundary; return for which of some points there is one (m,).

        The boundary made linear at the best gives the point on it that is nearest to the original. As far as it is
        curved, only a part of the way there can be gone: the whole, a half and so on are tried, each at a distance just
        below the best, where any point that fools is a gain.
        """
        siege, frozen, ball = self.siege, self.siege.frozen, self.ball
        x, here, y, goal = siege.x[points], self.best[points], siege.y[points], siege.goal(points)
        leaf, logits = frozen.trace(here)
        inside, outside = sides(logits, y, goal)
        lead, normal = facets(frozen, leaf, logits, inside, ball, outside[:, None])
        behind = (normal * (here - x)).flatten(1).sum(1)
        home = x + reach(x, normal, behind - lead, ball)
        gained = torch.zeros_like(points, dtype=torch.bool)
        for share in _SHARES:
            left = (~gained).nonzero()[:, 0]
            if not len(left):
                break
            gained[left] = self._try(points[left], (here + share * (home - here) - x)[left])
        return gained


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

    def __init__(self, hunt: Hunt, looks: int) -> None:
        self.hunt = hunt
        self.looks = looks

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
        value = (margin(logits, rows.y, rows.goal) - clearance(logits)).to(width.dtype)
        rows.value_low = torch.where(fools, rows.value_low / 2, value)
        rows.value_high = torch.where(fools, value, rows.value_high / 2)
        rows.low, rows.high = torch.where(fools, rows.low, at), torch.where(fools, at, rows.high)
        rows.aim = torch.where(fools, -1.0, 1.0).to(width.dtype)
        rows.taken = rows.taken + 1
        return (rows.taken >= self.looks) | (rows.high - rows.low <= _CLOSE * rows.high)


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
    slides: int = 10,
) -> Iterator[Hunt]:
    """Check everything, freeze the model, look at the originals, and hand over a :class:`Hunt`.

    Args:
        loss: What :meth:`~rivals.attacks.siege.Siege.climb` climbs; no matter of the user's.

    Raises:
        UserError: bad input, in one line; see :func:`~rivals.attacks.siege.besiege`.
    """
    at_least(slides, 0, "slides")
    with besiege(model, x, y, ball, loss=loss, targets=targets, seed=seed, batch_size=batch_size) as siege:
        yield Hunt(siege, ball, siege.look(clean), slides)
