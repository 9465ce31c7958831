"""Preprocessing of uint8 images: the resize rules of the published metrics, reproduced exactly.

Implementations of one metric differ mostly in their resize (Parmar et al. 2022), so every record names it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.size import AnySize, Size


def to_rgb(images: Tensor) -> Tensor:
    """uint8 images (B, C, H, W), C 1, 3 or 4, as float32 RGB (B, 3, H, W) in [0, 255].

    Gray is repeated; alpha is composited on white.

    Raises:
        UserError: images of another dtype or shape.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3, 4) or 0 in images.shape:
        raise UserError(
            f"images of type {images.dtype} and shape {tuple(images.shape)} have no features: give uint8 (n, C, H, W), "
            "C 1, 3 or 4 and nothing empty"
        )
    return on_white(images.float(), 255)


def on_white(images: Tensor, white: float = 1.0) -> Tensor:
    """Float images (B, C, H, W) from 0 to ``white``, C 1, 3 or 4, as RGB: gray repeated, alpha composited on white."""
    if images.shape[1] == 4:
        alpha = images[:, 3:] / white
        return images[:, :3] * alpha + white * (1 - alpha)
    return images.expand(-1, 3, -1, -1)


def tf1_bilinear(x: Tensor, size: int) -> Tensor:
    """Float images (B, C, H, W) to (B, C, size, size) as by TensorFlow 1's ``resize_bilinear``, which defines FID.

    Output pixel i samples coordinate ``i * (in / out)`` in single precision, without half-pixel centers and without
    antialiasing; the border is replicated.
    """
    low, high, weight = _taps(x.shape[3], size, x)
    left = x[..., low]
    rows = left + (x[..., high] - left) * weight
    low, high, weight = _taps(x.shape[2], size, x)
    top = rows[:, :, low]
    return top + (rows[:, :, high] - top) * weight[:, None]


def _taps(before: int, after: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each output pixel: its two input pixels, and the weight of the second."""
    # TensorFlow computes scale and coordinates in float32: the same roundings.
    scale = torch.tensor(before, dtype=torch.float32) / after
    source = torch.arange(after, dtype=torch.float32) * scale
    low = source.long()
    weight = (source - low).to(like)
    return low.to(like.device), (low + 1).clamp_max(before - 1).to(like.device), weight


def antialiased_bilinear(x: Tensor, size: AnySize) -> Tensor:
    """Float images (B, C, H, W) to (B, C, *size): bilinear, antialiased for downsampling."""
    after = tuple(Size.parse(size))
    shrinks = any(old > new for old, new in zip(x.shape[2:], after, strict=True))
    # Where nothing shrinks, both kernels are equal, and the plain one is faster.
    return F.interpolate(x, after, mode="bilinear", align_corners=False, antialias=shrinks)


def pillow_bicubic(x: Tensor, size: int) -> Tensor:
    """Float images (B, C, H, W) in [0, 255] to (B, C, size, size) as by Pillow's BICUBIC: uint8 after each pass."""
    for shape in ((x.shape[2], size), (size, size)):  # horizontal, then vertical
        x = F.interpolate(x, shape, mode="bicubic", align_corners=False, antialias=True)
        # Pillow rounds half up and clips to uint8 after each pass.
        x = (x + 0.5).floor().clamp(0, 255)
    return x


def normalize(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Images (B, 3, H, W) in [0, 255], normalized by mean and std of each channel, given in [0, 1]."""
    center, scale = (torch.tensor(values).view(-1, 1, 1).to(x) * 255 for values in (mean, std))
    return (x - center) / scale


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
