"""What norm balls share: a radius, the box of valid images, and the mask that a perturbation keeps to.

Images are (n, ...) in ``bounds``; ``eps`` is in the unit of the images. Every method works image by image.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor

from rivals.base.eps import describe_eps, parse_eps
from rivals.base.errors import UserError
from rivals.base.projections import Bounds
from rivals.base.tensors import batch_view, image_norm


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
        mask: Where an image may change, a bool tensor that broadcasts with one image; None: anywhere. See
            :meth:`masked`.
        p: Of the norm.

    Raises:
        UserError: ``eps`` is negative, not finite or implausible for the norm; ``bounds`` are not in order. The
            methods raise it if ``eps`` does not have one entry per image.
    """

    eps: float | str | Tensor
    bounds: Bounds = (0.0, 1.0)
    p: ClassVar[float]
    scale: Tensor | None = field(default=None, init=False, repr=False)
    mask: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        # Off the device first: MPS has no float64.
        plain = (bound.cpu() if isinstance(bound, Tensor) else bound for bound in self.bounds)
        low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in plain)
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
        return f"{type(self).__name__}({eps}{'' if self.mask is None else ', masked'})"

    @property
    def per_feature(self) -> bool:
        """Whether bounds, radii or a mask are tensors that fit images of one shape only."""
        return self.scale is not None or self.mask is not None or isinstance(self.bounds[0], Tensor)

    def masked(self, mask: Tensor | None) -> Self:
        """The same ball, in which an image changes only where ``mask`` is True: regions, channels or frames.

        Args:
            mask: A bool tensor that broadcasts with one image, such as (H, W) or (C, 1, 1); None for no mask.

        Raises:
            UserError: it is no bool tensor, or nowhere True.
        """
        if mask is not None:
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                kind = f"tensor of {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
                raise UserError(f"the mask is a {kind}: give a tensor of torch.bool, True where the image may change")
            if not bool(mask.any()):
                raise UserError("the mask is nowhere True, so nothing may change: mark a place to attack")
        other = copy.copy(self)
        object.__setattr__(other, "mask", mask)
        return other

    def on_mask(self, values: Tensor) -> Tensor:
        """A gradient, direction or noise (n, ...), 0 outside the mask."""
        return values if self.mask is None else values * self.mask

    def keep_mask(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """``x_adv`` inside the mask, exactly ``x`` outside, (n, ...)."""
        return x_adv if self.mask is None else torch.where(self.mask, x_adv, x)

    def dimensions(self, x: Tensor) -> int:
        """How many values of an image of ``x`` (n, ...) may change."""
        size = math.prod(x.shape[1:])
        return size if self.mask is None else int(self.mask.expand(x.shape[1:]).sum())

    def with_eps(self, eps: Tensor) -> Self:
        """The same ball with other radii, which are not checked."""
        other = copy.copy(self)
        object.__setattr__(other, "eps", eps)
        return other

    def laid_out(self, x: Tensor, layout: Callable[[Tensor], Tensor]) -> Self:
        """The same ball for ``layout(x)``, which arranges the features of inputs (n, ...) in another shape."""

        def moved(values: Any) -> Any:
            return layout(values.expand(1, *x.shape[1:]))[0] if isinstance(values, Tensor) else values

        other = copy.copy(self)
        object.__setattr__(other, "bounds", tuple(moved(bound) for bound in self.bounds))
        object.__setattr__(other, "scale", moved(self.scale))
        object.__setattr__(other, "mask", moved(self.mask))
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
        if self.mask is not None:
            check_broadcast("mask", self.mask, x)
            if self.mask.device != x.device:
                raise UserError(
                    f"the mask is on {self.mask.device} and the images on {x.device}: move it by .to(x.device)"
                )
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
        unit, slack = torch.finfo(x.dtype).eps, self.slack(x)
        radii = self.radii(x) * (1 + 32 * unit)
        if self.scale is None:
            in_ball: Tensor = self.distance(x_adv, x) <= radii + slack
        else:
            in_ball = ((x_adv - x).abs() <= batch_view(radii, x) * self.scale + slack).flatten(1).all(1)
        if self.mask is not None:  # exactly: nothing is computed there
            in_ball &= ((x_adv == x) | self.mask).flatten(1).all(1)
        in_box: Tensor = ((x_adv >= low - unit) & (x_adv <= high + unit)).flatten(1).all(1)
        return in_ball & in_box

    def slack(self, x: Tensor) -> float:
        """By how much :meth:`contains` lets the norm exceed a radius for images like ``x`` (n, ...)."""
        size = float(max(1, math.prod(x.shape[1:])) ** (1 / self.p))
        largest = max(float(torch.as_tensor(bound).abs().amax()) for bound in self.bounds)
        return 2 * torch.finfo(x.dtype).eps * largest * size

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


def describe_bounds(bounds: Bounds) -> str:
    """Bounds as text: numbers, or the range of those per feature."""
    low, high = (
        "a tensor" if isinstance(bound, Tensor) and bound.numel() > 1 else f"{float(bound):g}" for bound in bounds
    )
    return f"({low}, {high})"


_FIXES = {
    "eps": "give (1, ...) with a radius per feature, for all images alike, or (n,) with one per image",
    "bounds": "give (...) with one per feature, for all images alike",
    "mask": "give one for all images, such as (H, W) or (C, 1, 1)",
}


def check_broadcast(name: str, values: Tensor, x: Tensor) -> None:
    """Refuse a tensor per feature, ``eps``, ``bounds`` or ``mask``, that does not broadcast with one image of (n, ...).

    Raises:
        UserError: it does not.
    """
    shape = (1, *x.shape[1:])
    verb = "has" if name == "mask" else "have"
    sides = (1,) * (len(shape) - values.ndim) + tuple(values.shape)
    if len(sides) != len(shape) or any(side not in (1, length) for side, length in zip(sides, shape, strict=True)):
        raise UserError(
            f"{name} {verb} the shape {tuple(values.shape)}, which does not broadcast with one image of "
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
