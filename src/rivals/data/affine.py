"""Moving the pixels of each image by an affine map of its own, differentiable as often as one likes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

QUARTER = math.pi / 2


def identity(n: int, like: Tensor) -> Tensor:
    """Maps that move nothing, (n, 3, 3)."""
    return torch.eye(3, dtype=like.dtype, device=like.device).repeat(n, 1, 1)


def shifted(across: Tensor, down: Tensor) -> Tensor:
    """Maps (n, 3, 3) that move by ``across`` and ``down``, both (n,), in pixels."""
    maps = identity(len(across), across)
    maps[:, 0, 2], maps[:, 1, 2] = across, down
    return maps


def scaled(across: Tensor, down: Tensor) -> Tensor:
    """Maps (n, 3, 3) that stretch by ``across`` and ``down``, both (n,)."""
    maps = identity(len(across), across)
    maps[:, 0, 0], maps[:, 1, 1] = across, down
    return maps


def turned(angle: Tensor) -> Tensor:
    """Maps (n, 3, 3) that turn by an ``angle`` (n,) in radians."""
    maps = identity(len(angle), angle)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    # A quarter turn must land on the pixels exactly, and sin(pi) in floats does not.
    cosine, sine = (torch.where(each.abs() < 1e-6, 0.0, each) for each in (cosine, sine))
    maps[:, 0, 0], maps[:, 0, 1], maps[:, 1, 0], maps[:, 1, 1] = cosine, -sine, sine, cosine
    return maps


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Look up each pixel where its map points, bilinearly; past the border the image is mirrored.

    Written as a weighted sum of gathered pixels, since PyTorch's ``grid_sample`` has no second derivative, which
    penalties on gradients need.

    Args:
        images: (B, C, H, W).
        maps: (B, 3, 3), from a pixel's place in the result to its place in the image, both measured from the
            image's centre, in pixels.

    Returns:
        Images (B, C, H, W). They are linear in ``images``; no gradient flows into ``maps``.
    """
    batch, channels, height, width = images.shape
    x, y = _axis(width, images) - (width - 1) / 2, _axis(height, images) - (height - 1) / 2
    places = torch.stack([x.repeat(height), y.repeat_interleave(width), images.new_ones(height * width)])
    pointed = maps.detach() @ places
    across = _mirrored(pointed[:, 0] + (width - 1) / 2, width)
    down = _mirrored(pointed[:, 1] + (height - 1) / 2, height)
    left, top = across.floor().clamp(0, width - 1), down.floor().clamp(0, height - 1)
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    ahead, below = (across - left).clamp(0, 1), (down - top).clamp(0, 1)
    flat = images.flatten(2)
    total = torch.zeros_like(flat)
    for row, column, weight in (
        (top, left, (1 - below) * (1 - ahead)),
        (top, right, (1 - below) * ahead),
        (bottom, left, below * (1 - ahead)),
        (bottom, right, below * ahead),
    ):
        index = (row * width + column).long()[:, None].expand(-1, channels, -1)
        total = total + weight[:, None] * flat.gather(2, index)
    return total.view(batch, channels, height, width)


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Places on an axis of ``size`` pixels, mirrored at its borders, half a pixel outside the outer pixels' centres."""
    folded = torch.remainder(places + 0.5, 2 * size)
    return torch.minimum(folded, 2 * size - folded) - 0.5


def recoloured(images: Tensor, maps: Tensor) -> Tensor:
    """Colours (B, C, H, W) through affine maps (B, C, C + 1) of their own: one matrix product."""
    mixed: Tensor = torch.baddbmm(maps[:, :, -1:], maps[:, :, :-1], images.flatten(2)).view(images.shape)
    return mixed


def cut_out(images: Tensor, across: Tensor, down: Tensor, side: Tensor) -> Tensor:
    """Images (B, C, H, W) with a square made 0.

    Args:
        images: The images.
        across: Where its centre is, (B,), as a share of the width.
        down: The same, of the height.
        side: Its side as a share of the image's, (B,); 0 cuts nothing.
    """
    height, width = images.shape[2:]
    x, y = (_axis(width, images) + 0.5) / width, (_axis(height, images) + 0.5) / height
    outside_x = (x - across[:, None]).abs() >= side[:, None] / 2
    outside_y = (y - down[:, None]).abs() >= side[:, None] / 2
    kept = outside_x[:, None, None, :] | outside_y[:, None, :, None]
    return torch.where(kept, images, 0.0)


def _axis(size: int, like: Tensor) -> Tensor:
    return torch.arange(size, dtype=like.dtype, device=like.device)
