"""From any image size to a size that a convolutional network can halve repeatedly, and back.

The padded side is ``base`` times a power of two, by default with ``base`` from 4 to 8: 28 px is 7 x 2 x 2, and 100 px
is padded to 7 x 16 = 112 px. Another depth means another size: with three halvings, 28 px is padded to 4 x 8 = 32 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.base.errors import UserError

SMALLEST, LARGEST = 8, 1024  # image sizes
CHANNELS = (1, 3, 4)
MOST_CLASSES, WIDEST, MOST_LAYERS = 100_000, 65_536, 100  # typing errors are larger, networks are not
MIN_BASE, MAX_BASE = 2, 8  # sides of the lowest resolution


@dataclass(frozen=True)
class PaddedSize:
    """A square of ``side`` = ``base`` * 2 ** ``stages`` pixels, at least as large as the image of ``size`` pixels."""

    size: int
    base: int
    stages: int

    @classmethod
    def of(cls, size: int, stages: int = 0) -> PaddedSize:
        """The smallest padded size for images of ``size`` pixels.

        Args:
            size: Side of the images in pixels.
            stages: Number of halvings; 0 halves until 4 to 8 px are left.

        Raises:
            UserError: the size is not in 8..1024, or so many halvings leave fewer than 2 px or more than 8.
        """
        if not SMALLEST <= size <= LARGEST:
            raise UserError(f"images of {size} px cannot be learned: take a size from {SMALLEST} to {LARGEST}")
        stages = stages or (size // 4).bit_length() - 1
        fit = [n for n in range(1, size.bit_length()) if MIN_BASE <= -(-size // 2**n) <= MAX_BASE]
        if stages not in fit:
            raise UserError(f"images of {size} px take {fit[0]} to {fit[-1]} widths, one per halving, not {stages}")
        return cls(size, -(-size // 2**stages), stages)

    @property
    def side(self) -> int:
        """The padded side in pixels."""
        return self.base << self.stages

    def crop(self, x: Tensor) -> Tensor:
        """Crop the center (B, C, size, size) of (B, C, side, side)."""
        start = (self.side - self.size) // 2
        return x[..., start : start + self.size, start : start + self.size]

    def pad(self, x: Tensor) -> Tensor:
        """Zero-pad images (B, C, size, size) on all sides to (B, C, side, side)."""
        margin = self.side - self.size
        before, after = margin // 2, margin - margin // 2
        return F.pad(x, (before, after, before, after)) if margin else x


def check_image_shape(size: int, channels: int, classes: int) -> None:
    """Check the shape that a network is built for.

    Raises:
        UserError: the size is not in 8..1024, the channels are not 1, 3 or 4, or the classes not in 0..100,000.
    """
    PaddedSize.of(size)
    if channels not in CHANNELS:
        raise UserError(f"images need 1, 3 or 4 channels, not {channels}: take 1 (gray), 3 (color) or 4 (alpha)")
    if not 0 <= classes <= MOST_CLASSES:
        raise UserError(
            f"{classes} classes make no sense: take at most {MOST_CLASSES:,}, and 0 for a network without labels"
        )


def check_widths(what: str, widths: Sequence[int], default: Sequence[int]) -> tuple[int, ...]:
    """The widths to use: ``default`` if none are given, else as many positive numbers as ``default`` has.

    Raises:
        UserError: another number of widths, or a width that is not in 1..65,536.
    """
    chosen = tuple(widths) or tuple(default)
    if len(chosen) != len(default) or not widths_fit(chosen):
        raise UserError(
            f"widths {shown(chosen)} do not fit {what}: give {len(default)} positive numbers up to {WIDEST:,}, "
            f"as in {','.join(map(str, default))}"
        )
    return chosen


def widths_fit(widths: Sequence[int]) -> bool:
    """Whether all widths are in 1..65,536."""
    return 1 <= min(widths) <= max(widths) <= WIDEST


def shown(numbers: Sequence[int]) -> str:
    """The first of some numbers, for a message."""
    return ",".join([*map(str, numbers[:12]), *(["..."] if len(numbers) > 12 else [])])


def to_channels_last(net: nn.Module) -> None:
    """Store convolution weights channels last; the activations follow them.

    The results are the same. On a CPU with AVX-512, training was 10 to 50% faster.
    """
    net.to(memory_format=torch.channels_last)
