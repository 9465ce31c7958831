"""Fewer changes in L0: restore what an adversarial example does not need.

Other minimum-norm attacks end on the way to the boundary, where a little less of every change will do. In L0 a change
counts whole or not at all, so the question is which to leave out. The margin is linearized at the best adversarial
example, and two rankings are tried: of its own changes by what they contribute, and of all components by what the
larger of that and of a move to the end of the box would contribute. As many of the first in a ranking are kept as it
takes, by bisection. Where neither gains, one place less is tried for some steps: the first places of the second
ranking, by the mean of the gradients so far. While any of it gains, it is repeated. On a linear model with two classes
the result is exact.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rivals.attacks.attack_state import AttackState
from rivals.attacks.linear_boundary import class_pair, numerical_margin
from rivals.base.l0_ball import L0
from rivals.base.projections import headroom
from rivals.base.tensors import batch_view

SWAPS = 8  # steps with one place less
GRADIENTS = 1 + SWAPS  # of an image in a round, at most


class SparseSearch(Protocol):
    """What it needs of a :class:`~rivals.attacks.min_norm.MinNormSearch`."""

    state: AttackState
    best: Tensor
    distances: Tensor
    refine_steps: int

    def keep_best(self, indices: Tensor, x_adv: Tensor, logits: Tensor) -> Tensor: ...

    def within(self, indices: Tensor) -> Tensor: ...


class SparseRefinement:
    """The refinement of a minimum-norm search in L0."""

    def __init__(self, search: SparseSearch, ball: L0) -> None:
        self.search = search
        self.ball = ball

    def run(self, indices: Tensor, *, stop_within: bool) -> None:
        """Refine the best of some images (m,), as long as that gains.

        Args:
            indices: Which images.
            stop_within: Leave those alone that lie within the ball already.
        """
        for _ in range(self.search.refine_steps):
            if stop_within:
                indices = indices[~self.search.within(indices)]
            if not len(indices):
                return
            gained = [self._refine(some) for some in torch.split(indices, self.search.state.batch_size)]
            indices = indices[torch.cat(gained)]

    def _refine(self, indices: Tensor) -> Tensor:
        """Refine some images (m,) once; return for which it gained (m,)."""
        search, state = self.search, self.search.state
        x, here, before = state.x[indices], search.best[indices], search.distances[indices]
        gradient, _ = self._linearize(indices, here)
        # Its own changes, the most useful first; what does not help goes too.
        changed = self.ball.changed(here, x)
        ranking = self._score(gradient * (here - x)).masked_fill(~changed, -torch.inf)
        self._bisect(indices, here, ranking, before)
        # All components, at the end of the box where that contributes more.
        self._bisect(indices, *self._moves(gradient, x, here), before)
        stuck = (search.distances[indices] == before) & (before > 1)
        self._swap(indices[stuck], gradient[stuck])
        return search.distances[indices] < before

    def _linearize(self, indices: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of the margin at images (m, ...), and which of them are adversarial (m,), which is kept."""
        state = self.search.state
        leaf, logits = state.frozen.trace(x_adv)
        adversarial = self.search.keep_best(indices, x_adv, logits.detach())
        inside, outside = class_pair(logits, state.y[indices], state.target(indices))
        with torch.enable_grad():
            gap = logits.gather(1, outside[:, None]) - logits.gather(1, inside[:, None])
            margins = gap[:, 0] - numerical_margin(logits)
        return state.frozen.gradient(margins, leaf), adversarial

    def _moves(self, gradient: Tensor, x: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        """Each component where it is or at the end of its box, what contributes more, and the score of its place."""
        own, room = gradient * (here - x), headroom(x, gradient, self.ball.bounds).view_as(x)
        further = gradient.abs() * room > own
        values = torch.where(further, (x + gradient.sign() * room).clamp_(*self.ball.bounds), here)
        return values, self._score(torch.maximum(own, gradient.abs() * room))

    def _swap(self, indices: Tensor, gradient: Tensor) -> None:
        """Search with one place less than the best of some images (m,), from the gradient there (m, ...)."""
        search = self.search
        here, count = search.best[indices], search.distances[indices] - 1
        total = gradient
        for step in range(SWAPS):
            if not len(indices):
                return
            x = search.state.x[indices]
            values, ranking = self._moves(total / (step + 1), x, here)
            here = torch.where(_places(ranking) < batch_view(count, x), values, x)
            gradient, adversarial = self._linearize(indices, here)
            left = ~adversarial
            indices, here, count, total = indices[left], here[left], count[left], (total + gradient)[left]

    def _score(self, contributions: Tensor) -> Tensor:
        """What each component, or each pixel, (m, 1, ...), contributes to the margin."""
        return contributions.sum(1, keepdim=True) if self.ball.pixels else contributions

    def _bisect(self, indices: Tensor, values: Tensor, ranking: Tensor, most: Tensor) -> None:
        """Find how many of the first in a ranking, set to ``values``, are enough; fewer than ``most`` (m,)."""
        search, x = self.search, self.search.state.x[indices]
        place = _places(ranking)
        low, high = torch.zeros_like(most), torch.minimum(most, search.distances[indices])
        searching = (high - low > 1).nonzero()[:, 0]
        while len(searching):
            count = ((low + high) / 2).floor()[searching].view(-1, *[1] * (x.ndim - 1))
            x_adv = torch.where(place[searching] < count, values[searching], x[searching])
            enough = search.keep_best(indices[searching], x_adv, search.state.frozen.logits(x_adv))
            high[searching[enough]] = count.flatten()[enough].to(high.dtype)
            low[searching[~enough]] = count.flatten()[~enough].to(low.dtype)
            searching = (high - low > 1).nonzero()[:, 0]


def _places(ranking: Tensor) -> Tensor:
    """The place of each value (m, ...) in the descending order of its image, from 0."""
    flat = ranking.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    places = torch.empty_like(order)
    places.scatter_(1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order))
    return places.view_as(ranking)
