"""Batches as functions of (seed, stream, index, micro-batch): nothing to save and nothing to rewind."""

from __future__ import annotations

import numpy as np
import torch

from rivals.base.rng import generator
from rivals.data.imageset import ImageSet


class Batches:
    """An endless stream of batches: epoch after epoch, each in a random order.

    Position p of the stream is image ``p mod n`` of the permutation of epoch ``p div n``. Batch ``index`` covers the
    ``batch_size`` positions from ``index * batch_size`` on, and its micro-batch m the m-th part of them. So every image
    is seen exactly once per epoch, and a batch may span two epochs, or several if there are fewer images than it holds.

    Args:
        images: The images.
        batch_size: Images per batch.
        seed: Of the run.
        micro_batches: Equal parts of a batch, which divide it.
        flip: Flip each image horizontally with probability 1/2.
        shift: Translate each image by up to so many pixels, horizontally and vertically, with zero padding.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        *,
        seed: int,
        micro_batches: int = 1,
        flip: bool = False,
        shift: int = 0,
    ) -> None:
        self.n = len(images)
        self.batch_size, self.seed = batch_size, seed
        self.micro_batches = micro_batches
        self._part_size = batch_size // micro_batches
        self.flip, self.shift = flip, shift
        self._shape = images.images.shape[1:]
        pixels = images.images
        # Of an array, rows are selected several times faster by torch; mapped images verify what numpy selects.
        self._rows = torch.from_numpy(pixels.reshape(self.n, -1)) if isinstance(pixels, np.ndarray) else pixels
        self._labels = None if images.labels is None else torch.from_numpy(images.labels)
        self._orders: dict[int, dict[int, torch.Tensor]] = {}

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Micro-batch ``part`` of batch ``index``: images, uint8 (b, C, H, W), labels, int64 (b,), or None without
        classes, where b is ``batch_size / micro_batches``.

        Both are new tensors on the CPU. Each ``stream`` has its own orders, so that several readers get full epochs.
        """
        size = self._part_size
        indices = self._indices(index * self.batch_size + part * size, stream)
        images = self._select(indices).view(size, *self._shape)
        if self.flip:
            coins = torch.rand(size, generator=generator(self.seed, "flip", part, index, stream)) < 0.5
            # Indexing images followed by their flips is several times faster than torch.where.
            both = torch.cat([images, images.flip(3)]).flatten(1)
            images = both.index_select(0, torch.arange(size) + size * coins).view_as(images)
        if self.shift:
            images = self._translate(images, generator(self.seed, "shift", part, index, stream))
        return images, None if self._labels is None else self._labels.index_select(0, indices)

    def _select(self, indices: torch.Tensor) -> torch.Tensor:
        if isinstance(self._rows, torch.Tensor):
            return self._rows.index_select(0, indices)
        return torch.from_numpy(self._rows[indices.numpy()])

    def _translate(self, images: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        n, (channels, height, width) = len(images), self._shape
        padded = torch.nn.functional.pad(images, (self.shift,) * 4)
        down, across = torch.randint(2 * self.shift + 1, (2, n, 1), generator=source)
        rows = (down + torch.arange(height))[:, None, :, None]
        columns = (across + torch.arange(width))[:, None, None, :]
        return padded[torch.arange(n)[:, None, None, None], torch.arange(channels)[:, None, None], rows, columns]

    def _indices(self, start: int, stream: int) -> torch.Tensor:
        """Indices of the images at the positions from ``start`` on, int64 (b,)."""
        stop = start + self._part_size
        before = self._orders.get(stream, {})
        orders = self._orders[stream] = {
            epoch: before[epoch]
            if epoch in before
            else torch.randperm(self.n, generator=generator(self.seed, "epoch", stream, epoch))
            for epoch in range(start // self.n, (stop - 1) // self.n + 1)
        }
        return torch.cat(
            [order[max(start - epoch * self.n, 0) : stop - epoch * self.n] for epoch, order in orders.items()]
        )
