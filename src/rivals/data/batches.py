"""Batches as functions of (seed, stream, index, micro-batch): nothing to save and nothing to rewind."""

from __future__ import annotations

import torch

from rivals.base.rng import generator
from rivals.data.imageset import ImageSet
from rivals.data.selection import select

_LARGE = 1 << 13  # bytes of an image from which flips are made one by one


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
        self._pixels = images.images
        self._labels = None if images.labels is None else torch.from_numpy(images.labels)
        self._orders: dict[int, dict[int, torch.Tensor]] = {}

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Micro-batch ``part`` of batch ``index``: images, uint8 (b, C, H, W), labels, int64 (b,), or None without
        classes, where b is ``batch_size / micro_batches``.

        Both are new tensors on the CPU. Each ``stream`` has its own orders, so that several readers get full epochs.
        """
        size = self._part_size
        indices = self._indices(index * self.batch_size + part * size, stream)
        images = select(self._pixels, indices)
        if self.flip:
            coins = torch.rand(size, generator=generator(self.seed, "flip", part, index, stream)) < 0.5
            images = _flip(images, coins)
        if self.shift:
            images = translated(images, self.shift, generator(self.seed, "shift", part, index, stream))
        return images, None if self._labels is None else self._labels.index_select(0, indices)

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


def translated(images: torch.Tensor, shift: int, source: torch.Generator) -> torch.Tensor:
    """Images (n, C, H, W), each moved by up to ``shift`` pixels down or up, and across, with zero padding."""
    n, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (shift,) * 4)
    moves = torch.randint(2 * shift + 1, (2, n, 1), generator=source)
    down, across = moves.to(images.device, non_blocking=True)
    first, plane, row, column = (torch.arange(count, device=images.device) for count in (n, channels, height, width))
    rows, columns = (down + row)[:, None, :, None], (across + column)[:, None, None, :]
    return padded[first[:, None, None, None], plane[:, None, None], rows, columns]


def _flip(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Images (n, C, H, W) of which the chosen ones, bool (n,), are flipped horizontally; may overwrite them."""
    n = len(images)
    if images[0].numel() < _LARGE:
        # For small images, to index them followed by their flips is the fastest.
        both = torch.cat([images, images.flip(3)]).flatten(1)
        return both.index_select(0, torch.arange(n) + n * chosen).view_as(images)
    for index in chosen.nonzero()[:, 0].tolist():  # one at a time stays in the processor's cache
        image = images[index]
        image.copy_(image.flip(2))
    return images
