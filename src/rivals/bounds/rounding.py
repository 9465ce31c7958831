"""Rounding errors of floating-point sums (Higham 2002, *Accuracy and Stability of Numerical Algorithms*, ch. 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from rivals.base.errors import UserError

EXTRA = 16
"""Roundings beside those of a sum itself: of centers, radii and slopes, and of elementwise operations up to the next
affine layer. There are never more than ten."""


def unit(dtype: torch.dtype) -> float:
    """The unit roundoff u: one operation has a relative error of at most u."""
    return torch.finfo(dtype).eps / 2


def gamma(terms: int, dtype: torch.dtype) -> float:
    """``n u / (1 - n u)``: the largest relative error of a sum of n products, in any order (Higham 2002, lemma 3.1).

    A computed ``<w, x> + b`` differs from the exact one by at most ``gamma * (<|w|, |x|> + |b|)``, with n one more than
    the number of products; ``EXTRA`` are added. This does not hold for Winograd's or a Fourier transform's convolution.

    Raises:
        UserError: sums of so many terms have no bound in this precision.
    """
    n_u = (terms + EXTRA) * unit(dtype)
    if n_u >= 0.5:
        raise UserError(
            f"sums of {terms:,} terms have no error bound in {dtype}: give the model in float32, by .float()"
        )
    return n_u / (1 - n_u)


def smallest(terms: int, dtype: torch.dtype) -> float:
    """The largest absolute error that underflow adds to a sum of so many products."""
    return (terms + EXTRA) * torch.finfo(dtype).tiny


def below(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Float64 values rounded down to ``dtype``."""
    rounded = x.to(dtype)
    return torch.where(rounded.double() > x, torch.nextafter(rounded, torch.full_like(rounded, -torch.inf)), rounded)


def above(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Float64 values rounded up to ``dtype``."""
    return -below(-x, dtype)
