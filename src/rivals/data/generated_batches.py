"""Batches that a generator makes as they are needed, on its device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rivals.base import devices
from rivals.base.rng import generator
from rivals.data.batches import translated

Generate = Callable[[Tensor, Tensor], Tensor]
"""Latents (b, d) and its own class numbers (b,) to uint8 images (b, C, H, W) on the device of the generator."""


@dataclass(frozen=True)
class Judge:
    """What chooses among generated images.

    Attributes:
        score: uint8 images (b, C, H, W) and class numbers of the generator (b,) to scores (b,), higher for better ones.
        keep: The share of the images that is kept, above 0.
    """

    score: Callable[[Tensor, Tensor], Tensor]
    keep: float


class GeneratedBatches:
    """An endless stream of batches of new images, none of which is made twice.

    The latents of a micro-batch are a function of the seed, its number and its place, so a resumed run, or one on other
    processes, gets the same images. The classes take turns.

    Args:
        generate: Makes images.
        latent_dim: Length of a latent, d.
        labels: For each class of the generator its number in the labels of the batches.
        batch_size: Images per batch.
        seed: Of the run.
        micro_batches: Equal parts of a batch, which divide it.
        flip: Flip each image horizontally with probability 1/2.
        shift: Translate each image by up to so many pixels, horizontally and vertically, with zero padding.
        device: Of the generator.
        judge: Of a larger micro-batch it keeps the best images, as many of each class as there would be without it.
    """

    def __init__(
        self,
        generate: Generate,
        latent_dim: int,
        labels: Tensor,
        batch_size: int,
        *,
        seed: int,
        micro_batches: int = 1,
        flip: bool = False,
        shift: int = 0,
        device: torch.device,
        judge: Judge | None = None,
    ) -> None:
        self.generate, self.latent_dim, self.labels = generate, latent_dim, labels
        self.batch_size, self.seed, self.micro_batches = batch_size, seed, micro_batches
        self.flip, self.shift, self.device, self.judge = flip, shift, device, judge

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[Tensor, Tensor]:
        """Micro-batch ``part`` of batch ``index``: uint8 images (b, C, H, W) on the device, labels, int64 (b,)."""
        size, place = self.batch_size // self.micro_batches, (part, index, stream)
        first = index * self.batch_size + part * size
        made = size if self.judge is None else math.ceil(size / self.judge.keep)
        classes = torch.arange(first, first + made) % len(self.labels)
        latents = torch.randn(made, self.latent_dim, generator=generator(self.seed, "extra", *place))
        with devices.autocast(self.device, enabled=False):  # a batch may be drawn amid a pass in bf16
            images = self.generate(latents, classes)
            if self.judge is not None:
                kept = best_of_each_class(self.judge.score(images, classes).cpu(), classes, size)
                images, classes = images[kept.to(images.device)], classes[kept]
        if self.flip:
            coins = torch.rand(size, generator=generator(self.seed, "extra flip", *place)) < 0.5
            flipped = coins.to(images.device, non_blocking=True)[:, None, None, None]
            images = torch.where(flipped, images.flip(3), images)
        if self.shift:
            images = translated(images, self.shift, generator(self.seed, "extra shift", *place))
        return images, self.labels[classes]


def best_of_each_class(scores: Tensor, classes: Tensor, count: int) -> Tensor:
    """Places of the ``count`` images with the highest scores, rising, without a change of the classes' shares.

    Of each class as many are kept as are among the first ``count``.

    Args:
        scores: (b,).
        classes: Class numbers (b,), which take turns.
        count: At most b.
    """
    wanted = classes[:count].bincount(minlength=int(classes.amax()) + 1)
    order = scores.argsort(descending=True, stable=True)
    order = order[classes[order].argsort(stable=True)]  # by class, and within a class by score
    sizes = classes.bincount(minlength=len(wanted))
    rank = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[classes[order]]
    return order[rank < wanted[classes[order]]].sort().values
