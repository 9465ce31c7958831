"""The base class of translators: images to images of another kind, or to larger ones."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.size import AnySize, Size
from rivals.nets.padding import CHANNELS, MOST_LAYERS, WIDEST, check_image_shape, shown, to_channels_last, widths_fit
from rivals.nets.perturber import Residual

SCALES = (1, 2, 4)


class Translator(nn.Module):
    """Images (B, in_channels, H, W) in [0, 1] to images (B, channels, scale * H, scale * W) in [0, 1].

    No layer normalizes over an image or a batch. So an output pixel depends on the input pixels within ``reach`` of it
    alone, and large images can be translated in tiles (:mod:`rivals.nets.tiles`). Sides that are no multiple of
    ``multiple`` are padded by replication, and the output is cropped.

    Args:
        size: Of the images that come out in training, sides of 8 to 1024 pixels. Images of any size can be translated.
        channels: Of the images that come out, 1, 3 or 4.
        classes: 0: it is not told what an image shows.
        in_channels: Of those that go in.
        scale: 1, 2 or 4: output pixels for an input pixel, along a side.
        widths: Channels of the stages; the architecture's own by default.
        blocks: Residual blocks; the architecture's own number by default.

    Attributes:
        net: Name of the architecture.
        default_blocks: Residual blocks by default.
        multiple: Sides of the images inside are multiples of it, in input pixels.
        reach: How far the network looks, in input pixels.
        last: The convolution to the channels that come out.
        classes: 0.
        spec: The arguments as JSON, for :func:`rivals.nets.factory.rebuild`.
        about: What the .json file of a loaded network holds.
    """

    net: ClassVar[str]
    default_blocks: ClassVar[int]
    multiple: int
    reach: int
    last: nn.Conv2d
    classes = 0

    def __init__(
        self,
        *,
        size: AnySize,
        channels: int,
        classes: int = 0,
        in_channels: int = 3,
        scale: int = 1,
        widths: tuple[int, ...] = (),
        blocks: int | None = None,
    ) -> None:
        super().__init__()
        check_image_shape(size, channels, 0)
        if classes:
            raise UserError(f"a translator of {classes} classes is not offered: take 0")
        if in_channels not in CHANNELS:
            raise UserError(f"images of {in_channels} channels cannot be translated: take 1, 3 or 4")
        if scale not in SCALES:
            raise UserError(f"a scale of {scale} is not offered: take {', '.join(map(str, SCALES))}")
        if scale > 1 and channels != in_channels:
            raise UserError(f"{in_channels} channels cannot be enlarged to {channels}: take as many")
        self.size, self.channels, self.in_channels, self.scale = Size.parse(size), channels, in_channels, scale
        widths = tuple(widths) or self.default_widths()
        blocks = self.default_blocks if blocks is None else blocks
        if not 1 <= len(widths) <= 8 or not widths_fit(widths):
            raise UserError(f"widths {shown(widths)} do not fit a translator: give 1 to 8 numbers up to {WIDEST:,}")
        if not 0 <= blocks <= MOST_LAYERS:
            raise UserError(f"a translator of {blocks} residual blocks cannot be built: take 0 to {MOST_LAYERS}")
        self.about: dict[str, Any] = {}
        self.spec: dict[str, Any] = {
            "role": "translator",
            "net": self.net,
            "size": self.size.written,
            "channels": channels,
            "classes": 0,
            "in_channels": in_channels,
            "scale": scale,
            "widths": list(widths),
            "blocks": blocks,
        }
        self.build(widths, blocks)
        self.initialize()

    def default_widths(self) -> tuple[int, ...]:
        """Channels of the stages if none are given."""
        raise NotImplementedError

    def build(self, widths: tuple[int, ...], blocks: int) -> None:
        """Make the layers; set ``multiple``, ``reach`` and ``last``."""
        raise NotImplementedError

    def initialize(self) -> None:
        """Keep the variance through ReLUs (He et al. 2015); the last convolution begins small.

        An enlarging network thus begins as bicubic interpolation, to which it adds; another one at gray.
        """
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        for part in self.modules():
            if isinstance(part, Residual):
                nn.init.zeros_(part.conv2.weight)
        nn.init.normal_(self.last.weight, std=1e-3 if self.scale > 1 else 0.02)
        if self.last.bias is not None:
            nn.init.constant_(self.last.bias, 0.0 if self.scale > 1 else 0.5)
        to_channels_last(self)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Feature maps of images (B, in_channels, H, W), from the input on, which CUT compares patch by patch."""
        return self.maps(padded_to(x, self.multiple))

    def maps(self, x: Tensor) -> list[Tensor]:
        """As :meth:`encode`, of images whose sides are multiples of ``multiple``."""
        raise NotImplementedError

    def raw(self, x: Tensor) -> Tensor:
        """Images whose sides are multiples of ``multiple``, to the output without the interpolated input."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_channels, H, W) in [0, 1] to (B, channels, scale * H, scale * W), clipped to [0, 1].

        In training mode they are not clipped, as clipping would take the gradient away.
        """
        padded = padded_to(x, self.multiple)
        y = self.unpadded(padded)
        return y if padded is x else y[..., : self.scale * x.shape[2], : self.scale * x.shape[3]]

    def unpadded(self, x: Tensor) -> Tensor:
        """As :meth:`forward`, of images whose sides are multiples of ``multiple``."""
        y = self.raw(x)
        y = y.to(torch.promote_types(y.dtype, torch.float32))
        if self.scale > 1:
            y = y + enlarged(x, self.scale)
        return y if self.training else y.clamp(0, 1)


class Unpadded(nn.Module):
    """A translator of images whose sides are multiples of ``multiple`` alone: what an exporter can follow.

    Args:
        translator: The translator.
    """

    def __init__(self, translator: Translator) -> None:
        super().__init__()
        self.translator = translator
        self.multiple, self.in_channels = translator.multiple, translator.in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_channels, H, W) in [0, 1] to (B, channels, scale * H, scale * W) in [0, 1]."""
        return self.translator.unpadded(x)


def enlarged(x: Tensor, scale: int) -> Tensor:
    """Images (B, C, H, W) enlarged by bicubic interpolation (a = -0.75), (B, C, scale * H, scale * W), not clipped."""
    return F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)


def padded_to(x: Tensor, multiple: int) -> Tensor:
    """Images (B, C, H, W) whose last row and column are repeated until both sides are multiples of ``multiple``."""
    if multiple == 1:
        return x
    below, right = -x.shape[2] % multiple, -x.shape[3] % multiple
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
