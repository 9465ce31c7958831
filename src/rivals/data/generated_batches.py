"""Batches that a generator makes as they are needed, on its device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rivals.base import devices
from rivals.base.rng import generator
from rivals.data.batches import translated

Generate = Callable[[Tensor, Tensor], Tensor]
"""Latents (b, d) and its own class numbers (b,) to uint8 images (b, C, H, W) on the device of the generator."""


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
    ) -> None:
        self.generate, self.latent_dim, self.labels = generate, latent_dim, labels
        self.batch_size, self.seed, self.micro_batches = batch_size, seed, micro_batches
        self.flip, self.shift, self.device = flip, shift, device

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[Tensor, Tensor]:
        """Micro-batch ``part`` of batch ``index``: uint8 images (b, C, H, W) on the device, labels, int64 (b,)."""
        size, place = self.batch_size // self.micro_batches, (part, index, stream)
        first = index * self.batch_size + part * size
        classes = torch.arange(first, first + size) % len(self.labels)
        latents = torch.randn(size, self.latent_dim, generator=generator(self.seed, "extra", *place))
        with devices.autocast(self.device, enabled=False):  # a batch may be drawn amid a pass in bf16
            images = self.generate(latents, classes)
        if self.flip:
            coins = torch.rand(size, generator=generator(self.seed, "extra flip", *place)) < 0.5
            flipped = coins.to(images.device, non_blocking=True)[:, None, None, None]
            images = torch.where(flipped, images.flip(3), images)
        if self.shift:
            images = translated(images, self.shift, generator(self.seed, "extra shift", *place))
        return images, self.labels[classes]
