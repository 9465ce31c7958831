"""Low resolution made from images, the inputs of upscaling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def downscaled(images: Tensor, scale: int) -> Tensor:
    """Images (B, C, H, W) in [0, 1] to (B, C, H / scale, W / scale), by antialiased bicubic interpolation.

    This is the usual degradation of the literature. The result is rounded to 8 bits, as it would be read from a file.
    """
    small = F.interpolate(images.float(), scale_factor=1 / scale, mode="bicubic", align_corners=False, antialias=True)
    return small.mul_(255).round_().clamp_(0, 255).mul_(1 / 255)
