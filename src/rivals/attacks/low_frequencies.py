"""Smooth random directions: noise whose discrete cosine transform has low frequencies only."""

from __future__ import annotations

import functools
import math

import torch
from torch import Generator, Tensor


def low_frequency_noise(like: Tensor, share: float, generator: Generator) -> Tensor:
    """Gaussian noise like one image (1, C, H, W) of the lowest frequencies of height and width; white for others.

    Args:
        like: Gives shape, type and device.
        share: Of the frequencies of each side, from 0 to 1: the lowest, at least one.
        generator: A CPU generator.
    """
    noise = torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
    if like.ndim != 4 or share == 1:
        return noise
    height, width = like.shape[2:]
    rows, columns = (max(int(share * side), 1) for side in (height, width))
    vertical, horizontal = (dct_basis(side).to(like)[:kept] for side, kept in ((height, rows), (width, columns)))
    return torch.einsum("nckl,kh,lw->nchw", noise[:, :, :rows, :columns], vertical, horizontal)


@functools.lru_cache(maxsize=16)
def dct_basis(side: int) -> Tensor:
    """The orthonormal basis (side, side) of the discrete cosine transform, a frequency a row, in double precision."""
    place, frequency = torch.arange(side, dtype=torch.float64) + 0.5, torch.arange(side, dtype=torch.float64)
    basis = (math.pi / side * frequency[:, None] * place).cos() * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    return basis
