"""The base class of classifiers: images in [0, 1] to logits, with the normalization inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.size import AnySize, Size
from rivals.nets.padding import WIDEST, PaddedSize, check_image_shape, shown, widths_fit


class Classifier(nn.Module):
    """Images (B, channels, H, W) in [0, 1] to logits (B, classes).

    A subclass has :meth:`forward_normalized`. Since the normalization is part of the network, attacks work on images in
    [0, 1], and eps is in their unit.

    Args:
        net: Name of the architecture.
        size: Of the images, sides of 8 to 1024 pixels.
        channels: 1, 3 or 4.
        classes: 2 or more.
        widths: Channels of the stages.
        mean: Subtracted from each channel; empty for 0.
        std: Divides each channel; empty for 1.
        options: Other arguments of the subclass.

    Attributes:
        spec: The constructor's arguments as JSON, for :func:`rivals.nets.factory.rebuild`. If its ``flip_tta`` is
            true, the logits are the mean over an image and its horizontal flip (test-time augmentation, Krizhevsky et
            al. 2012, sec. 4.1), and an attack has to fool that mean.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: str,
        *,
        size: AnySize,
        channels: int,
        classes: int,
        widths: tuple[int, ...],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        **options: Any,
    ) -> None:
        super().__init__()
        check_image_shape(size, channels, classes)
        if classes < 2:
            raise UserError(f"a classifier of {classes} classes has nothing to tell apart: give 2 or more")
        mean, std = tuple(mean) or (0.0,) * channels, tuple(std) or (1.0,) * channels
        if not len(mean) == len(std) == channels or min(std) <= 0:
            raise UserError(
                f"mean {mean} and std {std} do not fit images of {channels} channels: give {channels} numbers each, "
                "std above 0"
            )
        self.size, self.channels, self.classes = Size.parse(size), channels, classes
        # Not persistent: they are in the spec.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.spec: dict[str, Any] = {
            "role": "classifier",
            "net": net,
            "size": self.size.written,
            "channels": channels,
            "classes": classes,
            "widths": list(widths),
            "mean": list(mean),
            "std": list(std),
            "flip_tta": False,
            **options,
        }

    def forward_normalized(self, x: Tensor) -> Tensor:
        """Normalized images (B, C, H, W) to logits (B, classes)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to logits (B, classes)."""
        x = (x - self.mean) / self.std
        logits = self.forward_normalized(x)
        # Under autocast logits are bf16, with 8 bits of precision: too few for the softmax of a loss.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return (logits + self.forward_normalized(x.flip(-1))) / 2 if self.spec["flip_tta"] else logits


def check_stages(
    what: str, widths: tuple[int, ...], default: tuple[int, ...], size: AnySize, full_size: int = 0
) -> tuple[int, ...]:
    """The widths to use, one per stage; if none are given, as many of ``default`` as the image size allows.

    Each stage but the first ``full_size`` ones halves the resolution, down to 2 or 3 px of the shorter side.

    Raises:
        UserError: a side is not in 8..1024, a width not in 1..65,536, or there are more stages than halvings.
    """
    size = PaddedSize.of(size).size
    most = size.shorter.bit_length() - 2 + full_size
    chosen = tuple(widths) or default[:most]
    if len(chosen) > most or not widths_fit(chosen):
        raise UserError(
            f"widths {shown(chosen)} do not fit {what} at {size} px: give 1 to {most} positive numbers up to {WIDEST:,}"
        )
    return chosen
