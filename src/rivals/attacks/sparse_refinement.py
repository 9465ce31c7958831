"""Fewer changes in L0: restore what an adversarial example does not need.

Other minimum-norm attacks end on the way to the boundary, where a little less of every change will do. In L0 a change
counts whole or not at all, so the question is which to leave out. The margin is linearized at the best adversarial
example, and two rankings are tried: of its own changes by what they contribute, and of all components by what the
larger of that and of a move to the end of the box would contribute. As many of the first in a ranking are kept as it
takes, by bisection. While that gains, it is repeated. On a linear model with two classes the result is exact.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rivals.attacks.attack_state import AttackState
from rivals.attacks.linear_boundary import class_pair, numerical_margin
from rivals.base.l0_ball import L0
from rivals.base.projections import headroom


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
        """One linearization of some images (m,); return for which it gained (m,)."""
        search, state = self.search, self.search.state
        x, here, before = state.x[indices], search.best[indices], search.distances[indices]
        leaf, logits = state.frozen.trace(here)
        inside, outside = class_pair(logits, state.y[indices], state.target(indices))
        with torch.enable_grad():
            gap = logits.gather(1, outside[:, None]) - logits.gather(1, inside[:, None])
            margins = gap[:, 0] - numerical_margin(logits)
        gradient = state.frozen.gradient(margins, leaf)
        own = gradient * (here - x)
        room = headroom(x, gradient, self.ball.bounds).view_as(x)
        # Its own changes, the most useful first; what does not help goes too.
        changed = self.ball.changed(here, x)
        ranking = self._score(own).masked_fill(~changed, -torch.inf)
        self._bisect(indices, here, ranking, before)
        # All components, at the end of the box where that contributes more.
        further = gradient.abs() * room > own
        values = torch.where(further, (x + gradient.sign() * room).clamp_(*self.ball.bounds), here)
        self._bisect(indices, values, self._score(torch.maximum(own, gradient.abs() * room)), before)
        return search.distances[indices] < before

    def _score(self, contributions: Tensor) -> Tensor:
        """What each component, or each pixel, (m, 1, ...), contributes to the margin."""
        return contributions.sum(1, keepdim=True) if self.ball.pixels else contributions

    def _bisect(self, indices: Tensor, values: Tensor, ranking: Tensor, most: Tensor) -> None:
        """Find how many of the first in a ranking, set to ``values``, are enough; fewer than ``most`` (m,)."""
        search, x = self.search, self.search.state.x[indices]
        flat = ranking.flatten(1)
        place = torch.empty_like(flat, dtype=torch.long)
        order = flat.argsort(dim=1, descending=True, stable=True)
        place.scatter_(1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order))
        place = place.view_as(ranking)
        low, high = torch.zeros_like(most), torch.minimum(most, search.distances[indices])
        searching = (high - low > 1).nonzero()[:, 0]
        while len(searching):
            count = ((low + high) / 2).floor()[searching].view(-1, *[1] * (x.ndim - 1))
            x_adv = torch.where(place[searching] < count, values[searching], x[searching])
            enough = search.keep_best(indices[searching], x_adv, search.state.frozen.logits(x_adv))
            high[searching[enough]] = count.flatten()[enough].to(high.dtype)
            low[searching[~enough]] = count.flatten()[~enough].to(low.dtype)
            searching = (high - low > 1).nonzero()[:, 0]
