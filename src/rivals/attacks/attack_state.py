"""What all attacks share: the checks at the gate, the frozen model, and the best found so far for every point."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypedDict, TypeVar

import torch
from torch import Generator, Tensor, nn

from rivals.attacks.checks import check_classes, check_images, check_labels
from rivals.attacks.frozen import Frozen, freeze
from rivals.attacks.objectives import OBJECTIVES, Objective
from rivals.attacks.standing import Rows, Storm
from rivals.attacks.streams import own_randomness
from rivals.base.balls import Ball
from rivals.base.errors import UserError
from rivals.base.seeds import streams

Model = nn.Module | Frozen
R = TypeVar("R", bound=Rows)


class Siege:
    """One attack on one set of points. Made by :func:`besiege`.

    Attributes:
        frozen: The model.
        x: The originals (n, ...).
        y: Their labels (n,).
        goals: The classes asked for (n,), or None where any wrong one will do.
        objective: What the attack climbs.
        best: The best found so far (n, ...): one that fools before one that does not, then the larger objective.
        fooled: Which of ``best`` fool the model (n,).
        capacity: The most images in one pass.
        stop: Whether a point is left alone once the model is fooled.
        seed: Of everything random.
    """

    def __init__(
        self,
        frozen: Frozen,
        x: Tensor,
        y: Tensor,
        goals: Tensor | None,
        objective: Objective,
        capacity: int,
        stop: bool,
        seed: int,
    ) -> None:
        self.frozen = frozen
        self.x = x
        self.y = y
        self.goals = goals
        self.objective = objective
        self.capacity = capacity
        self.stop = stop
        self.seed = seed
        self.best = x.clone()
        self.fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self._values = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)

    def batches(self) -> Iterator[Tensor]:
        """All points, in order, a batch at a time; none of none."""
        if len(self.x):
            yield from torch.split(torch.arange(len(self.x), device=self.x.device), self.capacity)

    def rows(self, points: Tensor) -> Rows:
        """The originals of some points as a batch."""
        x = self.x[points]
        return Rows(points, torch.zeros_like(points), x, x, self.y[points], self.goal(points))

    def look(self, clean: Tensor | None = None) -> Tensor:
        """The logits (n, classes) of the originals, computed unless given. What they fool already is offered."""
        if clean is None:
            none = self.x.new_zeros((0, self.frozen.classes))
            clean = torch.cat([none, *(self.frozen.logits(self.x[points]) for points in self.batches())])
        elif clean.shape != (len(self.x), self.frozen.classes):
            raise UserError(
                f"the clean logits have the shape {tuple(clean.shape)}: give the model's own for these images, "
                f"({len(self.x)}, {self.frozen.classes})"
            )
        if not len(clean):
            return clean
        already = self.fools(torch.arange(len(self.x), device=self.x.device), clean).nonzero()[:, 0]
        self.offer(already, self.x[already], clean[already])
        return clean

    def starts(self, ball: Ball, start: Tensor) -> Tensor:
        """Images handed over to start from.

        Raises:
            UserError: they are not like the originals, or not all in ball and box.
        """
        if start.shape != self.x.shape:
            raise UserError(f"the start has the shape {tuple(start.shape)}: give images like x, {tuple(self.x.shape)}")
        start = start.detach().to(self.x)
        outside = int((~ball.contains(start, self.x)).sum())
        if outside:
            raise UserError(
                f"the start lies outside of ball or box in {outside} of {len(start)} images: project it first"
            )
        return start

    def climb(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """A leaf of the iterates, their logits, and the objective's values with a graph back to the leaf."""
        leaf, logits = self.frozen.trace(rows.x_adv)
        with torch.enable_grad():
            return leaf, logits.detach(), self.objective(logits, rows.y, rows.goal)

    def offer(self, points: Tensor, x_adv: Tensor, logits: Tensor) -> Tensor:
        """Keep ``x_adv`` where it is better than the best so far; return which of it fools the model (m,).

        Args:
            points: Which points they are (m,), none twice.
            x_adv: Images in ball and box (m, ...).
            logits: The model's answers to them (m, K).
        """
        fools = self.fools(points, logits)
        values = self.objective(logits, self.y[points], self.goal(points)).to(self._values.dtype)
        before = self.fooled[points]
        better = (fools & ~before) | ((fools == before) & (values > self._values[points]))
        chosen = points[better]
        self.best[chosen] = x_adv.detach()[better]
        self.fooled[chosen] = fools[better]
        self._values[chosen] = values[better]
        return fools

    def fools(self, points: Tensor, logits: Tensor) -> Tensor:
        """Which answers (m, K) to some points (m,) are wrong, or the class asked for."""
        said, goal = logits.argmax(1), self.goal(points)
        return said != self.y[points] if goal is None else said == goal

    def storm(self, storm: Storm[R]) -> None:
        """Run an attack on the points still standing, or on all if fooling the model is no reason to stop."""
        standing = ~self.fooled if self.stop else torch.ones_like(self.fooled)
        storm.run(standing.nonzero()[:, 0], self.capacity, self.done)

    def done(self, points: Tensor) -> Tensor:
        """Which of some points are to be left alone."""
        return self.fooled[points] if self.stop else torch.zeros_like(points, dtype=torch.bool)

    def generators(self, points: Tensor, trials: Tensor, attack: str) -> list[Generator]:
        """Each point's own random stream for its trial of an attack."""
        return streams(self.x[points], trials.tolist(), self.seed, attack)

    def goal(self, points: Tensor) -> Tensor | None:
        """The classes asked for of some points, if any are."""
        return None if self.goals is None else self.goals[points]


