"""Batches made from others: repeated, or mixed from two data sets."""

from __future__ import annotations

import torch
from torch import Tensor

from rivals.data.batches import Batches
from rivals.data.generated_batches import GeneratedBatches
from rivals.data.taught_batches import TaughtBatches


class RepeatedBatches:
    """Every batch ``times`` times in a row, as free adversarial training replays it."""

    def __init__(self, batches: Batches | MixedBatches, times: int) -> None:
        self.batches, self.times = batches, times
        self.n, self.batch_size = batches.n, batches.batch_size
        self.micro_batches = batches.micro_batches

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[Tensor, Tensor | None]:
        """As :meth:`Batches.draw`."""
        return self.batches.draw(index // self.times, stream, part)


class MixedBatches:
    """Concatenated batches of two labeled data sets, on the device of the second.

    An epoch is as many images as the first has, some of them of the second.
    """

    def __init__(self, first: Batches, second: Batches | GeneratedBatches | TaughtBatches) -> None:
        self.first, self.second = first, second
        self.batch_size = first.batch_size + second.batch_size
        self.micro_batches = first.micro_batches
        self.n = first.n

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[Tensor, Tensor | None]:
        """As :meth:`Batches.draw`."""
        (x1, y1), (x2, y2) = self.first.draw(index, stream, part), self.second.draw(index, stream, part)
        assert y1 is not None and y2 is not None
        return torch.cat([x1.to(x2.device, non_blocking=True), x2]), torch.cat([y1, y2])
