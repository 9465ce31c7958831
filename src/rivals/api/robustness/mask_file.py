"""``--mask FILE``: where images may change, from a picture of their size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rivals.base.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def read_mask(path: str | Path, shape: tuple[int, ...]) -> Tensor:
    """The mask of a picture: True where it is bright, in all channels; in those that are, if it has colors.

    Args:
        path: Any format that Pillow reads.
        shape: Of the images (C, H, W).

    Returns:
        bool, (H, W), or (C, H, W) if the picture has as many channels as the images, and they differ.

    Raises:
        UserError: it cannot be read, is of another size, or is dark everywhere.
    """
    import numpy as np
    import torch
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            gray = np.asarray(opened.convert("L"))
            colors = np.asarray(opened.convert("RGB")).transpose(2, 0, 1)
    except FileNotFoundError:
        raise UserError(f"there is no mask '{path}': give an image file, white where images may change") from None
    except (OSError, UnidentifiedImageError):
        raise UserError(
            f"the mask '{path}' cannot be read as an image: give a PNG, white where they may change"
        ) from None
    if len(shape) != 3 or gray.shape != shape[1:]:
        size, own = (f"{width} x {height}" for height, width in (shape[-2:], gray.shape))
        raise UserError(f"the mask '{path}' is {own} and the images are {size}: give one of their size")
    by_channel = shape[0] == 3 and bool((colors != colors[:1]).any())
    mask = torch.from_numpy((colors if by_channel else gray) >= 128)
    if not bool(mask.any()):
        raise UserError(f"the mask '{path}' is dark everywhere, so nothing may change: make a place to attack white")
    return mask
