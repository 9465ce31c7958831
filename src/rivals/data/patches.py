"""Batches of random squares of images."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rivals.base.rng import generator


class Drawn(Protocol):
    """Batches that are functions of their index."""

    n: int
    batch_size: int
    micro_batches: int

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[Tensor, Tensor | None]: ...


class PatchBatches:
    """The same batches, of each image one random square, whose place is a function of seed, stream, index and part.

    Args:
        batches: The batches to cut from; what is stacked along the channels is cut at one place.
        size: Side of the squares in pixels, at most the shorter one of the images.
        seed: Of the run.
    """

    def __init__(self, batches: Drawn, size: int, *, seed: int) -> None:
        self.batches, self.size, self.seed = batches, size, seed
        self.n, self.batch_size, self.micro_batches = batches.n, batches.batch_size, batches.micro_batches

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[Tensor, Tensor | None]:
        """Micro-batch ``part`` of batch ``index``: uint8 (b, C, size, size), and labels."""
        images, labels = self.batches.draw(index, stream, part)
        source = generator(self.seed, "patch", part, index, stream)
        places = [
            [int(torch.randint(side - self.size + 1, (), generator=source)) for side in images.shape[2:]]
            for _ in images
        ]
        cut = [
            image[:, top : top + self.size, left : left + self.size]
            for image, (top, left) in zip(images, places, strict=True)
        ]
        return torch.stack(cut), labels
