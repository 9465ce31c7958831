"""Exact Euclidean projections onto the intersection of an Lp ball and the box of valid images.

Clipping to the box after projecting onto the ball stays in the set, but is not the nearest point of it (Croce & Hein
2021, sec. 2). In every function ``x`` (n, ...) is the center of the ball and lies in the box ``bounds``, ``v``
(n, ...) is the point to project, and ``eps`` (n,) has one radius per image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rivals.base.tensors import batch_view, image_norm, nonzero_norm

Bounds = tuple[Any, Any]  # two numbers, or two tensors that broadcast with one image


def project_linf(v: Tensor, x: Tensor, radius: Tensor, bounds: Bounds) -> Tensor:
    """Two boxes intersect in a box, so clipping to one and then to the other is exact. ``radius`` broadcasts."""
    return torch.clamp(v, x - radius, x + radius).clamp_(*bounds)


def project_l2(v: Tensor, x: Tensor, eps: Tensor, bounds: Bounds) -> Tensor:
    """By the KKT conditions the projection is ``clip(x + s (v - x))`` with the s that makes its distance ``eps``."""
    # The constraint of the ball is inactive if the point clipped to the box is in it.
    clipped = v.clamp(*bounds)
    inside = image_norm(clipped - x, 2) <= eps * (1 + 4 * torch.finfo(x.dtype).eps)
    if bool(inside.all()):
        return clipped
    return torch.where(batch_view(inside, x), clipped, l2_boundary_along(v - x, x, eps, bounds))


def l2_boundary_along(direction: Tensor, x: Tensor, eps: Tensor, bounds: Bounds) -> Tensor:
    """``clip(x + s * direction)`` with the s at which its L2 distance from ``x`` is ``eps``, or the farthest there is.

    Both the projection and the linear maximum are of this form, by their KKT conditions. The squared distance is
    ``sum_i min(s |d_i|, h_i)^2`` with the headroom h_i. Solved for s with the clipped coordinates of the previous s,
    it never overshoots: s and the clipped set grow until the set repeats, and then s is exact.
    """
    size, h = direction.abs().flatten(1), headroom(x, direction, bounds)
    precision = torch.finfo(x.dtype)
    negligible = precision.tiny / precision.eps  # squares below it are inexact
    s = (eps / nonzero_norm(size, 2)).clamp_max(precision.max)  # finite, so that 0 times it is 0
    clipped_at = h / size  # the s at which a coordinate reaches the box
    size, h = size.square(), h.square()
    free, previous = torch.empty_like(size), torch.full_like(s, -1)
    while True:
        # As numbers: sums of products are faster than selection by a mask.
        torch.gt(clipped_at, s[:, None], out=free)
        count = free.sum(1)
        # eps^2 = sum_clipped h_i^2 + s^2 sum_free d_i^2, solved for s.
        left = (eps.square() - ((1 - free) * h).sum(1)).clamp_min(0)
        spread = (free * size).sum(1)
        s = torch.where(spread > negligible, torch.maximum(s, (left / spread).sqrt()), s)
        if bool((count == previous).all()):
            return (x + direction * batch_view(s, x)).clamp_(*bounds)
        previous = count


def project_l1(v: Tensor, x: Tensor, eps: Tensor, bounds: Bounds) -> Tensor:
    """``x + sign(d) clip(|d| - t, 0, h)`` with d = v - x, headroom h, and the t at which its norm is ``eps``.

    This is the form of Croce & Hein 2021, sec. 2. They find the threshold t by sorting. Here, since the norm is
    piecewise linear and decreasing in t, it is Newton's method, which is exact on the last piece, safeguarded by a
    bracket that is bisected at every third iteration.
    """
    clipped = v.clamp(*bounds)
    unit = torch.finfo(x.dtype).eps
    inside = image_norm(clipped - x, 1) <= eps * (1 + 4 * unit)
    if bool(inside.all()):
        return clipped
    change = v - x
    size, h = change.abs().flatten(1), headroom(x, change, bounds)
    unclipped = torch.empty_like(size)
    low, high = torch.zeros_like(eps), size.amax(1)
    threshold, done = low, inside
    for iteration in range(200):
        shrunk = (size - threshold[:, None]).clamp_min_(0)
        torch.gt(h, shrunk, out=unclipped)
        free = (shrunk.sign() * unclipped).sum(1)  # coordinates strictly between 0 and the box: minus the slope in t
        shrunk = torch.minimum(shrunk, h)
        excess = shrunk.sum(1) - eps
        low, high = torch.where(excess > 0, threshold, low), torch.where(excess > 0, high, threshold)
        # Sums and thresholds of this precision cannot come closer.
        done = done | (excess.abs() <= unit * (16 * eps + free * threshold)) | (high - low <= unit * high)
        if bool(done.all()):
            break
        # d norm / dt = -free.
        newton = threshold + excess / free.clamp_min(1)
        accept = (newton > low) & (newton < high) & (iteration % 3 != 2)
        threshold = torch.where(done, threshold, torch.where(accept, newton, (low + high) / 2))
    shrunk = shrunk.view_as(x)
    return torch.where(batch_view(inside, x), clipped, (x + change.sign() * shrunk).clamp_(*bounds))


def project_l0(v: Tensor, x: Tensor, k: Tensor, bounds: Bounds, *, pixels: bool) -> Tensor:
    """``clip(v)`` in the k components, or pixels, that gain most by it, and x elsewhere.

    A component that may change goes to ``c = clip(v)``, which takes ``(v - x)^2 - (v - c)^2`` off the squared distance;
    components do not interact, so the largest k of these gains are the best choice.
    """
    clipped = v.clamp(*bounds)
    gain = (v - x).square() - (v - clipped).square()
    return torch.where(largest_components(gain, k, pixels=pixels), clipped, x)


def largest_components(scores: Tensor, k: Tensor, *, pixels: bool) -> Tensor:
    """Where the k (n,) largest positive scores of each image are, a bool tensor like ``scores`` (n, ...).

    With ``pixels`` those of the k positions with the largest sum over channels, in all channels.
    """
    summed = scores.sum(1, keepdim=True) if pixels else scores
    flat = summed.flatten(1)
    k = k.round().long().clamp(0, flat.shape[1])
    count = int(k.max()) if len(k) else 0
    top = flat.topk(count, dim=1)
    wanted = (torch.arange(count, device=flat.device) < k[:, None]) & (top.values > 0)
    chosen = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, top.indices, wanted)
    return chosen.view_as(summed).expand_as(scores)


def headroom(x: Tensor, direction: Tensor, bounds: Bounds) -> Tensor:
    """How far each coordinate can move along the sign of ``direction`` before it leaves the box, (n, D)."""
    # high - x where the sign is 1, x - low where it is -1; selection by a mask takes ten times as long.
    low, high = bounds
    room: Tensor = direction.sign() * ((high + low) / 2 - x) + (high - low) / 2
    return room.clamp_min_(0).flatten(1)
