"""Entropy, cross-entropy and divergences (Shannon 1948; Kullback & Leibler 1951; Lin 1991).

**Shapes.** A distribution over C outcomes is on the last axis: (C,) is one distribution, (n, C) are n of them, and the
result has one number per row. :func:`cross_entropy` takes labels as (n, C), one-hot or soft, or as (n,), integers.
:func:`binary_cross_entropy` is for n binary questions (n,), each given by the probability of "yes".

**Units.** ``nats`` (natural logarithm) or ``bits`` (base 2).

**Types.** Tensors give tensors, on the same device and differentiable; anything else is read by numpy and gives numpy.
Nothing is computed in less than float32.

The loss of a GAN's discriminator is a binary cross-entropy. For the optimal D it is ``2 log 2 - 2 JSD(p_data, p_G)``:
at the equilibrium ``log 2``, the entropy of a fair coin, for each of its two terms (Goodfellow et al. 2014, theorem 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.registry import unknown

CLIP = 1e-15
UNITS = {"nats": 1.0, "bits": 1 / math.log(2)}
REDUCTIONS = ("mean", "sum", "none")
TOLERANCE = 0.02  # of the sum of a row: for half precision, or numbers rounded by hand


def cross_entropy(p: Any, q: Any, *, reduction: str = "mean", clip: float = CLIP, unit: str = "nats") -> Any:
    """``H(p, q) = -sum_c p_c log q_c``, in the mean over the rows.

    Args:
        p: Targets: distributions (..., C), one-hot or soft, or labels (...), integers from 0 to C - 1.
        q: Predictions: distributions (..., C), as from a softmax.
        reduction: ``mean`` or ``sum`` over the rows, or ``none`` for one number per row, (...).
        clip: Lower bound on q, so that a prediction that is certain and wrong costs ``-log 1e-15 = 34.5`` nats and not
            infinity; 0 for no bound.
        unit: ``nats`` or ``bits``.

    Raises:
        UserError: the shapes do not fit, or the values are not probabilities or labels.
    """
    (target, prediction), dtype, back = _tensors(p, q)
    prediction = _distributions("q", prediction.to(dtype))
    if target.shape == prediction.shape:
        terms = torch.special.xlogy(_distributions("p", target.to(dtype)), _clipped(prediction, clip))
        return back(_reduced(-terms.sum(-1), reduction, unit))
    if target.shape != prediction.shape[:-1]:
        shapes = f"p of shape {tuple(target.shape)} and q of shape {tuple(prediction.shape)}"
        raise UserError(
            f"{shapes} do not fit: give both as (n, C), or p as (n,) integers; for n binary questions take "
            "binary_cross_entropy"
        )
    picked = prediction.gather(-1, _labels(target, prediction.shape[-1])[..., None]).squeeze(-1)
    return back(_reduced(-_clipped(picked, clip).log(), reduction, unit))


def binary_cross_entropy(p: Any, q: Any, *, reduction: str = "mean", clip: float = CLIP, unit: str = "nats") -> Any:
    """``-(p log q + (1 - p) log(1 - q))`` for binary questions of any shape, each with its probability of "yes".

    Args:
        p: Targets, from 0 to 1.
        q: Predictions. For logits, see ``losses.gan``, which needs no clipping.
        reduction: ``mean`` or ``sum`` over all questions, or ``none``.
        clip: Lower bound on q and on 1 - q.
        unit: ``nats`` or ``bits``.

    Raises:
        UserError: the shapes differ, or the values are not probabilities.
    """
    (target, prediction), dtype, back = _tensors(p, q)
    if target.shape != prediction.shape:
        raise UserError(
            f"p of shape {tuple(target.shape)} and q of shape {tuple(prediction.shape)} differ: give one shape"
        )
    target, prediction = _probabilities("p", target.to(dtype)), _probabilities("q", prediction.to(dtype))
    terms = torch.special.xlogy(target, _clipped(prediction, clip)) + torch.special.xlogy(
        1 - target, _clipped(1 - prediction, clip)
    )
    return back(_reduced(-terms, reduction, unit))


def entropy(p: Any, *, unit: str = "nats") -> Any:
    """``H(p) = -sum_c p_c log p_c`` of distributions (..., C): (...). ``0 log 0`` is 0.

    Raises:
        UserError: p is not a distribution.
    """
    (given,), dtype, back = _tensors(p)
    return back(_entropy(_distributions("p", given.to(dtype))) * _scale(unit))


def kl(p: Any, q: Any, *, unit: str = "nats") -> Any:
    """``KL(p || q) = sum_c p_c log(p_c / q_c)`` of distributions (..., C): (...).

    Infinite where q is 0 and p is not. Nothing is clipped.

    Raises:
        UserError: the shapes differ, or a row is not a distribution.
    """
    first, second, back = _pair(p, q)
    return back(_kl(first, second) * _scale(unit))


def jsd(p: Any, q: Any, *, unit: str = "nats") -> Any:
    """Jensen-Shannon divergence ``(KL(p || m) + KL(q || m)) / 2``, ``m = (p + q) / 2``, of distributions (..., C).

    From 0 (equal) to ``log 2`` nats or 1 bit (disjoint). Its square root is scipy's ``jensenshannon`` distance.

    Raises:
        UserError: the shapes differ, or a row is not a distribution.
    """
    first, second, back = _pair(p, q)
    middle = (first + second) / 2
    return back((_kl(first, middle) + _kl(second, middle)).clamp_min(0) / 2 * _scale(unit))


def histogram_entropy(counts: Any, *, unit: str = "bits") -> Any:
    """The entropy of counts (..., C), as of pixel values or classes, each row divided by its sum.

    The plug-in estimate, biased downward by about ``(C - 1) / (2 n)`` nats for n counts (Miller 1955).

    Raises:
        UserError: a count is negative, or a row has none.
    """
    (given,), dtype, back = _tensors(counts)
    given = given.to(dtype)
    total = given.sum(-1, keepdim=True)
    if not given.ndim or bool((given < 0).any()) or not bool((total > 0).all()):
        raise UserError("these are not counts: give numbers of 0 or more, at least one above 0 in every row")
    return back(_entropy(given / total) * _scale(unit))


def _tensors(*values: Any) -> tuple[list[Tensor], torch.dtype, Callable[[Tensor], Any]]:
    """The values as tensors, the dtype to compute in, and what converts a result to the type of the input."""
    given = [value for value in values if isinstance(value, Tensor)]
    if given:
        tensors = [torch.as_tensor(value, device=given[0].device) for value in values]
    else:
        tensors = [torch.from_numpy(np.array(value)) for value in values]  # a copy: torch warns about read-only arrays
    dtype = torch.float32 if any(tensor.is_floating_point() for tensor in tensors) else torch.float64
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype) if tensor.is_floating_point() else dtype

    def back(result: Tensor) -> Any:
        return result if given else result.numpy()[()]

    return tensors, dtype, back


def _pair(p: Any, q: Any) -> tuple[Tensor, Tensor, Callable[[Tensor], Any]]:
    (first, second), dtype, back = _tensors(p, q)
    if first.shape != second.shape:
        raise UserError(f"p of shape {tuple(first.shape)} and q of shape {tuple(second.shape)} differ: give one shape")
    return _distributions("p", first.to(dtype)), _distributions("q", second.to(dtype)), back


def _probabilities(name: str, values: Tensor) -> Tensor:
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise UserError(f"{name} holds values that are not probabilities: give numbers from 0 to 1, as from a softmax")
    return values


def _distributions(name: str, values: Tensor) -> Tensor:
    """The values, checked to be distributions on the last axis."""
    if not values.ndim or not values.shape[-1]:
        raise UserError(f"{name} of shape {tuple(values.shape)} is not a distribution: give (C,) or (n, C)")
    sums = _probabilities(name, values).detach().sum(-1)
    if not bool((sums - 1).abs().le(TOLERANCE).all()):
        worst = sums.flatten()[(sums - 1).abs().argmax()].item()
        raise UserError(
            f"a row of {name} sums to {worst:.4g}, so it is not a distribution: divide it by its sum, or take "
            "binary_cross_entropy if each number is a binary question"
        )
    return values


def _labels(labels: Tensor, classes: int) -> Tensor:
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise UserError(f"labels of type {labels.dtype} are not classes: give integers, or p as (n, C)")
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.numel():
        raise UserError(f"label {wrong[0].item()} is out of range: take 0 to {classes - 1}")
    return labels.long()


def _clipped(q: Tensor, clip: float) -> Tensor:
    if not 0 <= clip < 1:
        raise UserError(f"a clip of {clip:g} is out of range: take 0 (none) to below 1, such as 1e-15")
    return q.clamp_min(clip)


def _entropy(p: Tensor) -> Tensor:
    total: Tensor = torch.special.entr(p).sum(-1)
    return total


def _kl(p: Tensor, q: Tensor) -> Tensor:
    total: Tensor = (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(-1)
    return total


def _scale(unit: str) -> float:
    if unit not in UNITS:
        raise unknown("unit", unit, UNITS)
    return UNITS[unit]


def _reduced(values: Tensor, reduction: str, unit: str) -> Tensor:
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS)
    scaled = values * _scale(unit)
    return scaled if reduction == "none" else scaled.sum() if reduction == "sum" else scaled.mean()
