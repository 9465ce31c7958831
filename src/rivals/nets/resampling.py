"""Convolutions that change the resolution, and up- and downsampling by a fixed kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Along one axis, a 3-tap kernel after nearest upsampling is a 4-tap transposed kernel of stride 2, and a 3-tap kernel
# before average pooling is a 4-tap kernel of stride 2. Each row says which of the 3 taps one of the 4 sums.
_UP = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
_DOWN = ((0.5, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (0.0, 0.0, 0.5))


def _compose(weight: Tensor, taps: tuple[tuple[float, ...], ...]) -> Tensor:
    """Kernels (O, I, 3, 3) and resampling, composed into kernels (O, I, 4, 4)."""
    matrix = torch.tensor(taps, dtype=weight.dtype, device=weight.device)
    return matrix @ weight @ matrix.T


class UpConv2d(nn.Conv2d):
    """``conv3x3(upsample_nearest(x))``, (B, I, H, W) to (B, O, 2H, 2W), as one 4x4 transposed convolution.

    It takes 4 instead of 9 multiplications per output and weight, and no enlarged input.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        kernel = _compose(self.weight, _UP).transpose(0, 1)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


class DownConv2d(nn.Conv2d):
    """``avg_pool2x2(conv3x3(x))``, (B, I, 2H, 2W) to (B, O, H, W), as one 4x4 convolution of stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, _compose(self.weight, _DOWN), self.bias, stride=2, padding=1)


def _downsampling_matrix(size: int, x: Tensor) -> Tensor:
    """The kernel [1, 3, 3, 1] / 8 with stride 2 as a matrix (size / 2, size) of the dtype of x; zeros outside."""
    pixels = torch.arange(size, device=x.device)
    offset = pixels - 2 * pixels[: size // 2, None] - 0.5
    return ((2 - offset.abs()) / 4).clamp(min=0).to(x)


def _separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Rows and columns of (B, C, H, W) times a matrix each, in channels-last memory.

    Matrix products, since PyTorch has no fast depthwise convolution for bf16 on a CPU.
    """
    batch, channels, _, width = x.shape
    x = (rows @ x.permute(0, 2, 3, 1).flatten(2)).view(batch, -1, width, channels)
    return (columns @ x).permute(0, 3, 1, 2)


def upsample(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 2H, 2W): zeros between pixels, then the kernel [1, 3, 3, 1] / 4 along both axes."""
    return _separable(x, *(2 * _downsampling_matrix(2 * size, x).T for size in x.shape[2:]))


def downsample(x: Tensor) -> Tensor:
    """(B, C, 2H, 2W) to (B, C, H, W): the kernel [1, 3, 3, 1] / 8 along both axes, then every second pixel."""
    return _separable(x, *(_downsampling_matrix(size, x) for size in x.shape[2:]))
