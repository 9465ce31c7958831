"""The sets of inputs that bounds are over: norm balls around images, within the box of valid images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.norm_balls import Ball
from rivals.bounds.rounding import above, below

WIDER = 1 + 5e-6
"""Factor of eps, beside the slack of the ball: what counts as inside for an attack is in the set."""


@dataclass(frozen=True)
class Region:
    """A set of inputs for each image of a batch: a box, and where the norm is L2 also a ball.

    Attributes:
        lower: The smallest value of each entry (B, ...).
        upper: The largest.
        center: Of the ball (B, ...); None where the box is the whole set.
        radius: Of the ball in L2.
    """

    lower: Tensor
    upper: Tensor
    center: Tensor | None = None
    radius: float = 0.0

    def part(self, rows: Tensor | slice) -> Region:
        """The sets of some of the images, by their numbers."""
        center = None if self.center is None else self.center[rows]
        return Region(self.lower[rows], self.upper[rows], center, self.radius)

    def pieces(self, size: int) -> Iterator[tuple[slice, Region]]:
        """The sets of so many images at a time, and which they are."""
        for first in range(0, len(self.lower), size):
            rows = slice(first, first + size)
            yield rows, self.part(rows)


def region_of(x: Tensor, ball: Ball) -> Region:
    """A ball around each image, within the box of valid images.

    Linf balls and boxes are boxes. Of an L2 ball and a box, both are kept, and a bound is the better of the two.

    Args:
        x: Images (B, ...).
        ball: Linf or L2, with a number for eps.

    Raises:
        UserError: another norm, or a radius for each image or feature.
    """
    if ball.p not in (2, torch.inf):
        raise UserError(f"no bounds in {type(ball).__name__}: take linf or l2")
    if ball.per_feature or isinstance(ball.eps, Tensor):
        raise UserError("bounds take one radius, and bounds, for all features: give numbers")
    eps, exact = float(ball.eps) * WIDER + 1.01 * ball.slack(x), x.double()
    unit = torch.finfo(x.dtype).eps
    low, high = ball.bounds[0] - unit, ball.bounds[1] + unit
    lower, upper = (exact - eps).clamp_min(low), (exact + eps).clamp_max(high)
    # An image outside the box of valid ones, if only by a rounding error, is in the set too.
    lower, upper = torch.minimum(lower, exact), torch.maximum(upper, exact)
    region = Region(below(lower, x.dtype), above(upper, x.dtype))
    return region if ball.p == torch.inf else Region(region.lower, region.upper, x, eps)
