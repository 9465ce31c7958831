"""From 8-bit images to what a network takes: the resize rules, each exact, since distances change with them.

Implementations of one metric disagree mostly by their resize (Parmar et al. 2022), so each is named in every record.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.base.errors import UserError


def colour(images: Tensor) -> Tensor:
    """uint8 images (B, C, H, W), grey, in colour or with alpha, as float32 (B, 3, H, W) in [0, 255].

    Grey is repeated; what is seen through is white.

    Raises:
        UserError: images of another type or form.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3, 4) or 0 in images.shape:
        raise UserError(
            f"images of type {images.dtype} and shape {tuple(images.shape)} have no features: give uint8 (n, C, H, W), "
            "C 1, 3 or 4 and nothing empty"
        )
    values = images.float()
    if images.shape[1] == 4:
        alpha = values[:, 3:] / 255
        return values[:, :3] * alpha + 255 * (1 - alpha)
    return values.expand(-1, 3, -1, -1)


def tf1_bilinear(x: Tensor, size: int) -> Tensor:
    """Float images (B, C, H, W) to (B, C, size, size) as TensorFlow 1's ``resize_bilinear``, which FID is defined by.

    Pixel i comes from place ``i * (in / out)``, a corner, not a centre, in single precision; what lies past the last
    pixel is the last pixel; nothing is averaged where images shrink.
    """
    low, high, share = _places(x.shape[3], size, x)
    left = x[..., low]
    rows = left + (x[..., high] - left) * share
    low, high, share = _places(x.shape[2], size, x)
    top = rows[:, :, low]
    return top + (rows[:, :, high] - top) * share[:, None]


def _places(before: int, after: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel after: the pixels between which it lies, and how far towards the second."""
    scale = torch.tensor(before, dtype=torch.float32) / after
    place = torch.arange(after, dtype=torch.float32) * scale
    low = place.long()
    share = (place - low).to(like)
    return low.to(like.device), (low + 1).clamp_max(before - 1).to(like.device), share


def smooth(x: Tensor, size: int) -> Tensor:
    """Float images (B, C, H, W) to (B, C, size, size): bilinear, over the whole area of a pixel where images shrink."""
    shrinks = max(x.shape[2:]) > size  # else the two kernels are one, and the plain one is quicker
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=shrinks)


def pillow_bicubic(x: Tensor, size: int) -> Tensor:
    """Float images (B, C, H, W) in [0, 255] to (B, C, size, size) as by Pillow's BICUBIC: 8 bits after each pass."""
    for shape in ((x.shape[2], size), (size, size)):  # across, then down
        x = F.interpolate(x, shape, mode="bicubic", align_corners=False, antialias=True)
        x = (x + 0.5).floor().clamp(0, 255)
    return x


def normalised(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Images (B, 3, H, W) in [0, 255] with the mean and deviation of each channel, given in [0, 1], taken out."""
    centre, scale = (torch.tensor(values).view(-1, 1, 1).to(x) * 255 for values in (mean, std))
    return (x - centre) / scale


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
