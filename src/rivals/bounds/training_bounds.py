"""Bounds of a batch in training: differentiable, without margins for rounding, with the batch's own statistics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from rivals.bounds.ibp import Interval, margins_from, propagate
from rivals.bounds.network import Network
from rivals.bounds.operators import Linear, ReLU, Scale
from rivals.bounds.regions import Region


class TrainingBounds:
    """The logits of a batch and their interval bounds over a set of inputs around each image.

    Batch norm takes mean and variance from the clean images, in the clean pass and in the bounds, and updates its
    running statistics once (Shi et al. 2021, sec. 3.2).

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
        self.statistics: dict[int, Scale] = {}

    @cached_property
    def logits(self) -> Tensor:
        """Logits of the clean images, (B, classes)."""
        return self.network.values(self.x, self.statistics)[-1].float()

    @cached_property
    def values(self) -> list[Interval]:
        """Bounds of all values, or of all but the logits where a linear layer makes them."""
        _ = self.logits  # whose pass has the statistics
        end = len(self.network.nodes) - isinstance(self.network.nodes[-1].operator, Linear)
        return propagate(self.network, self.region, rounded=False, statistics=self.statistics, end=end)

    @cached_property
    def margins(self) -> Tensor:
        """Lower bounds of ``z_y - z_k``, (B, classes); 0 for k = y."""
        return margins_from(self.values, self.network.nodes[-1], self.y, rounded=False).float()

    @property
    def before_relus(self) -> Sequence[tuple[Tensor, Tensor]]:
        """Lower and upper bounds before each ReLU."""
        read = [node.inputs[0] for node in self.network.nodes if isinstance(node.operator, ReLU)]
        return [self.values[i][:2] for i in read]

    @property
    def widths(self) -> Sequence[Tensor]:
        """Mean width of the bounds of the input, then of those before each ReLU."""
        return [(upper - lower).mean() for lower, upper in [self.values[0][:2], *self.before_relus]]
