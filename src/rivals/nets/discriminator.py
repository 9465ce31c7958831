"""What every discriminator is: a module from images to one logit each, above 0 for "real"."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rivals.nets.canvas import check_images


class Discriminator(nn.Module):
    """Images (B, channels, size, size) in [-1, 1] and labels (B,) to logits (B,).

    A subclass has :meth:`features` and a module ``head`` that maps features and labels to logits.
    ``couples_batch`` is True when the images of a batch influence each other (batch norm), so that real and
    generated ones must not share a pass. ``spec`` is as for the generator.
    """

    head: nn.Module
    couples_batch: bool = False

    def __init__(
        self, net: str, *, size: int, channels: int, classes: int, widths: tuple[int, ...], **knobs: Any
    ) -> None:
        super().__init__()
        check_images(size, channels, classes)
        self.size, self.channels, self.classes = size, channels, classes
        self.spec: dict[str, Any] = {
            "role": "discriminator",
            "net": net,
            "size": size,
            "channels": channels,
            "classes": classes,
            "widths": list(widths),
            **knobs,
        }

    def features(self, x: Tensor) -> Tensor:
        """What the head judges by: images (B, C, H, W) to (B, features)."""
        raise NotImplementedError

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Judge a batch: images (B, C, H, W) in [-1, 1], labels (B,) int64 or None, to logits (B,)."""
        h = self.features(x)
        # Under autocast features have 8 bits of precision, and a sum of them deserves more.
        with torch.autocast(h.device.type, enabled=False):
            logits: Tensor = self.head(h.to(torch.promote_types(h.dtype, torch.float32)), labels)
        return logits
