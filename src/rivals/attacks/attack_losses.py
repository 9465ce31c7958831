"""Losses that attacks maximize: cross-entropy, the margin, DLR and the margin of probabilities, one value per image.

Each takes logits (n, K), the labels (n,), and either None or the target classes (n,), and returns (n,).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rivals.base.registry import Registry

LossFn = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def cross_entropy(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """Cross-entropy with the label, or minus that with the target, as log odds.

    With ``L = log sum_{i != y} exp(z_i) - z_y``, cross-entropy is ``log(1 + exp(L))``. It rises with L, and its
    gradient is that of L times a positive number; so for any attack that steps along a direction and compares values
    it is the same objective. But cross-entropy and its gradient round to 0 once the label leads by 17 nats
    (single precision); L does not.
    """
    if target is None:
        return _without(logits, y).logsumexp(1) - _at(logits, y)
    return _at(logits, target) - _without(logits, target).logsumexp(1)


def margin(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """``max_{i != y} z_i - z_y``, or with a target ``z_t - max_{i != t} z_i``: above 0 is success."""
    if target is None:
        return _without(logits, y).amax(1) - _at(logits, y)
    return _at(logits, target) - _without(logits, target).amax(1)


def dlr(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """The difference-of-logits ratio, which does not change when the logits are shifted or scaled.

    ``-(z_y - max_{i != y} z_i) / (z_(1) - z_(3))``, with a target ``-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)``
    (Croce & Hein 2020, eq. 6-7), where z_(k) is the k-th largest. The first needs three classes, the second four: with
    fewer, it is the margin ``max_{i != y} z_i - z_y``, or ``z_t - z_y``, without the ratio.
    """
    classes = logits.shape[1]
    gain = margin(logits, y) if target is None else _at(logits, target) - _at(logits, y)
    needed = 3 if target is None else 4
    if classes < needed:
        return gain
    top = logits.topk(needed, dim=1).values
    low = top[:, 2] if target is None else (top[:, 2] + top[:, 3]) / 2
    if bool(low.isneginf().any()):  # masked classes do not count
        low = torch.where(low.isneginf(), top[:, 0] - 1, low)
    return gain / (top[:, 0] - low + 1e-12)


def probability_margin(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """``max_{i != y} p_i - p_y`` of the softmax p, or with a target ``p_t - max_{i != t} p_i`` (PMA, arXiv 2411.15210).

    It lies between -1 and 1, so that hopeless images do not weigh more than others; where the model is so confident
    that probabilities round to 0 and 1, its gradient vanishes.
    """
    return margin(logits.softmax(1), y, target)


LOSSES: Registry[LossFn] = Registry(
    "loss", {"ce": cross_entropy, "dlr": dlr, "margin": margin, "pm": probability_margin}
)


def strongest_others(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The ``count`` classes other than the label with the largest logits, best first: (n, count).

    A class whose logit is -inf can never be predicted: the first stands in for it.
    """
    top = _without(logits, y).topk(count, dim=1)
    return torch.where(top.values.isneginf(), top.indices[:, :1], top.indices)


def _at(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y[:, None])[:, 0]


def _without(logits: Tensor, y: Tensor) -> Tensor:
    return logits.scatter(1, y[:, None], torch.full_like(logits[:, :1], -math.inf))
