"""Affine transformations of images, colors and a cutout, differentiable twice."""

from __future__ import annotations

import math

import torch
from torch import Tensor

QUARTER = math.pi / 2


def identity(n: int, like: Tensor) -> Tensor:
    """Identity maps, (n, 3, 3)."""
    return torch.eye(3, dtype=like.dtype, device=like.device).repeat(n, 1, 1)


def translation(dx: Tensor, dy: Tensor) -> Tensor:
    """Translations (n, 3, 3) by ``dx`` and ``dy``, both (n,), in pixels."""
    maps = identity(len(dx), dx)
    maps[:, 0, 2], maps[:, 1, 2] = dx, dy
    return maps


def scaling(sx: Tensor, sy: Tensor) -> Tensor:
    """Scalings (n, 3, 3) by the factors ``sx`` and ``sy``, both (n,)."""
    maps = identity(len(sx), sx)
    maps[:, 0, 0], maps[:, 1, 1] = sx, sy
    return maps


def rotation(angle: Tensor) -> Tensor:
    """Rotations (n, 3, 3) by ``angle`` (n,) in radians."""
    maps = identity(len(angle), angle)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    # A rotation by 90 degrees must map pixels to pixels exactly, but sin(pi) is not 0 in floats.
    cosine, sine = (torch.where(each.abs() < 1e-6, 0.0, each) for each in (cosine, sine))
    maps[:, 0, 0], maps[:, 0, 1], maps[:, 1, 0], maps[:, 1, 1] = cosine, -sine, sine, cosine
    return maps


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Warp each image by its affine map, with bilinear interpolation and reflection padding.

    It is a weighted sum of gathered pixels, since PyTorch's ``grid_sample`` has no second derivative, which gradient
    penalties need.

    Args:
        images: (B, C, H, W).
        maps: (B, 3, 3), from output to input coordinates, in pixels relative to the center of the image.

    Returns:
        Images (B, C, H, W). They are linear in ``images``; no gradient flows into ``maps``.
    """
    batch, channels, height, width = images.shape
    x, y = _axis(width, images) - (width - 1) / 2, _axis(height, images) - (height - 1) / 2
    grid = torch.stack([x.repeat(height), y.repeat_interleave(width), images.new_ones(height * width)])
    # Homogeneous coordinates of output pixels, mapped to the input.
    source = maps.detach() @ grid
    xs = _reflect(source[:, 0] + (width - 1) / 2, width)
    ys = _reflect(source[:, 1] + (height - 1) / 2, height)
    # Bilinear weights of the four neighbors; a neighbor past the border is the border pixel.
    left, top = xs.floor().clamp(0, width - 1), ys.floor().clamp(0, height - 1)
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    wx, wy = (xs - left).clamp(0, 1), (ys - top).clamp(0, 1)
    flat = images.flatten(2)
    total = torch.zeros_like(flat)
    for row, column, weight in (
        (top, left, (1 - wy) * (1 - wx)),
        (top, right, (1 - wy) * wx),
        (bottom, left, wy * (1 - wx)),
        (bottom, right, wy * wx),
    ):
        index = (row * width + column).long()[:, None].expand(-1, channels, -1)
        total = total + weight[:, None] * flat.gather(2, index)
    return total.view(batch, channels, height, width)


def _reflect(coordinates: Tensor, size: int) -> Tensor:
    """Coordinates on an axis of ``size`` pixels, reflected at its borders, half a pixel outside the outer centers."""
    # A triangle wave of period 2 * size.
    folded = torch.remainder(coordinates + 0.5, 2 * size)
    return torch.minimum(folded, 2 * size - folded) - 0.5


def transform_colors(images: Tensor, maps: Tensor) -> Tensor:
    """Images (B, C, H, W) with each color transformed by its image's affine map (B, C, C + 1)."""
    mixed: Tensor = torch.baddbmm(maps[:, :, -1:], maps[:, :, :-1], images.flatten(2)).view(images.shape)
    return mixed


def cutout(images: Tensor, cx: Tensor, cy: Tensor, width_share: Tensor, height_share: Tensor) -> Tensor:
    """Images (B, C, H, W) with a rectangle set to 0 (Cutout, DeVries & Taylor 2017).

    Args:
        images: The images.
        cx: Center of the rectangle, (B,), as a share of the width.
        cy: Center, as a share of the height.
        width_share: Its width, as a share of the image's, (B,); 0 for no cutout.
        height_share: Its height, likewise.
    """
    height, width = images.shape[2:]
    x, y = (_axis(width, images) + 0.5) / width, (_axis(height, images) + 0.5) / height
    outside_x = (x - cx[:, None]).abs() >= width_share[:, None] / 2
    outside_y = (y - cy[:, None]).abs() >= height_share[:, None] / 2
    outside = outside_x[:, None, None, :] | outside_y[:, None, :, None]
    return torch.where(outside, images, 0.0)


def _axis(size: int, like: Tensor) -> Tensor:
    """Pixel coordinates (size,), in float32 or more: half precision rounds those above 256."""
    return torch.arange(size, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
