"""Norm balls, intersected with the box of valid images: ``Linf(8 / 255)``, ``L2(0.5)``, ``L1(12.0)``, ``L0(10)``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from rivals.base.ball import Ball, check_broadcast, describe_bounds
from rivals.base.errors import UserError
from rivals.base.l0_ball import L0
from rivals.base.projections import headroom, l2_boundary_along, project_l1, project_l2, project_linf
from rivals.base.registry import Registry
from rivals.base.rng import draw_per_image
from rivals.base.tensors import batch_view, image_norm, nonzero_norm

__all__ = ["BALLS", "L0", "L1", "L2", "Ball", "Linf", "ball_for", "check_broadcast", "describe_bounds"]


@dataclass(frozen=True, eq=False)
class Linf(Ball):
    """Every value may change by up to ``eps``: ``max |x_adv - x| <= eps``."""

    p: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        eps = float(torch.as_tensor(self.eps).amax()) if torch.as_tensor(self.eps).numel() else 0.0
        if any(isinstance(bound, Tensor) for bound in self.bounds):
            return
        low, high = (float(bound) for bound in self.bounds)
        if eps > (high - low) * (1 + 1e-6):
            # Usually an eps in units of 1/255.
            hint = (
                f"did you mean {eps:g}/255?" if (low, high) == (0, 1) and eps <= 255 else f"take {high - low:g} or less"
            )
            raise UserError(f"an Linf eps of {eps:g} is wider than the images' range [{low:g}, {high:g}]: {hint}")

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        change = x_adv - x
        if self.scale is not None:
            # In units of the scale: 0 / 0 is 0, a change where none is allowed infinite.
            change = (change.abs() / self.scale).nan_to_num(nan=0.0, posinf=math.inf)
        return image_norm(change, self.p)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return project_linf(x_adv, x, self._scaled(batch_view(self.radii(x), x)), self.bounds)

    def linear_max(self, x: Tensor, gradient: Tensor) -> Tensor:
        return (x + self._scaled(batch_view(self.radii(x), x)) * gradient.sign()).clamp_(*self.bounds)

    def steepest_direction(self, gradient: Tensor) -> Tensor:
        return self._scaled(gradient.sign())

    def sample(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        noise = draw_per_image(torch.rand, x, generators).mul_(2).sub_(1)
        return noise.mul_(self._scaled(batch_view(self.radii(x), x))).add_(x).clamp_(*self.bounds)

    def sample_sphere(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        noise = draw_per_image(torch.rand, x, generators).mul_(2).sub_(1)
        length = batch_view(self.radii(x) / nonzero_norm(self.on_mask(noise), self.p), x)
        return (x + noise * self._scaled(length)).clamp_(*self.bounds)

    def _scaled(self, values: Tensor) -> Tensor:
        return self.on_mask(values if self.scale is None else values * self.scale)


@dataclass(frozen=True, eq=False)
class L2(Ball):
    """The Euclidean norm of the change is at most ``eps``: ``sqrt(sum (x_adv - x)^2) <= eps``."""

    p: ClassVar[float] = 2.0

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return project_l2(self.keep_mask(x_adv, x), x, self.radii(x), self.bounds)

    def linear_max(self, x: Tensor, gradient: Tensor) -> Tensor:
        gradient = self.on_mask(gradient)
        scaled = gradient / batch_view(nonzero_norm(gradient, math.inf), x)
        return l2_boundary_along(scaled, x, self.radii(x), self.bounds)

    def steepest_direction(self, gradient: Tensor) -> Tensor:
        # Divided by the largest value first: the squares of gradients below 1e-22 underflow in single precision.
        gradient = self.on_mask(gradient)
        scaled = gradient / batch_view(nonzero_norm(gradient, math.inf), gradient)
        return scaled / batch_view(nonzero_norm(scaled, self.p), scaled)

    def sample(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        # A Gaussian direction and a radius of eps U^(1/D): a ball's volume grows with the D-th power of its radius.
        noise = self.on_mask(draw_per_image(torch.randn, x, generators))
        share = draw_per_image(torch.rand, x, generators, size=()) ** (1 / max(self.dimensions(x), 1))
        length = share.to(x.dtype) * self.radii(x) / nonzero_norm(noise, self.p)
        return (x + noise * batch_view(length, x)).clamp_(*self.bounds)

    def sample_sphere(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        noise = self.on_mask(draw_per_image(torch.randn, x, generators))
        return (x + noise * batch_view(self.radii(x) / nonzero_norm(noise, self.p), x)).clamp_(*self.bounds)


@dataclass(frozen=True, eq=False)
class L1(Ball):
    """The absolute changes of all values add up to at most ``eps``: ``sum |x_adv - x| <= eps``."""

    p: ClassVar[float] = 1.0

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return project_l1(self.keep_mask(x_adv, x), x, self.radii(x), self.bounds)

    def linear_max(self, x: Tensor, gradient: Tensor) -> Tensor:
        # Greedy: spend eps on the largest coordinates of the gradient, each up to the box (Croce & Hein 2021, sec. 2).
        radii, gradient = self.radii(x), self.on_mask(gradient)
        size, order, h = self._largest(x, gradient, radii)
        left = (radii[:, None] - (h.cumsum(1) - h)).clamp_min_(0)
        change = torch.zeros_like(x).flatten(1).scatter_(1, order, torch.minimum(left, h) * size.sign())
        return (x + gradient.sign() * change.view_as(x)).clamp_(*self.bounds)

    def steepest_direction(self, gradient: Tensor, count: Tensor | None = None) -> Tensor:
        """Equal steps, of norm 1 in all, in the largest coordinates of the gradient.

        Args:
            gradient: (n, ...).
            count: Number of coordinates for each image, (n,); by default one, which is steepest.
        """
        gradient = self.on_mask(gradient)
        size = gradient.abs().flatten(1)
        if count is None:
            least = size.amax(1, keepdim=True)
        else:
            place = count.long().clamp(1, size.shape[1]) - 1
            least = size.topk(int(place.max()) + 1, dim=1).values.gather(1, place[:, None])
        signs = gradient.flatten(1).sign().masked_fill(size < least, 0)
        return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)

    def step(self, x_adv: Tensor, gradient: Tensor, lengths: Tensor) -> Tensor:
        """A step in as many of the largest coordinates as it takes to move by the length; one is often at the box.

        Each moves in proportion to its gradient, the largest that can move by the whole length. Coordinates at the
        box are pushed too: the projection, which takes the same off all of them, would otherwise pull them back.
        """
        # Coordinates up to the first k whose headroom adds up to the length.
        gradient = self.on_mask(gradient)
        size, order, h = self._largest(x_adv, gradient, lengths)
        pushed = h.cumsum(1) - h < lengths[:, None]
        top = (size * h.sign()).amax(1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
        push = lengths[:, None] * pushed * (size / top).clamp_max(1)
        return x_adv + gradient.sign() * torch.zeros_like(x_adv).flatten(1).scatter_(1, order, push).view_as(x_adv)

    def _largest(self, x: Tensor, gradient: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The largest coordinates of the gradient, as many as have headroom for the lengths (n,), or all.

        Returns:
            Their absolute values, indices and headroom, each (n, k).
        """
        size, h = gradient.abs().flatten(1), headroom(x, gradient, self.bounds)
        # A few are usually enough, and topk finds them much faster than a sort.
        count = 32
        while True:
            count = min(4 * count, size.shape[1])
            top, order = size.topk(count, dim=1)
            h_top = h.gather(1, order)
            if count == size.shape[1] or bool(((h_top * top.sign()).sum(1) >= lengths).all()):
                return top, order, h_top * top.sign()

    def sample(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        # D exponential variables over the sum of D + 1 of them are uniform on the simplex and its inside.
        # Random signs; exponential variables -log(1 - U).
        signs = draw_per_image(torch.rand, x, generators).sub_(0.5).sign()
        u = draw_per_image(torch.rand, x, generators, size=tuple(x.shape[1:]))  # below 1: not rounded to x's precision
        sizes = self.on_mask(u.neg_().log1p_().neg_().to(x.dtype))
        one_more = draw_per_image(torch.rand, x, generators, size=()).neg_().log1p_().neg_()
        total = sizes.flatten(1).sum(1) + one_more.to(x.dtype)
        return (x + signs * sizes * batch_view(self.radii(x) / total, x)).clamp_(*self.bounds)

    def sample_sphere(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        # Projected Gaussian noise is sparse, as good L1 perturbations are; a uniform point is not.
        return self.project(x + draw_per_image(torch.randn, x, generators), x)  # which keeps to the mask


BALLS: Registry[type[Ball]] = Registry("norm", {"linf": Linf, "l2": L2, "l1": L1, "l0": L0})


def ball_for(norm: str, eps: float | Tensor, *, pixels: bool = False) -> Ball:
    """The ball of a norm's name, ``linf``, ``l2``, ``l1`` or ``l0``, and a radius.

    Args:
        norm: The name.
        eps: The radius.
        pixels: In L0, count pixel positions instead of components.

    Raises:
        UserError: unknown name, or ``eps`` is not a radius for it.
    """
    kind = BALLS[norm]
    if pixels:
        if kind is not L0:
            raise UserError(f"pixels are counted in L0, the norm is {norm}: leave --pixels out, or add --norm l0")
        return L0(eps, pixels=True)
    return kind(eps)
