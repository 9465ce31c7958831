"""What every classifier is: a module from images in [0, 1] to logits, with the normalisation inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.nets.canvas import Canvas, check_images


class Classifier(nn.Module):
    """Images (B, channels, size, size) in [0, 1] to logits (B, classes).

    A subclass has :meth:`score`, which is handed normalised images. Since the normalisation is part of the network,
    whoever attacks it works on images as they are, and eps has the images' unit.

    Args:
        net: The kind's name.
        size: Height and width in pixels, 8 to 1024.
        channels: 1, 3 or 4.
        classes: 2 or more.
        widths: Channels of the stages.
        mean: What is taken from each channel; empty for nothing.
        std: What each channel is then divided by; empty for 1.
        knobs: What else the kind was told.

    Attributes:
        spec: How to build the network again, as plain values. Where its ``mirror`` is true, the network answers by the
            mean of its logits for an image and for the mirror image (as Krizhevsky et al. 2012, sec. 4.1, over more
            views), so an attack has both sides to win over.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: str,
        *,
        size: int,
        channels: int,
        classes: int,
        widths: tuple[int, ...],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        **knobs: Any,
    ) -> None:
        super().__init__()
        check_images(size, channels, classes)
        if classes < 2:
            raise UserError(f"a classifier of {classes} classes has nothing to tell apart: give 2 or more")
        mean, std = tuple(mean) or (0.0,) * channels, tuple(std) or (1.0,) * channels
        if not len(mean) == len(std) == channels or min(std) <= 0:
            raise UserError(
                f"mean {mean} and std {std} do not fit images of {channels} channels: give {channels} numbers each, "
                "std above 0"
            )
        self.size, self.channels, self.classes = size, channels, classes
        # They are in the spec, so the file of the weights need not hold them too.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.spec: dict[str, Any] = {
            "role": "classifier",
            "net": net,
            "size": size,
            "channels": channels,
            "classes": classes,
            "widths": list(widths),
            "mean": list(mean),
            "std": list(std),
            "mirror": False,
            **knobs,
        }

    def score(self, x: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) to logits (B, classes)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to logits (B, classes)."""
        x = (x - self.mean) / self.std
        logits = self.score(x)
        # Under autocast they come in 8 bits of precision, too few for the softmax of a loss.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return (logits + self.score(x.flip(-1))) / 2 if self.spec["mirror"] else logits


def check_stages(
    what: str, widths: tuple[int, ...], default: tuple[int, ...], size: int, whole: int = 0
) -> tuple[int, ...]:
    """The widths to use, one for each stage; where none are given, as many of ``default`` as the images have room for.

    Each stage halves the images, but for the first ``whole`` ones, down to 2 or 3 px.

    Raises:
        UserError: the size is not in 8..1024, a width is below 1, or there are more stages than can be halved.
    """
    Canvas.of(size)
    most = size.bit_length() - 2 + whole
    chosen = tuple(widths) or default[:most]
    if min(chosen) < 1 or len(chosen) > most:
        raise UserError(
            f"widths {','.join(map(str, chosen))} do not fit {what} at {size} px: give 1 to {most} positive numbers"
        )
    return chosen
