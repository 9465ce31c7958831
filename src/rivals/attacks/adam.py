"""Adam's moments (Kingma & Ba 2015) with one step count per image, for attacks that keep them in their rows."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rivals.base.tensors import batch_view

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class AdamRows(Protocol):
    """Rows with the moments of the gradient, like the images, and the count of gradients so far (b,)."""

    mean: Tensor
    square: Tensor
    k: Tensor


def adam_moments(rows: AdamRows, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Update the moments; return the corrected first one, and the root of the second, above 0 (Alg. 1 there).

    ``rows.k`` counts this gradient too.
    """
    rows.mean = BETA1 * rows.mean + (1 - BETA1) * gradient
    rows.square = BETA2 * rows.square + (1 - BETA2) * gradient.square()
    mean = rows.mean / batch_view((1 - BETA1**rows.k).to(gradient.dtype), gradient)
    square = rows.square / batch_view((1 - BETA2**rows.k).to(gradient.dtype), gradient)
    return mean, square.sqrt() + max(EPSILON, torch.finfo(gradient.dtype).tiny)
