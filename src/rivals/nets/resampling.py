"""Convolutions that change the resolution, and the kernel that changes it without weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Along one axis, a 3-tap kernel after a doubling by repetition is a 4-tap transposed kernel of stride 2,
# and one before averaging in pairs is a 4-tap kernel of stride 2. These say which of the 3 each of 4 sums.
_UP = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
_DOWN = ((0.5, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (0.0, 0.0, 0.5))


def _fold(weight: Tensor, taps: tuple[tuple[float, ...], ...]) -> Tensor:
    """Kernels (O, I, 3, 3) to (O, I, 4, 4)."""
    mix = torch.tensor(taps, dtype=weight.dtype, device=weight.device)
    return mix @ weight @ mix.T


class UpConv2d(nn.Conv2d):
    """``conv3x3(repeat2x2(x))``, (B, I, H, W) to (B, O, 2H, 2W), as one transposed convolution of 4x4 taps.

    The same numbers for 4 instead of 9 multiplications a tap, without the enlarged input.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        kernel = _fold(self.weight, _UP).transpose(0, 1)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


class DownConv2d(nn.Conv2d):
    """``mean2x2(conv3x3(x))``, (B, I, 2H, 2W) to (B, O, H, W), as one 4x4 convolution of stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, _fold(self.weight, _DOWN), self.bias, stride=2, padding=1)


def _halving(size: int, x: Tensor) -> Tensor:
    """The kernel [1, 3, 3, 1] / 8 at every second of ``size`` pixels, zeros beyond: (size / 2, size), of x's type."""
    pixels = torch.arange(size, device=x.device)
    offset = pixels - 2 * pixels[: size // 2, None] - 0.5
    return ((2 - offset.abs()) / 4).clamp(min=0).to(x)


def _along_both(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Rows and columns of (B, C, H, W) times a matrix each, in memory of channels last.

    Products, and not convolutions channel by channel, as PyTorch has no fast one of those for bf16 on a CPU.
    """
    batch, channels, _, width = x.shape
    x = (rows @ x.permute(0, 2, 3, 1).flatten(2)).view(batch, -1, width, channels)
    return (columns @ x).permute(0, 3, 1, 2)


def upsample(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 2H, 2W): zeros between pixels, then the kernel [1, 3, 3, 1] / 4 along both axes."""
    return _along_both(x, *(2 * _halving(2 * size, x).T for size in x.shape[2:]))


def downsample(x: Tensor) -> Tensor:
    """(B, C, 2H, 2W) to (B, C, H, W): the kernel [1, 3, 3, 1] / 8 along both axes, then every second pixel."""
    return _along_both(x, *(_halving(size, x) for size in x.shape[2:]))
