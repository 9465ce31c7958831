"""From any image size to the canvas that a convolutional network works on, and back.

A canvas is ``base`` times a power of two, with ``base`` from 4 to 8 where nothing is said: 28 px is 7 x 2 x 2, and
100 px is cut out of 7 x 16 = 112 px. Who asks for another depth has another canvas: 28 px of three stages is cut out
of 4 x 8 = 32 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rivals.base.errors import UserError

SMALLEST, LARGEST = 8, 1024
FEWEST_LEFT, MOST_LEFT = 2, 8


@dataclass(frozen=True)
class Canvas:
    """A square of ``side`` = ``base`` * 2 ** ``stages`` pixels, at least as large as the image."""

    size: int
    base: int
    stages: int

    @classmethod
    def of(cls, size: int, stages: int = 0) -> Canvas:
        """The smallest canvas for images of ``size`` pixels.

        Args:
            size: The images' side in pixels.
            stages: How often the canvas is halved; 0 for until 4 to 8 px are left.

        Raises:
            UserError: the size is not in 8..1024, or so many halvings leave fewer than 2 px or more than 8.
        """
        if not SMALLEST <= size <= LARGEST:
            raise UserError(f"images of {size} px cannot be learnt: take a size from {SMALLEST} to {LARGEST}")
        stages = stages or (size // 4).bit_length() - 1
        fit = [each for each in range(1, size.bit_length()) if FEWEST_LEFT <= -(-size // 2**each) <= MOST_LEFT]
        if stages not in fit:
            raise UserError(f"images of {size} px take {fit[0]} to {fit[-1]} widths, one a halving, not {stages}")
        return cls(size, -(-size // 2**stages), stages)

    @property
    def side(self) -> int:
        """The canvas's own size in pixels."""
        return self.base << self.stages

    def crop(self, x: Tensor) -> Tensor:
        """Cut the centre (B, C, size, size) out of a canvas (B, C, side, side)."""
        start = (self.side - self.size) // 2
        return x[..., start : start + self.size, start : start + self.size]

    def pad(self, x: Tensor) -> Tensor:
        """Lay images (B, C, size, size) on the centre of a canvas of zeros (B, C, side, side)."""
        spare = self.side - self.size
        before, after = spare // 2, spare - spare // 2
        return F.pad(x, (before, after, before, after)) if spare else x


def check_images(size: int, channels: int, classes: int) -> None:
    """Refuse what no network here can draw.

    Raises:
        UserError: the size is not in 8..1024, or there are no channels, or fewer than no classes.
    """
    Canvas.of(size)
    if channels < 1:
        raise UserError(f"images need a channel or more, not {channels}: take 1 (grey), 3 (colour) or 4 (alpha)")
    if classes < 0:
        raise UserError(f"{classes} classes make no sense: take 0 for a network without labels")


def check_widths(what: str, widths: Sequence[int], default: Sequence[int]) -> tuple[int, ...]:
    """The widths to use: ``default`` where none are given, else as many positive numbers as ``default`` has.

    Raises:
        UserError: another count, or a width below 1.
    """
    chosen = tuple(widths) or tuple(default)
    if len(chosen) != len(default) or min(chosen) < 1:
        raise UserError(
            f"widths {','.join(map(str, chosen))} do not fit {what}: give {len(default)} positive numbers, "
            f"as in {','.join(map(str, default))}"
        )
    return chosen


def channels_last(net: nn.Module) -> None:
    """Keep the weights of convolutions with the channels innermost; the images that pass take the same layout.

    The numbers are the same. On a CPU with AVX-512, training was a tenth to a half faster this way.
    """
    net.to(memory_format=torch.channels_last)
