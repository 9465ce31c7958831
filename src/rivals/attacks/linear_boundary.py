"""The boundary of a classifier made linear: which class is nearest, and the shortest way to it inside the box."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rivals.attacks.frozen import Frozen
from rivals.attacks.objectives import runners_up
from rivals.base.balls import L1, L2, Ball


def clearance(logits: Tensor) -> Tensor:
    """By how much (n,) a point with these logits (n, K) must fool to count: 64 units in their last place.

    A point nearer to the boundary than that fools by rounding: in another batch, or with batch-norm unfolded, the same
    model may answer otherwise.
    """
    return 64 * torch.finfo(logits.dtype).eps * logits.detach().abs().amax(1)


def sides(logits: Tensor, y: Tensor, goal: Tensor | None) -> tuple[Tensor, Tensor]:
    """The two classes, each (n,), between which it is decided whether points fool: that to be left, that to be won.

    Without a goal, the label and the strongest other; with one, the strongest other than the goal, and the goal.
    """
    if goal is None:
        return y, runners_up(logits.detach(), y, 1)[:, 0]
    return runners_up(logits.detach(), goal, 1)[:, 0], goal


def facets(
    frozen: Frozen, leaf: Tensor, logits: Tensor, y: Tensor, ball: Ball, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """Of the boundaries between the label and other classes, made linear at ``leaf``, the nearest in the ball's norm.

    With the lead ``f_k = z_k - z_y`` (less the clearance) and its gradient w_k, boundary k is at ``|f_k| / |w_k|_q``
    where q is the dual norm (Croce & Hein 2020, eq. 7; Moosavi-Dezfooli et al. 2016, eq. 8): walls are left out of this
    choice.

    Args:
        frozen: The model.
        leaf: From :meth:`~rivals.attacks.frozen.Frozen.trace`, (n, ...).
        logits: Of the same, (n, K), with their graph.
        y: Labels (n,).
        ball: Names the norm.
        classes: The other classes to choose from, (n, m), none the label. A backward pass is due for each column.

    Returns:
        The lead (n,), less the clearance, and its gradient, like ``leaf``, of the chosen class.
    """
    with torch.enable_grad():
        leads = (logits.gather(1, classes) - logits.gather(1, y[:, None]) - clearance(logits)[:, None]).unbind(1)
    q = {1.0: math.inf, 2.0: 2.0}.get(ball.p, 1.0)
    lead, normal = leads[0].detach(), torch.zeros_like(leaf)
    nearest = torch.full_like(lead, torch.inf)
    for column, other in enumerate(leads):
        gradient = frozen.gradient(other, leaf, again=column + 1 < len(leads))
        size = torch.linalg.vector_norm(gradient.flatten(1), q, dim=1)
        far = other.detach().abs() / size.clamp_min(torch.finfo(size.dtype).tiny)
        nearer = (far < nearest) & (size > 0)
        nearest = torch.where(nearer, far, nearest)
        lead = torch.where(nearer, other.detach(), lead)
        normal = torch.where(nearer.view(-1, *[1] * (leaf.ndim - 1)), gradient, normal)
    return lead, normal


def reach(x: Tensor, normal: Tensor, gain: Tensor, ball: Ball) -> Tensor:
    """The change of the smallest norm that raises ``<normal, x>`` by ``gain`` and leaves ``x`` in the box. Exact.

    Args:
        x: Images (n, ...) in the box.
        normal: Like ``x``.
        gain: (n,), of either sign.
        ball: Names the norm and the bounds; its eps plays no part.

    Returns:
        The change, like ``x``. Where the box holds no point with that gain, the change that comes nearest to it; none
        where the normal is 0.
    """
    low, high = ball.bounds
    precision = torch.finfo(x.dtype)
    # Scaled to a largest value of 1: the squares of small gradients would vanish in single precision.
    scale = normal.flatten(1).abs().amax(1).clamp_min(precision.tiny)
    need = (gain.abs() / scale).clamp_max(precision.max)
    way = (normal * gain.sign().view(-1, *[1] * (x.ndim - 1))).sign()
    size = normal.flatten(1).abs() / scale[:, None]
    room = (way * ((high + low) / 2 - x) + (high - low) / 2).clamp_min_(0).flatten(1)
    change = _dearest_first(size, room, need) if isinstance(ball, L1) else _in_step(size, room, need, ball)
    return way * change.view_as(x)


def _in_step(size: Tensor, room: Tensor, need: Tensor, ball: Ball) -> Tensor:
    """``min(s * rate, room)``, with a rate of 1 (Linf) or ``size`` (L2), and the s that makes ``<size, .>`` the need.

    The gain is concave in s, in straight pieces. Solved for s with the walled set of the s before (Newton's step), it
    never overshoots, so s climbs and the set grows until it repeats: that s is exact.
    """
    precision = torch.finfo(size.dtype)
    rate = size if isinstance(ball, L2) else size.sign()
    pace, most, meets = size * rate, size * room, room / rate.clamp_min(precision.tiny)
    s = (need / pace.sum(1).clamp_min(precision.tiny)).clamp_max(precision.max)
    free, before = torch.empty_like(size), torch.full_like(s, -1)
    while True:
        torch.gt(meets, s[:, None], out=free)  # as numbers: sums of products are quicker than choices by mask
        count = free.sum(1)
        left = (need - ((1 - free) * most).sum(1)).clamp_min(0)
        spread = (free * pace).sum(1)
        s = torch.where(spread > precision.tiny, torch.maximum(s, left / spread), s).clamp_max(precision.max)
        if bool((count == before).all()):
            return torch.minimum(s[:, None] * rate, room)
        before = count


def _dearest_first(size: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Coordinates pushed to their walls, those that gain most for their length first, until the need is met.

    As few are needed as a rule, they are searched for among the largest, instead of sorting all.
    """
    count = 32
    while True:
        count = min(4 * count, size.shape[1])
        top, order = size.topk(count, dim=1)
        most = room.gather(1, order)
        gained = (top * most).cumsum(1)
        if count == size.shape[1] or bool((gained[:, -1] >= need).all()):
            break
    left = need[:, None] - (gained - top * most)
    pushed = torch.minimum(left.clamp_min(0) / top.clamp_min(torch.finfo(top.dtype).tiny), most)
    return torch.zeros_like(size).scatter_(1, order, pushed)
