"""Streams made of other streams: batches that are played several times, and batches of two sets."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Stream(Protocol):
    """A stream of batches that is a function of its index."""

    n: int
    batch: int
    world: int

    def draw(self, index: int, lane: int = 0) -> tuple[Tensor, Tensor | None]:
        """The batch at ``index``: uint8 images (B, C, H, W) and labels (B,) or None."""


class Replayed:
    """Every batch of a stream ``times`` times in a row."""

    def __init__(self, batches: Stream, times: int) -> None:
        self.batches, self.times = batches, times
        self.n, self.batch, self.world = batches.n, batches.batch, batches.world

    def draw(self, index: int, lane: int = 0) -> tuple[Tensor, Tensor | None]:
        """As :meth:`Stream.draw`."""
        return self.batches.draw(index // self.times, lane)


class Blended:
    """Batches of two labelled streams, one after the other in each batch. An epoch is one of the first."""

    def __init__(self, own: Stream, extra: Stream) -> None:
        self.own, self.extra = own, extra
        self.batch, self.world = own.batch + extra.batch, own.world
        self.n = round(own.n * self.batch / own.batch)

    def draw(self, index: int, lane: int = 0) -> tuple[Tensor, Tensor | None]:
        """As :meth:`Stream.draw`."""
        (images, labels), (more, theirs) = self.own.draw(index, lane), self.extra.draw(index, lane)
        assert labels is not None and theirs is not None
        return torch.cat([images, more]), torch.cat([labels, theirs])
