"""Generated images beside the training images that lie closest to them: what no number tells of memorising."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from rivals.reports.sheet import GROUND, grid

Images = npt.NDArray[np.uint8]

APART = 12  # pixels between the generated images and their neighbours
SIDE = 64  # pixels an image is brought to where it is smaller


def picture(drawn: Images, beside: Images) -> Image.Image:
    """A row for each generated image: it, a gap, and its neighbours, the nearest first.

    Args:
        drawn: uint8 (m, C, H, W).
        beside: Of each the nearest, uint8 (m, k, C, H', W').
    """
    scale = max(1, SIDE // drawn.shape[-1])
    left = grid(drawn, columns=1, scale=scale)
    right = grid(beside.reshape(-1, *beside.shape[2:]), columns=beside.shape[1], scale=max(1, SIDE // beside.shape[-1]))
    if right.height != left.height:  # of another size: brought to that of the generated ones
        wide = round(right.width * left.height / right.height)
        right = right.resize((wide, left.height), Image.Resampling.BILINEAR)
    mode = "RGB" if "RGB" in (left.mode, right.mode) else "L"
    whole = Image.new(
        mode, (left.width + APART + right.width, left.height), (GROUND,) * len(mode) if mode != "L" else GROUND
    )
    whole.paste((255,) * 3 if mode == "RGB" else 255, (left.width, 0, left.width + APART, left.height))
    whole.paste(left, (0, 0))
    whole.paste(right, (left.width + APART, 0))
    return whole
