"""Input checks of the metrics of features: a finite matrix with one row per image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from rivals.base.errors import UserError

Features = Tensor | np.ndarray


def checked(features: Features, name: str, least: int = 1, why: str = "") -> Tensor:
    """Features (n, d) as a tensor without a graph, in float64 or float32.

    Args:
        features: A tensor or an array.
        name: Their name in error messages, as "real".
        least: The fewest rows allowed.
        why: The reason, for the error message.

    Raises:
        UserError: another shape, too few rows, or a value that is not finite.
    """
    found = torch.as_tensor(features).detach()
    if found.ndim != 2 or found.shape[1] == 0:
        raise UserError(f"{name} features have the shape {tuple(found.shape)}: give a matrix (images, dimensions)")
    if len(found) == 0:
        raise UserError(f"the {name} set is empty: give 1 image or more")
    if len(found) < least:
        raise UserError(f"the {name} set has {count(len(found))}: give {least} or more{', ' * bool(why)}{why}")
    if found.dtype not in (torch.float32, torch.float64):
        found = found.float()
    low, high = torch.aminmax(found)  # NaN if any value is
    if not (torch.isfinite(low) and torch.isfinite(high)):
        row = int((~torch.isfinite(found)).any(1).nonzero()[0])
        raise UserError(f"the {name} features of image {row} are not finite: look for NaN in images or extractor")
    return found


def same_dtype(real: Tensor, fake: Tensor, names: tuple[str, str] = ("real", "fake")) -> tuple[Tensor, Tensor]:
    """Both sets in the wider of their dtypes, on the first one's device.

    Raises:
        UserError: they have different dimensions.
    """
    if real.shape[1] != fake.shape[1]:
        raise UserError(
            f"{names[0]} features have {real.shape[1]} dimensions and {names[1]} ones {fake.shape[1]}: "
            "take both from one layer of one extractor"
        )
    dtype = torch.promote_types(real.dtype, fake.dtype)
    return real.to(dtype), fake.to(real.device, dtype)


def count(n: int) -> str:
    """``n`` images, with the right plural."""
    return f"{n} image{'s' * (n != 1)}"


def to_double(x: Tensor) -> Tensor:
    """``x`` in float64, moved off MPS, which has none."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def blocks(n: int, size: int) -> Iterator[slice]:
    """Slices of n rows, ``size`` at a time."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
