"""Batches as functions of (seed, rank, lane, index): nothing to save and nothing to rewind."""

from __future__ import annotations

import torch

from rivals.base.seeds import generator
from rivals.data.imageset import ImageSet


class Batches:
    """The batches of a set that never ends: its epochs one after the other, each in an order of its own.

    Position p of the stream is image ``p mod n`` of the permutation of epoch ``p div n``. Batch ``index`` of all
    ranks together covers the ``batch * world`` positions from ``index * batch * world`` on, rank r taking its r-th
    part. So the ranks see every image exactly once an epoch, and a batch may reach over the border of two epochs,
    or of several if the set is smaller than it.

    Args:
        images: the set.
        batch: images a batch, on this rank.
        seed: the run's.
        rank: this process among ``world`` of them.
        world: how many processes share the epochs.
        flip: mirror each image from left to right with probability 1/2.
        shift: move each image by up to so many pixels either way, across and down; what comes into view is black.
    """

    def __init__(
        self,
        images: ImageSet,
        batch: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        flip: bool = False,
        shift: int = 0,
    ) -> None:
        self.n = len(images)
        self.batch, self.seed, self.rank, self.world, self.flip, self.shift = batch, seed, rank, world, flip, shift
        self._shape = images.images.shape[1:]
        self._rows = torch.from_numpy(images.images.reshape(self.n, -1))
        self._labels = None if images.labels is None else torch.from_numpy(images.labels)
        self._orders: dict[int, dict[int, torch.Tensor]] = {}

    def draw(self, index: int, lane: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Batch ``index``: images, uint8 (B, C, H, W), and labels, int64 (B,), or None without classes.

        Both are new tensors on the CPU. Each ``lane`` is a stream of its own over the same images, so that several
        readers see whole epochs each.
        """
        chosen = self._choose((index * self.world + self.rank) * self.batch, lane)
        images = self._rows.index_select(0, chosen).view(self.batch, *self._shape)
        if self.flip:
            coins = torch.rand(self.batch, generator=generator(self.seed, "flip", self.rank, index, lane)) < 0.5
            # Of all images followed by their mirror images, one each: several times faster than torch.where.
            both = torch.cat([images, images.flip(3)]).flatten(1)
            images = both.index_select(0, torch.arange(self.batch) + self.batch * coins).view_as(images)
        if self.shift:
            images = self._shifted(images, generator(self.seed, "shift", self.rank, index, lane))
        return images, None if self._labels is None else self._labels.index_select(0, chosen)

    def _shifted(self, images: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        channels, height, width = self._shape
        padded = torch.nn.functional.pad(images, (self.shift,) * 4)
        down, across = torch.randint(2 * self.shift + 1, (2, self.batch, 1), generator=source)
        rows = (down + torch.arange(height))[:, None, :, None]
        columns = (across + torch.arange(width))[:, None, None, :]
        return padded[
            torch.arange(self.batch)[:, None, None, None], torch.arange(channels)[:, None, None], rows, columns
        ]

    def _choose(self, start: int, lane: int) -> torch.Tensor:
        """Which images lie at the positions from ``start`` on, int64 (B,)."""
        stop = start + self.batch
        before = self._orders.get(lane, {})
        orders = self._orders[lane] = {
            epoch: before[epoch]
            if epoch in before
            else torch.randperm(self.n, generator=generator(self.seed, "epoch", lane, epoch))
            for epoch in range(start // self.n, (stop - 1) // self.n + 1)
        }
        return torch.cat(
            [order[max(start - epoch * self.n, 0) : stop - epoch * self.n] for epoch, order in orders.items()]
        )
