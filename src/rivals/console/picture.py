"""Small images in a terminal: two pixels in each character."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from rich.color import Color
from rich.style import Style
from rich.text import Text

Images = npt.NDArray[np.uint8]

SIDE = 16  # pixels to which larger images are averaged: eight lines of text
UPPER_HALF = "\u2580"  # its color is that of the upper pixel; the background that of the lower one


def strip(images: Images, width: int) -> Text:
    """As many images as fit side by side, each averaged down to at most ``SIDE`` pixels.

    Args:
        images: uint8 (N, C, H, W), C 1 (gray), 3 (RGB) or 4 (RGBA, shown over white).
        width: Characters in a line.

    Returns:
        Lines of text; empty if not one image fits.
    """
    small = [_shrink(image) for image in images[: max(1, width)]]
    side = small[0].shape[1] + 1
    shown = small[: (width + 1) // side]
    if not shown:
        return Text()
    gap = np.zeros((small[0].shape[0], 1, 4), np.uint8)
    row = np.concatenate([part for image in shown for part in (image, gap)][:-1], axis=1)
    lines = [_line(upper, lower) for upper, lower in zip(row[::2], row[1::2], strict=True)]
    return Text("\n").join(lines)


def _shrink(image: Images) -> Images:
    """An image as (H, W, 4), at most ``SIDE`` pixels of even height; the last channel is 1 where there is a pixel."""
    factor = max(1, -(-max(image.shape[1:]) // SIDE))
    height, width = (side // factor * factor for side in image.shape[1:])
    blocks = image[:, :height, :width].reshape(len(image), height // factor, factor, width // factor, factor)
    pixels = blocks.mean((2, 4))
    if len(pixels) == 4:  # over white
        pixels = pixels[:3] * (pixels[3:] / 255) + 255 - pixels[3:]
    colors = np.broadcast_to(pixels if len(pixels) == 3 else pixels[:1], (3, *pixels.shape[1:]))
    there = np.ones((1, *pixels.shape[1:]))
    whole = np.concatenate([colors, there]).round().astype(np.uint8).transpose(1, 2, 0)
    return np.pad(whole, ((0, len(whole) % 2), (0, 0), (0, 0)))


def _line(upper: Images, lower: Images) -> Text:
    line = Text()
    for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
        if not top[3]:
            line.append(" ")
        else:
            background = Color.from_rgb(*bottom[:3]) if bottom[3] else None
            line.append(UPPER_HALF, Style(color=Color.from_rgb(*top[:3]), bgcolor=background))
    return line
