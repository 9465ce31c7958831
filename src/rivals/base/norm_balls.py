"""The sets an adversarial image may be taken from: a norm ball around the image, cut by the box of valid images.

``Linf(8 / 255)``, ``L2(0.5)``, ``L1(12.0)``. Images are (n, ...) in ``bounds``; ``eps`` is in the unit of the images, a
number or a tensor (n,) with one radius an image. Every method works image by image.

All three projections are exact, onto the *intersection* of ball and box: clipping to the box after projecting onto
the ball stays in the set, but ends short of the nearest point (Croce & Hein 2021, sec. 2).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from rivals.base.errors import UserError

Draw = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Ball(ABC):
    """A norm ball cut by a box.

    Attributes:
        eps: The radius: a number, or a tensor (n,) with one for each image.
        bounds: The smallest and the largest value of a valid image.

    Raises:
        UserError: ``eps`` is negative or not finite, or absurd for the norm; ``bounds`` are not in order. The
            methods raise it where ``eps`` does not have as many entries as there are images.
    """

    eps: float | Tensor
    bounds: tuple[float, float] = (0.0, 1.0)
    p: ClassVar[float]

    def __post_init__(self) -> None:
        low, high = self.bounds
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UserError(f"bounds of ({low:g}, {high:g}) hold no image: give the smallest value, then the largest")
        if isinstance(self.eps, Tensor):
            eps = self.eps.detach()
            object.__setattr__(self, "eps", eps if eps.is_floating_point() else eps.float())
            if eps.ndim > 1:
                raise UserError(f"eps has the shape {tuple(eps.shape)}: give a number, or a tensor with one per image")
            values = eps.flatten().tolist()
        else:
            values = [float(self.eps)]
        for value in values:
            if not 0 <= value < math.inf:
                raise UserError(f"an eps of {value:g} is no radius: take 0 or more, in the unit of the images")

    def __str__(self) -> str:
        eps = "a tensor" if isinstance(self.eps, Tensor) and self.eps.ndim else f"{float(self.eps):g}"
        return f"{type(self).__name__}({eps})"

    def sized(self, eps: Tensor) -> Self:
        """The same ball with other radii, which are taken as they are."""
        other = copy.copy(self)
        object.__setattr__(other, "eps", eps)
        return other

    def radii(self, x: Tensor) -> Tensor:
        """``eps`` for each image of ``x``, shape (n,), in the images' dtype and on their device."""
        eps = torch.as_tensor(self.eps, dtype=x.dtype, device=x.device)
        if eps.ndim == 1 and len(eps) != len(x):
            raise UserError(f"eps has {len(eps)} entries for {len(x)} images: give a number, or one for each image")
        return eps.expand(len(x))

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The norm of ``x_adv - x`` for each image, shape (n,)."""
        return _length(x_adv - x, self.p)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Which images lie in ball and box, shape (n,), but for what rounding to their dtype can add.

        A coordinate of an image is rounded by up to ``u = max(|bounds|) * 2^-23`` (single precision), so a norm by up
        to ``u * D^(1/p)``; the sums of a projection add a few units in the last place of ``eps``.
        """
        low, high = self.bounds
        unit = torch.finfo(x.dtype).eps
        size = max(1, math.prod(x.shape[1:])) ** (1 / self.p)
        slack = 2 * unit * max(abs(low), abs(high)) * size
        near: Tensor = self.distance(x_adv, x) <= self.radii(x) * (1 + 32 * unit) + slack
        flat = x_adv.flatten(1)
        return near & (flat >= low - unit).all(1) & (flat <= high + unit).all(1)

    @abstractmethod
    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The point of ball and box nearest to ``x_adv`` in the Euclidean norm. ``x`` must lie in the box."""

    @abstractmethod
    def maximise(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The point z of ball and box with the largest ``<gradient, z>``: the best answer of a linear model."""

    @abstractmethod
    def dual(self, gradient: Tensor) -> Tensor:
        """The step of norm 1 along which a linear loss climbs fastest, walls aside; 0 where the gradient is 0."""

    def step(self, x_adv: Tensor, gradient: Tensor, lengths: Tensor) -> Tensor:
        """A step of each image's length (n,) up the gradient, to be projected. It may leave ball and box.

        A point that is best for a linear loss is one that step and projection lead back to, however long the step.
        """
        return x_adv + _column(lengths, x_adv) * self.dual(gradient)

    @abstractmethod
    def random(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        """A point drawn uniformly from each image's ball, then clipped to the box. One CPU generator an image."""

    @abstractmethod
    def edge(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        """A random point on each image's sphere, then clipped to the box: where APGD starts. One generator an image."""

    def _room(self, x: Tensor, direction: Tensor) -> Tensor:
        """How far each coordinate can go along ``direction`` before it meets a wall, (n, D)."""
        # high - x where the sign is 1, x - low where it is -1: by a sign, as a choice by mask takes ten times as long.
        low, high = self.bounds
        return (direction.sign() * ((high + low) / 2 - x) + (high - low) / 2).clamp_min_(0).flatten(1)


@dataclass(frozen=True, eq=False)
class Linf(Ball):
    """Every value may change by up to ``eps``: ``max |x_adv - x| <= eps``."""

    p: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.bounds
        eps = float(torch.as_tensor(self.eps).amax()) if torch.as_tensor(self.eps).numel() else 0.0
        if eps > (high - low) * (1 + 1e-6):
            hint = (
                f"did you mean {eps:g}/255?" if (low, high) == (0, 1) and eps <= 255 else f"take {high - low:g} or less"
            )
            raise UserError(f"an Linf eps of {eps:g} is wider than the images' range [{low:g}, {high:g}]: {hint}")

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        eps = _column(self.radii(x), x)
        return torch.clamp(x_adv, x - eps, x + eps).clamp_(*self.bounds)

    def maximise(self, x: Tensor, gradient: Tensor) -> Tensor:
        return (x + _column(self.radii(x), x) * gradient.sign()).clamp_(*self.bounds)

    def dual(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def random(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        noise = draw(torch.rand, x, generators).mul_(2).sub_(1)
        return noise.mul_(_column(self.radii(x), x)).add_(x).clamp_(*self.bounds)

    def edge(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        noise = draw(torch.rand, x, generators).mul_(2).sub_(1)
        return (x + noise * _column(self.radii(x) / _norm(noise, self.p), x)).clamp_(*self.bounds)


@dataclass(frozen=True, eq=False)
class L2(Ball):
    """The Euclidean length of the change is at most ``eps``: ``sqrt(sum (x_adv - x)^2) <= eps``."""

    p: ClassVar[float] = 2.0

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        boxed = x_adv.clamp(*self.bounds)
        inside = self.distance(boxed, x) <= self.radii(x) * (1 + 4 * torch.finfo(x.dtype).eps)
        if bool(inside.all()):
            return boxed
        return torch.where(_column(inside, x), boxed, self._along(x, x_adv - x))

    def maximise(self, x: Tensor, gradient: Tensor) -> Tensor:
        return self._along(x, gradient / _column(_norm(gradient, math.inf), x))

    def dual(self, gradient: Tensor) -> Tensor:
        # Divided by the largest value first: the squares of gradients below 1e-22 would vanish in single precision.
        scaled = gradient / _column(_norm(gradient, math.inf), gradient)
        return scaled / _column(_norm(scaled, self.p), scaled)

    def random(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        noise = draw(torch.randn, x, generators)
        share = draw(torch.rand, x, generators, size=()) ** (1 / math.prod(x.shape[1:]))
        return (x + noise * _column(share * self.radii(x) / _norm(noise, self.p), x)).clamp_(*self.bounds)

    def edge(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        noise = draw(torch.randn, x, generators)
        return (x + noise * _column(self.radii(x) / _norm(noise, self.p), x)).clamp_(*self.bounds)

    def _along(self, x: Tensor, direction: Tensor) -> Tensor:
        """``clip(x + s * direction)`` with the s at which its distance from ``x`` is ``eps``, or the farthest there is.

        Both the projection and the linear maximum are of this form (their Karush-Kuhn-Tucker conditions). The squared
        distance is ``sum min(s |d_i|, room_i)^2``. Solved for s with the walled set of the s before, it never
        overshoots, so s climbs and the set grows until it repeats: that s is exact.
        """
        size, room, eps = direction.abs().flatten(1), self._room(x, direction), self.radii(x)
        precision = torch.finfo(x.dtype)
        nothing = precision.tiny / precision.eps  # squares below it are inexact
        s = (eps / _norm(size, self.p)).clamp_max(precision.max)  # finite, so that 0 times it is 0
        meets = room / size  # the s at which a coordinate meets its wall
        size, room = size.square(), room.square()
        free, before = torch.empty_like(size), torch.full_like(s, -1)
        while True:
            torch.gt(meets, s[:, None], out=free)  # as numbers: sums of products are quicker than choices by mask
            count = free.sum(1)
            left = (eps.square() - ((1 - free) * room).sum(1)).clamp_min(0)
            spread = (free * size).sum(1)
            s = torch.where(spread > nothing, torch.maximum(s, (left / spread).sqrt()), s)
            if bool((count == before).all()):
                return (x + direction * _column(s, x)).clamp_(*self.bounds)
            before = count


@dataclass(frozen=True, eq=False)
class L1(Ball):
    """The changes of all values add up to at most ``eps``: ``sum |x_adv - x| <= eps``."""

    p: ClassVar[float] = 1.0

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Exact: ``x + sign(d) clip(|d| - t, 0, room)`` with the threshold t that uses up ``eps`` (Croce & Hein 2021).

        The norm falls with t in straight pieces. Newton's step, which ends on the piece it starts from, is taken
        inside a bracket that is halved every third time, so it needs no sorting and cannot cycle.
        """
        boxed = x_adv.clamp(*self.bounds)
        eps, unit = self.radii(x), torch.finfo(x.dtype).eps
        inside = self.distance(boxed, x) <= eps * (1 + 4 * unit)
        if bool(inside.all()):
            return boxed
        change = x_adv - x
        size, room = change.abs().flatten(1), self._room(x, change)
        short = torch.empty_like(size)
        low, high = torch.zeros_like(eps), size.amax(1)
        threshold, done = low, inside
        for turn in range(200):
            kept = (size - threshold[:, None]).clamp_min_(0)
            torch.gt(room, kept, out=short)
            free = (kept.sign() * short).sum(1)  # how many have passed the threshold and met no wall
            kept = torch.minimum(kept, room)
            over = kept.sum(1) - eps
            low, high = torch.where(over > 0, threshold, low), torch.where(over > 0, high, threshold)
            # As near as sums and thresholds of this precision come.
            done = done | (over.abs() <= unit * (16 * eps + free * threshold)) | (high - low <= unit * high)
            if bool(done.all()):
                break
            newton = threshold + over / free.clamp_min(1)
            useful = (newton > low) & (newton < high) & (turn % 3 != 2)
            threshold = torch.where(done, threshold, torch.where(useful, newton, (low + high) / 2))
        kept = kept.view_as(x)
        return torch.where(_column(inside, x), boxed, (x + change.sign() * kept).clamp_(*self.bounds))

    def maximise(self, x: Tensor, gradient: Tensor) -> Tensor:
        radii = self.radii(x)
        size, order, room = self._largest(x, gradient, radii)
        left = (radii[:, None] - (room.cumsum(1) - room)).clamp_min_(0)
        change = torch.zeros_like(x).flatten(1).scatter_(1, order, torch.minimum(left, room) * size.sign())
        return (x + gradient.sign() * change.view_as(x)).clamp_(*self.bounds)

    def dual(self, gradient: Tensor, count: Tensor | None = None) -> Tensor:
        """Equal steps, which add up to 1, in the largest coordinates of the gradient.

        Args:
            gradient: (n, ...).
            count: In how many coordinates of each image, (n,); in the single largest, which is steepest, if not given.
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
        """Push the largest coordinates, as many as have room for the length in all; the single largest has often none.

        Each is pushed in proportion to its gradient, the largest that has room by the whole length; so are those that
        stand at a wall already: else the projection, which takes the same off all, would draw them back from it.
        """
        size, order, room = self._largest(x_adv, gradient, lengths)
        pushed = room.cumsum(1) - room < lengths[:, None]
        top = (size * room.sign()).amax(1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
        push = lengths[:, None] * pushed * (size / top).clamp_max(1)
        return x_adv + gradient.sign() * torch.zeros_like(x_adv).flatten(1).scatter_(1, order, push).view_as(x_adv)

    def _largest(self, x: Tensor, gradient: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The largest coordinates of the gradient, as many as have room for the lengths (n,), or all: their sizes,
        places and room, each (n, k). Few are needed as a rule, and far quicker found than all are sorted."""
        size, room = gradient.abs().flatten(1), self._room(x, gradient)
        count = 32
        while True:
            count = min(4 * count, size.shape[1])
            top, order = size.topk(count, dim=1)
            ahead = room.gather(1, order)
            if count == size.shape[1] or bool(((ahead * top.sign()).sum(1) >= lengths).all()):
                return top, order, ahead * top.sign()

    def random(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        # Exponential variables over their sum, one more than there are coordinates, are uniform on the simplex.
        signs = draw(torch.rand, x, generators).sub_(0.5).sign()
        sizes = draw(torch.rand, x, generators).neg_().log1p_().neg_()
        beyond = draw(torch.rand, x, generators, size=()).neg_().log1p_().neg_()
        total = sizes.flatten(1).sum(1) + beyond
        return (x + signs * sizes * _column(self.radii(x) / total, x)).clamp_(*self.bounds)

    def edge(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        # The projection of Gaussian noise is sparse, as good L1 changes are; a point drawn evenly is not.
        return self.project(x + draw(torch.randn, x, generators), x)


def draw(source: Draw, x: Tensor, generators: Sequence[Generator], size: tuple[int, ...] | None = None) -> Tensor:
    """Numbers of ``source`` (``torch.rand``, ``torch.randn``) for each image from its own generator, shaped like ``x``
    (or (n, *size)). They are drawn on the CPU, so the same on every device."""
    shape = tuple(x.shape[1:]) if size is None else size
    out = torch.empty((len(x), *shape), dtype=x.dtype)
    for row, generator in zip(out, generators, strict=True):
        row.copy_(source(shape, generator=generator, dtype=x.dtype))
    return out.to(x.device)


def _column(values: Tensor, x: Tensor) -> Tensor:
    """One value an image, shaped to be multiplied with the images."""
    return values.view(-1, *[1] * (x.ndim - 1))


def _length(x: Tensor, p: float) -> Tensor:
    """The norm of each image, (n,)."""
    flat = x.flatten(1)
    # For the largest value, vector_norm takes ten times as long.
    norms: Tensor = flat.abs().amax(1) if p == math.inf else torch.linalg.vector_norm(flat, p, dim=1)
    return norms


def _norm(x: Tensor, p: float) -> Tensor:
    """The norm of each image, never 0, so that one can divide by it."""
    return _length(x, p).clamp_min(torch.finfo(x.dtype).tiny)
