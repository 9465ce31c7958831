"""Per-image views and norms of batches (n, ...)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def batch_view(values: Tensor, x: Tensor) -> Tensor:
    """One value per image, (n,), as (n, 1, ..., 1), which broadcasts with ``x``, (n, ...)."""
    return values.view(-1, *[1] * (x.ndim - 1))


def image_norm(x: Tensor, p: float) -> Tensor:
    """The Lp norm of each image, (n,)."""
    flat = x.flatten(1)
    # vector_norm(ord=inf) takes ten times as long as abs().amax().
    norms: Tensor = flat.abs().amax(1) if p == math.inf else torch.linalg.vector_norm(flat, p, dim=1)
    return norms


def image_mean(x: Tensor) -> Tensor:
    """The mean of each image's values, (n,)."""
    return x.reshape(len(x), -1).mean(1)


def at_least_float32(x: Tensor) -> Tensor:
    """The values in float32, or in float64 if they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def nonzero_norm(x: Tensor, p: float) -> Tensor:
    """The Lp norm of each image, (n,), clamped away from 0, as a divisor."""
    return image_norm(x, p).clamp_min(torch.finfo(x.dtype).tiny)
