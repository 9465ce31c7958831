"""Norm balls, intersected with the box of valid images: ``Linf(8 / 255)``, ``L2(0.5)``, ``L1(12.0)``.

Images are (n, ...) in ``bounds``; ``eps`` is in the unit of the images. Every method works image by image.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from rivals.base.eps import describe_eps, parse_eps
from rivals.base.errors import UserError
from rivals.base.projections import (
    Bounds,
    headroom,
    l2_boundary_along,
    project_l1,
    project_l2,
    project_linf,
)
from rivals.base.registry import Registry
from rivals.base.rng import draw_per_image
from rivals.base.tensors import batch_view, image_norm, nonzero_norm


@dataclass(frozen=True, eq=False)
class Ball(ABC):
    """An Lp ball intersected with a box.

    Attributes:
        eps: The radius: a number, text as ``"8/255"``, or a tensor (n,) with one per image. In Linf also a tensor of
            two dimensions or more that broadcasts with (1, ...): a radius per feature, 0 for those that must not
            change. It becomes the largest of them, and ``scale``.
        bounds: The smallest and the largest value of a valid image: numbers, or tensors that broadcast with one image,
            for bounds per feature.
        scale: The share of eps by which each feature may change, or None for all of it.
        p: Of the norm.

    Raises:
        UserError: ``eps`` is negative, not finite or implausible for the norm; ``bounds`` are not in order. The
            methods raise it if ``eps`` does not have one entry per image.
    """

    eps: float | str | Tensor
    bounds: Bounds = (0.0, 1.0)
    p: ClassVar[float]
    scale: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in self.bounds)
        if not bool((low.isfinite() & high.isfinite() & (low < high)).all()):
            raise UserError(
                f"bounds of {describe_bounds(self.bounds)} hold no image: give the smallest value, then the largest"
            )
        if any(isinstance(bound, Tensor) for bound in self.bounds):
            like = next(bound for bound in self.bounds if isinstance(bound, Tensor))
            object.__setattr__(self, "bounds", tuple(torch.as_tensor(bound).to(like) for bound in self.bounds))
        if isinstance(self.eps, str):
            object.__setattr__(self, "eps", parse_eps(self.eps))
        if isinstance(self.eps, Tensor):
            eps = self.eps.detach()
            eps = eps if eps.is_floating_point() else eps.float()
            values = eps.flatten().tolist()
            if eps.ndim > 1:
                eps = self._largest_of(eps)
            object.__setattr__(self, "eps", eps)
        else:
            values = [float(self.eps)]
        for value in values:
            if not 0 <= value < math.inf:
                raise UserError(f"an eps of {value:g} is not a radius: take 0 or more, in the unit of the images")

    def _largest_of(self, eps: Tensor) -> Tensor:
        """The largest radius of any feature; what share of it each may use becomes ``scale``."""
        if self.p != math.inf:
            raise UserError(
                f"eps has the shape {tuple(eps.shape)}: give a number, or a tensor with one per image; a radius per "
                "feature is for Linf"
            )
        most = eps.amax()
        object.__setattr__(self, "scale", eps / most.clamp_min(torch.finfo(eps.dtype).tiny))
        return most

    def __str__(self) -> str:
        one_per_image = isinstance(self.eps, Tensor) and self.eps.ndim
        eps = "a tensor" if one_per_image else describe_eps(f"{float(self.eps):g}", self.scale is not None)
        return f"{type(self).__name__}({eps})"

    @property
    def per_feature(self) -> bool:
        """Whether bounds or radii are tensors that fit images of one shape only."""
        return self.scale is not None or isinstance(self.bounds[0], Tensor)

    def with_eps(self, eps: Tensor) -> Self:
        """The same ball with other radii, which are not checked."""
        other = copy.copy(self)
        object.__setattr__(other, "eps", eps)
        return other

    def radii(self, x: Tensor) -> Tensor:
        """``eps`` for each image of ``x``, shape (n,), in the images' dtype and on their device.

        Raises:
            UserError: ``eps`` has another number of entries, or ``eps`` or bounds per feature do not fit the images.
        """
        eps = torch.as_tensor(self.eps, dtype=x.dtype, device=x.device)
        for name, values in (("eps", self.scale), ("bounds", self.bounds[0]), ("bounds", self.bounds[1])):
            if isinstance(values, Tensor):
                _check_features(name, values, x)
        if eps.ndim == 1 and len(eps) != len(x):
            raise UserError(f"eps has {len(eps)} entries for {len(x)} images: give a number, or one for each image")
        return eps.expand(len(x))

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The norm of ``x_adv - x`` for each image, shape (n,)."""
        return image_norm(x_adv - x, self.p)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Which images lie in ball and box, shape (n,), up to the rounding of their dtype.

        A coordinate of an image is rounded by up to ``u = max(|bounds|) * 2^-23`` (single precision), so a norm by up
        to ``u * D^(1/p)``; the sums of a projection add a few units in the last place of ``eps``.
        """
        low, high = self.bounds
        unit = torch.finfo(x.dtype).eps
        size = max(1, math.prod(x.shape[1:])) ** (1 / self.p)
        slack = 2 * unit * max(float(torch.as_tensor(bound).abs().amax()) for bound in self.bounds) * size
        radii = self.radii(x) * (1 + 32 * unit)
        if self.scale is None:
            in_ball: Tensor = self.distance(x_adv, x) <= radii + slack
        else:
            in_ball = ((x_adv - x).abs() <= batch_view(radii, x) * self.scale + slack).flatten(1).all(1)
        in_box: Tensor = ((x_adv >= low - unit) & (x_adv <= high + unit)).flatten(1).all(1)
        return in_ball & in_box

    @abstractmethod
    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The point of ball and box (n, ...) nearest to ``x_adv`` (n, ...) in the Euclidean norm.

        The centers ``x`` (n, ...) must lie in the box.
        """

    @abstractmethod
    def linear_max(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The point z of ball and box that maximizes ``<gradient, z>``, all (n, ...): optimal for a linear model."""

    @abstractmethod
    def steepest_direction(self, gradient: Tensor) -> Tensor:
        """The direction of norm 1 that maximizes ``<gradient, .>``, both (n, ...), without the box.

        0 where the gradient is 0.
        """

    def step(self, x_adv: Tensor, gradient: Tensor, lengths: Tensor) -> Tensor:
        """A step of length (n,) in the steepest direction, before projection: it may leave ball and box.

        A maximum of a linear loss is a fixed point of step and projection, whatever the length.
        """
        return x_adv + batch_view(lengths, x_adv) * self.steepest_direction(gradient)

    @abstractmethod
    def sample(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        """A point drawn uniformly from each image's ball, (n, ...), then clipped to the box. n CPU generators."""

    @abstractmethod
    def sample_sphere(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        """A random point on each image's sphere, (n, ...), then clipped to the box: APGD's start. n CPU generators."""


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
        length = batch_view(self.radii(x) / nonzero_norm(noise, self.p), x)
        return (x + noise * self._scaled(length)).clamp_(*self.bounds)

    def _scaled(self, values: Tensor) -> Tensor:
        return values if self.scale is None else values * self.scale


@dataclass(frozen=True, eq=False)
class L2(Ball):
    """The Euclidean norm of the change is at most ``eps``: ``sqrt(sum (x_adv - x)^2) <= eps``."""

    p: ClassVar[float] = 2.0

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return project_l2(x_adv, x, self.radii(x), self.bounds)

    def linear_max(self, x: Tensor, gradient: Tensor) -> Tensor:
        scaled = gradient / batch_view(nonzero_norm(gradient, math.inf), x)
        return l2_boundary_along(scaled, x, self.radii(x), self.bounds)

    def steepest_direction(self, gradient: Tensor) -> Tensor:
        # Divided by the largest value first: the squares of gradients below 1e-22 underflow in single precision.
        scaled = gradient / batch_view(nonzero_norm(gradient, math.inf), gradient)
        return scaled / batch_view(nonzero_norm(scaled, self.p), scaled)

    def sample(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        # A Gaussian direction and a radius of eps U^(1/D): a ball's volume grows with the D-th power of its radius.
        noise = draw_per_image(torch.randn, x, generators)
        share = draw_per_image(torch.rand, x, generators, size=()) ** (1 / math.prod(x.shape[1:]))
        length = share * self.radii(x) / nonzero_norm(noise, self.p)
        return (x + noise * batch_view(length, x)).clamp_(*self.bounds)

    def sample_sphere(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        noise = draw_per_image(torch.randn, x, generators)
        return (x + noise * batch_view(self.radii(x) / nonzero_norm(noise, self.p), x)).clamp_(*self.bounds)


@dataclass(frozen=True, eq=False)
class L1(Ball):
    """The absolute changes of all values add up to at most ``eps``: ``sum |x_adv - x| <= eps``."""

    p: ClassVar[float] = 1.0

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return project_l1(x_adv, x, self.radii(x), self.bounds)

    def linear_max(self, x: Tensor, gradient: Tensor) -> Tensor:
        # Greedy: spend eps on the largest coordinates of the gradient, each up to the box (Croce & Hein 2021, sec. 2).
        radii = self.radii(x)
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
        sizes = draw_per_image(torch.rand, x, generators).neg_().log1p_().neg_()
        one_more = draw_per_image(torch.rand, x, generators, size=()).neg_().log1p_().neg_()
        total = sizes.flatten(1).sum(1) + one_more
        return (x + signs * sizes * batch_view(self.radii(x) / total, x)).clamp_(*self.bounds)

    def sample_sphere(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        # Projected Gaussian noise is sparse, as good L1 perturbations are; a uniform point is not.
        return self.project(x + draw_per_image(torch.randn, x, generators), x)


def describe_bounds(bounds: Bounds) -> str:
    """Bounds as text: numbers, or the range of those per feature."""
    low, high = (
        "a tensor" if isinstance(bound, Tensor) and bound.numel() > 1 else f"{float(bound):g}" for bound in bounds
    )
    return f"({low}, {high})"


_FIXES = {
    "eps": "give (1, ...) with a radius per feature, for all images alike, or (n,) with one per image",
    "bounds": "give (...) with one per feature, for all images alike",
}


def check_broadcast(name: str, values: Tensor, x: Tensor) -> None:
    """Refuse a tensor per feature, ``eps`` or ``bounds``, that does not broadcast with one of the images (n, ...).

    Raises:
        UserError: it does not.
    """
    shape = (1, *x.shape[1:])
    sides = (1,) * (len(shape) - values.ndim) + tuple(values.shape)
    if len(sides) != len(shape) or any(side not in (1, length) for side, length in zip(sides, shape, strict=True)):
        raise UserError(
            f"{name} have the shape {tuple(values.shape)}, which does not broadcast with one image of "
            f"{tuple(x.shape[1:])}: {_FIXES[name]}"
        )


def _check_features(name: str, values: Tensor, x: Tensor) -> None:
    """Refuse a tensor per feature that does not fit images (n, ...), of another type or elsewhere."""
    check_broadcast(name, values, x)
    if values.dtype != x.dtype or values.device != x.device:
        raise UserError(
            f"{name} are {values.dtype} on {values.device} and the images {x.dtype} on {x.device}: convert them by "
            ".to(x)"
        )


BALLS: Registry[type[Ball]] = Registry("norm", {"linf": Linf, "l2": L2, "l1": L1})


def ball_for(norm: str, eps: float | Tensor) -> Ball:
    """The ball of a norm's name, ``linf``, ``l2`` or ``l1``, and a radius.

    Raises:
        UserError: unknown name, or ``eps`` is not a radius for it.
    """
    return BALLS[norm](eps)
