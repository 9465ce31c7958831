"""What minimum-norm attacks share: the nearest adversarial example so far, and its refinement.

All attacks end alike. The best adversarial example is moved along the straight line toward the clean image, up to the
decision boundary; then it follows the boundary, linearized there, toward the clean image, and is moved to the boundary
again. At last, the boundaries to other classes are linearized at the clean image, in case one of them is nearer. This
removes what an attack leaves over by its step sizes, overshoots or constants; on a linear model, where the box is not
in the way, the result is exact.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor

from rivals.attacks.active_batch import ActiveBatch, Rows
from rivals.attacks.attack_losses import margin, strongest_others
from rivals.attacks.attack_state import AttackState, Model, check_at_least, prepare
from rivals.attacks.linear_boundary import class_pair, min_norm_step, nearest_boundary, numerical_margin
from rivals.attacks.sparse_refinement import SparseRefinement
from rivals.base.errors import UserError
from rivals.base.norm_balls import L0, Ball
from rivals.base.tensors import batch_view

R = TypeVar("R", bound=Rows)

_SHARES = (1.0, 0.5, 0.25, 0.125)  # of the way along the linearized boundary that are tried
_MAX_CLASSES = 9  # wrong classes with the largest logits whose boundaries are linearized at the clean image
_MAX_PASSES = 10  # forward passes in search of the boundary on a line
_TOLERANCE = 2e-5  # how close, as a share of the distance, the result comes to the boundary


class MinNormOptions(TypedDict, total=False):
    """The keyword options that every minimum-norm attack has.

    Attributes:
        targets: Target classes (n,). None (default): untargeted.
        seed: Of everything random; 0 by default. Each image has its own random stream, as in other attacks.
        batch_size: Largest number of images in one forward pass, 128 by default. But for rounding, results do not
            depend on it.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        refine_steps: Steps along the boundary at the end, while they gain, 10 by default: each takes a gradient and a
            few forward passes. With 0 an attack ends as published, but for the line search to the boundary.
    """

    targets: Tensor | None
    seed: int
    batch_size: int
    clean: Tensor | None
    refine_steps: int


class MinNormSearch:
    """A search for the nearest adversarial examples. Made by :func:`min_norm_search`.

    Attributes:
        state: The model, the images and their labels.
        ball: Its norm, its bounds and, by its eps, how far an adversarial example may be to count.
        radii: That eps for each image (n,).
        clean: The clean logits (n, K).
        refine_steps: Steps along the boundary at the end.
        best: The nearest adversarial examples so far (n, ...), however far; the clean image where there is none.
        distances: Their distances (n,): infinity where there is none, 0 where the clean image is misclassified.
        margins: Their margins less the numerical margin (n,); those of the clean image where there is none.
    """

    def __init__(self, state: AttackState, ball: Ball, clean: Tensor, refine_steps: int) -> None:
        self.state = state
        self.ball = ball
        self.radii = ball.radii(state.x)
        self.clean = clean
        self.refine_steps = refine_steps
        self.best = state.x.clone()
        self.distances = torch.full_like(self.radii, torch.inf).masked_fill(state.fooled, 0)
        self.margins = torch.zeros_like(self.radii)
        if len(clean):
            self.margins = margin(clean, state.y, state.targets).to(self.radii.dtype)

    def keep_best(self, indices: Tensor, x_adv: Tensor, logits: Tensor) -> Tensor:
        """Keep ``x_adv`` where it is adversarial and nearer than the best; return which are adversarial (m,).

        Args:
            indices: Which images they are (m,), none twice.
            x_adv: Images in the box (m, ...).
            logits: The model's logits for them (m, K).
        """
        logits = self.state.confirmed(indices, x_adv, logits)
        far = self.ball.distance(x_adv, self.state.x[indices])
        margins = margin(logits, self.state.y[indices], self.state.target(indices)) - numerical_margin(logits)
        adversarial = margins > 0
        better = adversarial & (far < self.distances[indices])
        chosen = indices[better]
        self.best[chosen] = x_adv.detach()[better]
        self.distances[chosen] = far[better]
        self.margins[chosen] = margins[better].to(self.margins.dtype)
        return adversarial

    def within(self, indices: Tensor) -> Tensor:
        """For which of some images an adversarial example within eps was found (m,)."""
        return self.distances[indices] <= self.radii[indices]

    def run(
        self,
        init_rows: Callable[[Tensor, Tensor], R],
        step: Callable[[R], Tensor],
        trials: int = 1,
        *,
        stop_within: bool = False,
    ) -> None:
        """Run an attack, see :class:`ActiveBatch`, on all images that are classified correctly."""
        indices = (~self.state.fooled).nonzero()[:, 0]
        never = torch.zeros_like(self.state.fooled)
        finished = self.within if stop_within else lambda indices: never[indices]
        ActiveBatch(init_rows, step, trials).run(indices, self.state.batch_size, finished)

    def result(self, *, stop_within: bool = False) -> Tensor:
        """The nearest adversarial examples, refined, where they lie within the ball; else the clean images (n, ...).

        Args:
            stop_within: Do not refine those that lie within the ball already.
        """
        indices = ((self.distances > 0) & self.distances.isfinite()).nonzero()[:, 0]
        if isinstance(self.ball, L0):
            SparseRefinement(self, self.ball).run(indices, stop_within=stop_within)
            return self._those_within()
        self._refine(indices, stop_within)
        if stop_within:
            indices = indices[~self.within(indices)]
        if self.refine_steps and self.state.targets is None and len(indices):
            batches = torch.split(indices, self.state.batch_size)
            self._refine(torch.cat([some[self._probe_boundaries(some)] for some in batches]), stop_within)
        return self._those_within()

    def _those_within(self) -> Tensor:
        counts = batch_view(self.distances <= self.radii, self.best)
        return torch.where(counts, self.best, self.state.x)

    def _refine(self, indices: Tensor, stop_within: bool) -> None:
        """Move the best of some images to the boundary, and along it as long as that gains."""
        moving = indices
        for round_ in range(self.refine_steps + 1):
            # To the boundary itself at the end; before, close to it will do.
            now, passes = (indices, _MAX_PASSES) if round_ == self.refine_steps else (moving, 3)
            if stop_within:
                now, moving = now[~self.within(now)], moving[~self.within(moving)]
            line_search = BoundarySearch(self, passes)
            ActiveBatch(line_search.init_rows, line_search.step).run(now, self.state.batch_size, self.within)
            if round_ < self.refine_steps and len(moving):
                moving = torch.cat(
                    [some[self._follow_boundary(some)] for some in torch.split(moving, self.state.batch_size)]
                )

    def _probe_boundaries(self, indices: Tensor) -> Tensor:
        """Try the nearest boundary as linearized at the clean images, even to another class.

        Returns:
            For which of some images that gave a nearer adversarial example (m,).
        """
        state, x, y = self.state, self.state.x[indices], self.state.y[indices]
        leaf, logits = state.frozen.trace(x)
        classes = strongest_others(logits.detach(), y, min(_MAX_CLASSES, state.frozen.classes - 1))
        f, normal = nearest_boundary(state.frozen, leaf, logits, y, self.ball, classes)
        return self._try(indices, min_norm_step(x, normal, -f, self.ball))

    def _try(self, indices: Tensor, change: Tensor) -> Tensor:
        """Try perturbations (m, ...), scaled to a norm just below the best; return which are adversarial (m,)."""
        size = self.ball.distance(change, torch.zeros_like(change)).clamp_min(torch.finfo(change.dtype).tiny)
        scale = (self.distances[indices] * (1 - _TOLERANCE) / size).clamp_max(torch.finfo(change.dtype).max)
        x_adv = self.state.x[indices] + batch_view(scale, change) * change
        x_adv = x_adv.clamp_(*self.ball.bounds)
        return self.keep_best(indices, x_adv, self.state.frozen.logits(x_adv))

    def _follow_boundary(self, indices: Tensor) -> Tensor:
        """Try nearer points along the boundary; return for which of some images one is adversarial (m,).

        The boundary linearized at the best gives the point on it that is nearest to the clean image. As far as it is
        curved, only a part of the way there is on it: all of the way, a half and so on are tried, each at a distance
        just below the best, where any adversarial example is a gain.
        """
        state, frozen, ball = self.state, self.state.frozen, self.ball
        x, here, y, target = state.x[indices], self.best[indices], state.y[indices], state.target(indices)
        leaf, logits = frozen.trace(here)
        inside, outside = class_pair(logits, y, target)
        f, normal = nearest_boundary(frozen, leaf, logits, inside, ball, outside[:, None])
        offset = (normal * (here - x)).flatten(1).sum(1)
        nearest = x + min_norm_step(x, normal, offset - f, ball)
        gained = torch.zeros_like(indices, dtype=torch.bool)
        for share in _SHARES:
            left = (~gained).nonzero()[:, 0]
            if not len(left):
                break
            gained[left] = self._try(indices[left], (here + share * (nearest - here) - x)[left])
        return gained


@dataclass
class _BoundaryRows(Rows):
    """A line from the clean image, at 0, to an adversarial example, at 1, with the margins at ``low`` and ``high``."""

    end: Tensor
    low: Tensor
    high: Tensor
    value_low: Tensor
    value_high: Tensor
    aim: Tensor
    k: Tensor


class BoundarySearch:
    """The final search of FAB (Croce & Hein 2020): the boundary on the line from the clean image to the best.

    By the rule of false position, where the value of an end that stays is halved (the Illinois rule), so that both ends
    close in. Each guess aims a little beyond the root, as seen from the end that moved last.
    """

    def __init__(self, search: MinNormSearch, passes: int) -> None:
        self.search = search
        self.passes = passes

    def init_rows(self, indices: Tensor, trials: Tensor) -> _BoundaryRows:
        search, state = self.search, self.search.state
        x, end = state.x[indices], search.best[indices].clone()
        y, target = state.y[indices], state.target(indices)
        zero, one = torch.zeros_like(search.radii[indices]), torch.ones_like(search.radii[indices])
        low, high = margin(search.clean[indices], y, target).to(zero.dtype), search.margins[indices]
        return _BoundaryRows(
            index=indices,
            trial=trials,
            x=x,
            x_adv=end,
            y=y,
            target=target,
            end=end,
            low=zero,
            high=one,
            value_low=low,
            value_high=high,
            aim=one,
            k=torch.zeros_like(indices),
        )

    def step(self, rows: _BoundaryRows) -> Tensor:
        search, width = self.search, rows.high - rows.low
        share = rows.value_low / (rows.value_low - rows.value_high).clamp_max(-torch.finfo(width.dtype).tiny)
        nudge = _TOLERANCE / 2 * rows.high
        t = rows.low + width * share.clamp(0.0, 1.0) + rows.aim * nudge
        t = torch.minimum(torch.maximum(t, rows.low + nudge), rows.high - nudge)
        rows.x_adv = rows.x + batch_view(t, rows.x) * (rows.end - rows.x)
        rows.x_adv = rows.x_adv.clamp_(*search.ball.bounds)
        logits = search.state.frozen.logits(rows.x_adv)
        adversarial = search.keep_best(rows.index, rows.x_adv, logits)
        value = (margin(logits, rows.y, rows.target) - numerical_margin(logits)).to(width.dtype)
        rows.value_low = torch.where(adversarial, rows.value_low / 2, value)
        rows.value_high = torch.where(adversarial, value, rows.value_high / 2)
        rows.low, rows.high = torch.where(adversarial, rows.low, t), torch.where(adversarial, t, rows.high)
        rows.aim = torch.where(adversarial, -1.0, 1.0).to(width.dtype)
        rows.k = rows.k + 1
        return (rows.k >= self.passes) | (rows.high - rows.low <= _TOLERANCE * rows.high)


@contextlib.contextmanager
def min_norm_search(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    loss: str = "margin",
    clean: Tensor | None = None,
    refine_steps: int = 10,
    **options: Any,
) -> Iterator[MinNormSearch]:
    """Check the input, freeze the model, compute the clean logits, and make the :class:`MinNormSearch`.

    Args:
        loss: The loss of the attack, see :mod:`rivals.attacks.attack_losses`; not an option of the user's.
        clean: This and the following: see :class:`MinNormOptions`.

    Raises:
        UserError: bad input, in one line; see :func:`~rivals.attacks.attack_state.prepare`.
    """
    check_at_least(refine_steps, 0, "refine_steps")
    with prepare(model, x, y, ball, loss=loss, **options) as state:
        yield MinNormSearch(state, ball, state.clean_logits(clean), refine_steps)


def cosine_schedule(start: float, end: float, steps: int, x: Tensor) -> Tensor:
    """From ``start`` to ``end`` along half a cosine (steps + 1,): the last entry belongs to the last iterate's pass."""
    shares = [(1 + math.cos(math.pi * k / max(steps - 1, 1))) / 2 for k in range(steps)]
    return torch.tensor([end + (start - end) * share for share in [*shares, 0.0]], dtype=x.dtype, device=x.device)


def check_gamma(gamma: float) -> None:
    """Refuse a share by which a radius cannot change.

    Raises:
        UserError: it is not in [0, 1).
    """
    if not 0 <= gamma < 1:
        raise UserError(f"a gamma of {gamma:g} is not a share of the radius: take 0 or more, below 1")