class Shared(TypedDict, total=False):
    """The knobs that every attack has, by keyword.

    Attributes:
        loss: What to climb, and what to rank iterates by: ``ce`` (default), ``dlr`` or ``margin``. See
            :mod:`rivals.attacks.objectives`.
        targets: Classes (n,) to be mistaken for. None (default): any wrong class will do.
        seed: Of everything random; 0 if not given. Each image has a stream of its own, made from the seed and from its
            values, so that its result does not depend on the other images or on their order.
        batch_size: The most images in one pass, 128 if not given. But for rounding, results do not depend on it.
        stop_when_fooled: Leave an image alone once it fools the model, be it from the start (default). If not, all
            trials and steps are taken, for the largest loss, among iterates that fool if there are any.
    """

    loss: str
    targets: Tensor | None
    seed: int
    batch_size: int
    stop_when_fooled: bool


@contextlib.contextmanager
def besiege(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball | None,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    loss: str = "ce",
    targets: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 128,
    stop_when_fooled: bool = True,
) -> Iterator[Siege]:
    """Check everything, freeze the model, and hand over a :class:`Siege`.

    Args:
        model: A module from images (n, ...) to logits (n, K), or one that is frozen already.
        x: Images (n, ...) in range.
        y: Labels (n,).
        ball: Where to look; None for an attack that is bounded otherwise.
        bounds: The range of the images where there is no ball to name it.
        loss: This and the following: see :class:`Shared`.

    Raises:
        UserError: whatever :mod:`rivals.attacks.checks` refuses, an eps with a wrong number of entries, or knobs out of
            range.
    """
    if ball is not None and not isinstance(ball, Ball):
        raise UserError(f"the ball is a {type(ball).__name__}: give Linf(8 / 255), L2(0.5) or L1(12.0)")
    x = check_images(x, bounds if ball is None else ball.bounds)
    y = check_labels(y, x)
    goals = None if targets is None else check_labels(targets, x, "targets")
    if ball is not None:
        ball.radii(x)
    if batch_size < 1:
        raise UserError(f"a batch size of {batch_size} holds nothing: take 1 or more")
    objective = OBJECTIVES[loss]
    with own_randomness(seed, x.device), freeze(model, x) as frozen, torch.no_grad():
        check_classes(y, frozen.classes)
        if goals is not None:
            check_classes(goals, frozen.classes, "targets")
        yield Siege(frozen, x, y, goals, objective, batch_size, stop_when_fooled, seed)


def at_least(value: float, least: float, name: str) -> None:
    """Refuse a knob below ``least``.

    Raises:
        UserError: it is, or is NaN.
    """
    if not value >= least:
        raise UserError(f"{name} of {value:g} make no attack: take {least:g} or more")
