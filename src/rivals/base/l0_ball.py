"""The L0 ball: at most k components, or pixels, of an image change, each by anything that the box allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from rivals.base.ball import Ball
from rivals.base.errors import UserError
from rivals.base.projections import headroom, largest_components, project_l0
from rivals.base.rng import draw_per_image
from rivals.base.tensors import batch_view, nonzero_norm


@dataclass(frozen=True, eq=False)
class L0(Ball):
    """At most ``eps`` components change, by anything that the box allows: ``|{i : x_adv_i != x_i}| <= eps``.

    Attributes:
        eps: A whole number, or a tensor (n,) of them with one per image.
        pixels: Count pixel positions instead: all channels of a pixel change at the price of one. For images (n, C, H,
            W), or series and videos, whose channels come first too.

    Raises:
        UserError: ``eps`` is no whole number, or whatever :class:`Ball` refuses.
    """

    pixels: bool = False
    p: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        unit = "pixels" if self.pixels else "components"
        for value in self.eps.flatten().tolist() if isinstance(self.eps, Tensor) else [float(self.eps)]:
            if value != round(value):
                raise UserError(f"an L0 eps of {value:g} is no whole number of {unit}: give one, such as 10")

    def radii(self, x: Tensor) -> Tensor:
        if self.pixels and x.ndim < 3:
            raise UserError(
                f"the inputs have the shape {tuple(x.shape)}, without channels: count components, not pixels"
            )
        return super().radii(x)

    def dimensions(self, x: Tensor) -> int:
        if not self.pixels:
            return super().dimensions(x)
        if self.mask is None:
            return math.prod(x.shape[2:])
        return int(self.mask.expand(x.shape[1:]).any(0).sum())

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return self.changed(x_adv, x).flatten(1).sum(1).to(x.dtype)

    def changed(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Which components changed, (n, ...), or which pixels, (n, 1, ...)."""
        changed = x_adv != x
        return changed.any(1, keepdim=True) if self.pixels else changed

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        unit = torch.finfo(x.dtype).eps
        low, high = self.bounds
        in_ball = self.distance(x_adv, x) <= self.radii(x)
        if self.mask is not None:
            in_ball &= ((x_adv == x) | self.mask).flatten(1).all(1)
        in_box: Tensor = ((x_adv >= low - unit) & (x_adv <= high + unit)).flatten(1).all(1)
        return in_ball & in_box

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return project_l0(self.keep_mask(x_adv, x), x, self.radii(x), self.bounds, pixels=self.pixels)

    def linear_max(self, x: Tensor, gradient: Tensor) -> Tensor:
        # To the end of the box in the components whose gradient times headroom is largest.
        gradient = self.on_mask(gradient)
        room = headroom(x, gradient, self.bounds).view_as(x)
        chosen = largest_components(gradient.abs() * room, self.radii(x), pixels=self.pixels)
        return torch.where(chosen, x + gradient.sign() * room, x).clamp_(*self.bounds)

    def steepest_direction(self, gradient: Tensor) -> Tensor:
        """The gradient over its largest value: changes of one component have no length in L0, so none is steepest."""
        gradient = self.on_mask(gradient)
        return gradient / batch_view(nonzero_norm(gradient, math.inf), gradient)

    def step(self, x_adv: Tensor, gradient: Tensor, lengths: Tensor) -> Tensor:
        """The largest component moves across the box times the length's share of eps; the projection then selects."""
        low, high = self.bounds
        share = lengths / self.radii(x_adv).clamp_min(1)
        move: Tensor = batch_view(share, x_adv) * (high - low) * self.steepest_direction(gradient)
        return x_adv + move

    def sample(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        # Components, or pixels, drawn uniformly; in each, a value drawn uniformly from the box.
        low, high = self.bounds
        return self._sparse(low + (high - low) * draw_per_image(torch.rand, x, generators), x, generators)

    def sample_sphere(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        # Each at one end of the box.
        low, high = self.bounds
        ends = (draw_per_image(torch.rand, x, generators) >= 0.5).to(x.dtype)
        return self._sparse(low + (high - low) * ends, x, generators)

    def _sparse(self, values: Tensor, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        """``values`` in eps components or pixels drawn at random from the mask, and x elsewhere."""
        size = (1, *x.shape[2:]) if self.pixels else tuple(x.shape[1:])
        scores = draw_per_image(torch.rand, x, generators, size=size)
        if self.mask is not None:
            mask = self.mask.expand(x.shape[1:])
            scores = scores * (mask.any(0, keepdim=True) if self.pixels else mask)
        chosen = largest_components(scores, self.radii(x), pixels=self.pixels)
        return self.keep_mask(torch.where(chosen, values, x), x).clamp_(*self.bounds)
