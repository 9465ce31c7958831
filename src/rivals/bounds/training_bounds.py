"""Bounds of a batch in training: differentiable, without margins for rounding, with the batch's own statistics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from rivals.bounds.crown import Backward, differences
from rivals.bounds.ibp import Interval, interval_bounds, margins_from
from rivals.bounds.network import Network
from rivals.bounds.operators import Linear, ReLU, Scale
from rivals.bounds.regions import Region


class TrainingBounds:
    """The logits of a batch and their interval bounds over a set of inputs around each image.

    Batch norm takes mean and variance from the clean images, in the clean pass, in the bounds and for other images
    alike, and updates its running statistics once (Shi et al. 2021, sec. 3.2).

    Args:
        network: The network, which shares the weights that learn.
        x: Clean images (B, ...).
        y: Their labels (B,).
        region: The sets of inputs.
    """

    def __init__(self, network: Network, x: Tensor, y: Tensor, region: Region) -> None:
        self.network = network
        self.x, self.y = x, y
        self.region = region

    @cached_property
    def _clean(self) -> tuple[Tensor, Network]:
        """Clean logits, and the network with the statistics of this batch in its weights."""
        statistics: dict[int, Scale] = {}
        logits = self.network.values(self.x, statistics)[-1]
        return logits.float(), self.network.fixed(statistics)

    @property
    def _bounded(self) -> Network:
        """The network whose values are bounded: batch norm with the statistics of this batch."""
        return self._clean[1]

    @property
    def logits(self) -> Tensor:
        """Logits of the clean images, (B, classes)."""
        return self._clean[0]

    def logits_at(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of other images (B, ...), such as adversarial ones, by the clean images' statistics.

        The running statistics stay as they are.
        """
        return self._bounded(x).float()

    @cached_property
    def values(self) -> list[Interval]:
        """Bounds of all values, or of all but the logits where a linear layer makes them."""
        end = len(self._bounded.nodes) - isinstance(self._bounded.nodes[-1].operator, Linear)
        return interval_bounds(self._bounded, self.region, rounded=False, end=end)

    @cached_property
    def margins(self) -> Tensor:
        """Lower bounds of ``z_y - z_k``, (B, classes); 0 for k = y."""
        return margins_from(self.values, self._bounded.nodes[-1], self.y, rounded=False).float()

    @property
    def before_relus(self) -> Sequence[tuple[Tensor, Tensor]]:
        """Lower and upper bounds before each ReLU."""
        read = [node.inputs[0] for node in self._bounded.nodes if isinstance(node.operator, ReLU)]
        return [self.values[i][:2] for i in read]

    @property
    def widths(self) -> Sequence[Tensor]:
        """Mean width of the bounds of the input, then of those before each ReLU."""
        return [(upper - lower).mean() for lower, upper in [self.values[0][:2], *self.before_relus]]


class CrownIbpBounds(TrainingBounds):
    """Margins between CROWN's, from the intervals of IBP, and IBP's own (CROWN-IBP, Zhang et al. 2020, eq. 12).

    Args:
        network: As of :class:`TrainingBounds`, like the following.
        crown_share: beta of the paper, the weight of CROWN's bounds; it falls from 1 to 0 as eps grows.
    """

    def __init__(self, network: Network, x: Tensor, y: Tensor, region: Region, crown_share: float) -> None:
        super().__init__(network, x, y, region)
        self.crown_share = crown_share

    @cached_property
    def margins(self) -> Tensor:
        """Lower bounds of ``z_y - z_k``, (B, classes); 0 for k = y."""
        by_ibp = margins_from(self.values, self._bounded.nodes[-1], self.y, rounded=False).float()
        if self.crown_share <= 0:
            return by_ibp
        backward = Backward(self._bounded, self.region, self.values, rounded=False)
        wanted = differences(self.y, by_ibp.shape[1], self.x.dtype)
        by_crown = backward.lower(wanted, len(self._bounded.nodes)).T.float()
        return self.crown_share * by_crown + (1 - self.crown_share) * by_ibp
