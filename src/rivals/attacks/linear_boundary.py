"""The linearized decision boundary: which class is nearest, and the minimum-norm step to it inside the box."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rivals.attacks.attack_losses import strongest_others
from rivals.attacks.frozen_model import FrozenModel
from rivals.base.norm_balls import L1, L2, Ball
from rivals.base.tensors import batch_view


def numerical_margin(logits: Tensor) -> Tensor:
    """The margin (n,) that logits (n, K) must have to count as adversarial: 64 units in their last place.

    An image closer to the boundary than that is adversarial by rounding: in another batch, or with batch norm not
    folded, the same model may predict otherwise. Logits in bf16 or fp16 are sums in float32, rounded once: of theirs it
    is two units, as 64 are half of a logit in bf16.
    """
    finfo = torch.finfo(logits.dtype)
    units = 64 if finfo.bits > 16 else 2
    return units * finfo.eps * logits.detach().nan_to_num(neginf=0).abs().amax(1)


def class_pair(logits: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """The two classes, each (n,), whose boundary decides: the one to leave and the one to reach.

    Untargeted, the label and the strongest other class; targeted, the strongest class other than the target, and the
    target.
    """
    if target is None:
        return y, strongest_others(logits.detach(), y, 1)[:, 0]
    return strongest_others(logits.detach(), target, 1)[:, 0], target


def nearest_boundary(
    frozen: FrozenModel, leaf: Tensor, logits: Tensor, y: Tensor, ball: Ball, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """Of the boundaries between the label and other classes, linearized at ``leaf``, the nearest in the ball's norm.

    With the margin ``f_k = z_k - z_y`` (less the numerical margin) and its gradient w_k, boundary k is at the distance
    ``|f_k| / |w_k|_q``, where q is the dual norm (Croce & Hein 2020, eq. 7; Moosavi-Dezfooli et al. 2016, eq. 8). The
    box is ignored in this choice.

    Args:
        frozen: The model.
        leaf: From :meth:`~rivals.attacks.frozen_model.FrozenModel.trace`, (n, ...).
        logits: Of the same, (n, K), with their graph.
        y: Labels (n,).
        ball: Names the norm.
        classes: The other classes to choose from (n, m), none the label. Each column takes a backward pass.

    Returns:
        The margin (n,), less the numerical margin, and its gradient, like ``leaf``, of the nearest class.
    """
    with torch.enable_grad():
        gaps = logits.gather(1, classes) - logits.gather(1, y[:, None])
        margins = (gaps - numerical_margin(logits)[:, None]).unbind(1)
    q = {1.0: math.inf, 2.0: 2.0}.get(ball.p, 1.0)
    f, normal = margins[0].detach(), torch.zeros_like(leaf)
    nearest = torch.full_like(f, torch.inf)
    for column, other in enumerate(margins):
        gradient = frozen.gradient(other, leaf, retain_graph=column + 1 < len(margins))
        scaled = gradient if ball.scale is None else gradient * ball.scale
        size = torch.linalg.vector_norm(scaled.flatten(1), q, dim=1)
        distance = other.detach().abs() / size.clamp_min(torch.finfo(size.dtype).tiny)
        nearer = (distance < nearest) & (size > 0)  # neither holds for a class whose logit is -inf
        nearest = torch.where(nearer, distance, nearest)
        f = torch.where(nearer, other.detach(), f)
        normal = torch.where(batch_view(nearer, leaf), gradient, normal)
    return f, normal


def min_norm_step(x: Tensor, normal: Tensor, gain: Tensor, ball: Ball) -> Tensor:
    """The perturbation of minimum norm that raises ``<normal, x>`` by ``gain`` and leaves ``x`` in the box. Exact.

    Args:
        x: Images (n, ...) in the box.
        normal: Like ``x``.
        gain: (n,), of either sign.
        ball: Its norm and bounds count; its eps does not.

    Returns:
        The perturbation, like ``x``. Where the box has no point with that gain, the one that comes nearest to it; 0
        where the normal is 0.
    """
    low, high = ball.bounds
    precision = torch.finfo(x.dtype)
    # Scaled to a largest value of 1: the squares of small gradients would vanish in single precision.
    scale = normal.flatten(1).abs().amax(1).clamp_min(precision.tiny)
    need = (gain.abs() / scale).clamp_max(precision.max)
    direction = (normal * batch_view(gain.sign(), x)).sign()
    size = normal.flatten(1).abs() / scale[:, None]
    headroom = (direction * ((high + low) / 2 - x) + (high - low) / 2).clamp_min_(0).flatten(1)
    if isinstance(ball, L1):
        change = _fill_largest_first(size, headroom, need)
    else:
        per_feature = None if ball.scale is None else ball.scale.expand_as(x).flatten(1)
        change = _scale_and_clip(size, headroom, need, ball, per_feature)
    return direction * change.view_as(x)


def _scale_and_clip(size: Tensor, headroom: Tensor, need: Tensor, ball: Ball, scale: Tensor | None) -> Tensor:
    """``min(s * rate, headroom)`` with the s such that ``<size, .>`` is ``need``.

    The rate is 1 in Linf, or ``scale`` if there is one, and ``size`` in L2.

    The gain is concave and piecewise linear in s. Solved for s with the clipped set of the s before (a Newton step), it
    never overshoots, so s rises and the set grows until it repeats: that s is exact.
    """
    precision = torch.finfo(size.dtype)
    rate = size if isinstance(ball, L2) else size.sign()
    if scale is not None:
        rate = rate * scale
    slope, most, meets = size * rate, size * headroom, headroom / rate.clamp_min(precision.tiny)
    s = (need / slope.sum(1).clamp_min(precision.tiny)).clamp_max(precision.max)
    free, before = torch.empty_like(size), torch.full_like(s, -1)
    while True:
        torch.gt(meets, s[:, None], out=free)  # as numbers: sums of products are quicker than choices by mask
        count = free.sum(1)
        left = (need - ((1 - free) * most).sum(1)).clamp_min(0)
        spread = (free * slope).sum(1)
        s = torch.where(spread > precision.tiny, torch.maximum(s, left / spread), s).clamp_max(precision.max)
        if bool((count == before).all()):
            return torch.minimum(s[:, None] * rate, headroom)
        before = count


def _fill_largest_first(size: Tensor, headroom: Tensor, need: Tensor) -> Tensor:
    """Components moved to their bounds, largest gradient first, until ``need`` is met (a greedy knapsack).

    Few are needed as a rule, so they are searched for among the largest, instead of sorting all.
    """
    count = 32
    while True:
        count = min(4 * count, size.shape[1])
        top, order = size.topk(count, dim=1)
        most = headroom.gather(1, order)
        gained = (top * most).cumsum(1)
        if count == size.shape[1] or bool((gained[:, -1] >= need).all()):
            break
    left = need[:, None] - (gained - top * most)
    pushed = torch.minimum(left.clamp_min(0) / top.clamp_min(torch.finfo(top.dtype).tiny), most)
    return torch.zeros_like(size).scatter_(1, order, pushed)
