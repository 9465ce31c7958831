"""The base class of discriminators: images to one logit each, above 0 for "real"."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rivals.base import devices
from rivals.base.size import AnySize, Size
from rivals.base.tensors import at_least_float32
from rivals.nets.padding import check_image_shape


def blocks_of(layers: nn.Sequential) -> list[list[nn.Module]]:
    """Layers in blocks, each of which begins with a convolution or a linear layer."""
    blocks: list[list[nn.Module]] = []
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            blocks.append([])
        blocks[-1].append(layer)
    return blocks


class Discriminator(nn.Module):
    """Images (B, channels, H, W) in [-1, 1] and labels (B,) to logits (B,).

    A subclass has :meth:`features`, :meth:`blocks_from_image` and a module ``head`` that maps features and labels to
    logits.

    Attributes:
        uses_batch_stats: Whether batch norm couples the images of a batch, so that real and generated images must
            not share a forward pass.
        spec: As for the generator.
    """

    head: nn.Module
    uses_batch_stats: bool = False

    def __init__(
        self, net: str, *, size: AnySize, channels: int, classes: int, widths: tuple[int, ...], **options: Any
    ) -> None:
        super().__init__()
        check_image_shape(size, channels, classes)
        self.size, self.channels, self.classes = Size.parse(size), channels, classes
        self.spec: dict[str, Any] = {
            "role": "discriminator",
            "net": net,
            "size": self.size.written,
            "channels": channels,
            "classes": classes,
            "widths": list(widths),
            **options,
        }

    def features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to the features of the head, (B, F)."""
        raise NotImplementedError

    def blocks_from_image(self) -> list[list[nn.Module]]:
        """The parts of each block before the head, the one next to the image first."""
        raise NotImplementedError

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] and labels (B,) int64 or None to logits (B,)."""
        h = self.features(x)
        # Under autocast features are bf16, with 8 bits of precision: too few for a sum over thousands of them.
        with devices.autocast(h.device, enabled=False):
            weight = next(self.head.parameters())
            logits: Tensor = self.head(h.to(torch.promote_types(h.dtype, weight.dtype)), labels)
        return at_least_float32(logits)
