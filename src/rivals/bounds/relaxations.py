"""Linear bounds of nonlinear operations over intervals (CROWN, Zhang et al. 2018, *Efficient Neural Network Robustness
Certification with General Activation Functions*)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rivals.bounds.operators import MaxPool2d, ReLU
from rivals.bounds.rounding import unit


@dataclass(frozen=True)
class LinearBounds:
    """``lower_slope z <= f(z) <= upper_slope z + upper_intercept`` for z in an interval, elementwise (B, ...)."""

    lower_slope: Tensor
    upper_slope: Tensor
    upper_intercept: Tensor
    unstable: Tensor
    """Where the function is not linear over the interval, so that any slope from that of the negative part to 1 is a
    lower bound."""


def relax_relu(operator: ReLU, lower: Tensor, upper: Tensor) -> LinearBounds:
    """The line through both ends from above, and from below the line with the slope that is closer (Zhang et al. 2018,
    table 2 and sec. 3.3).

    Args:
        operator: A ReLU, or a leaky one.
        lower: Lower bounds of its input.
        upper: Upper bounds.
    """
    slope = operator.slope
    unstable = (lower < 0) & (upper > 0)
    linear = torch.where(lower >= 0, 1.0, slope).to(lower.dtype)
    safe_lower, safe_upper = torch.where(unstable, lower, -1.0), torch.where(unstable, upper, 1.0)
    chord = (safe_upper - slope * safe_lower) / (safe_upper - safe_lower)
    # Whatever rounding did to the slope, the line is above the function where it is above it at both ends.
    ends = torch.maximum(slope * safe_lower - chord * safe_lower, safe_upper - chord * safe_upper)
    raised = ends + 8 * unit(lower.dtype) * torch.maximum(safe_upper, -safe_lower)
    closer = torch.where(upper > -lower, 1.0, slope).to(lower.dtype)
    return LinearBounds(
        torch.where(unstable, closer, linear),
        torch.where(unstable, chord, linear),
        torch.where(unstable, raised, torch.zeros_like(raised)),
        unstable,
    )


@dataclass(frozen=True)
class PoolBounds:
    """``z_place <= max z``, and ``max z <= z_place`` where ``exact``, else ``max z <= most``; for windows (B, C, n)."""

    place: Tensor
    exact: Tensor
    most: Tensor


def relax_max_pool(operator: MaxPool2d, lower: Tensor, upper: Tensor) -> PoolBounds:
    """The entry with the largest lower bound, from below; from above the largest upper bound, unless one entry always
    wins.

    Args:
        operator: The pooling.
        lower: Lower bounds of its input (B, C, H, W).
        upper: Upper bounds.
    """
    with torch.no_grad():  # which entries are taken; only the largest upper bound is a function of the bounds
        lowers, uppers = operator.windows(lower), operator.windows(upper)
        best, entry = lowers.max(2, keepdim=True)
        others = uppers.scatter(2, entry, -torch.inf).amax(2)
        place, exact = operator.places(lower), others <= best[:, :, 0]
    return PoolBounds(place, exact, operator(upper).flatten(2))
