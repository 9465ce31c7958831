"""Batches with the labels of a teacher, of which only those it is sure of are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class Source(Protocol):
    """Batches to label."""

    batch_size: int
    micro_batches: int

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[Tensor, Tensor | None]: ...


class TaughtBatches:
    """Pseudo-labels (Carmon et al. 2019) for the images of other batches, and the surest of them.

    Args:
        batches: Larger batches, or equally large ones to keep all.
        teach: uint8 images (b, C, H, W) to labels (b,) and margins (b,), the larger the surer.
        batch_size: Images per batch that are kept: those of each micro-batch with the largest margins, in their order.
    """

    def __init__(self, batches: Source, teach: Callable[[Tensor], tuple[Tensor, Tensor]], batch_size: int) -> None:
        self.batches, self.teach = batches, teach
        self.batch_size, self.micro_batches = batch_size, batches.micro_batches

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[Tensor, Tensor]:
        """Micro-batch ``part`` of batch ``index``: images (b, C, H, W), labels (b,) on the CPU."""
        images, _ = self.batches.draw(index, stream, part)
        labels, margins = self.teach(images)
        kept = margins.topk(self.batch_size // self.micro_batches).indices.sort().values
        return images[kept.to(images.device)], labels[kept].cpu()
