"""Entropy, and what is measured by it, from the definitions (Shannon 1948; Kullback & Leibler 1951; Lin 1991).

**Shapes.** A distribution over C outcomes lies on the last axis: (C,) is one distribution, (n, C) are n of them, and
the answer has one number a row. :func:`cross_entropy` takes its labels as (n, C), one-hot or soft, or as (n,), whole
numbers. :func:`binary_cross_entropy` is for the other thing that is written (n,): n questions, each with the one
probability of its "yes"; the "no" has the rest.

**Units.** ``nats`` (natural logarithm) or ``bits`` (to the base 2).

**Kinds.** Torch in, torch out, on the same device and differentiable; all else is read by numpy, and numpy comes out.
Nothing is computed in less than float32.

In the game of a generator and a discriminator all these meet. D's loss is a cross-entropy. For the best D it is
``2 log 2 - 2 JSD(p_data, p_G)``: at the draw, where nothing is left to tell, it is one ``log 2``, the entropy of a fair
coin, for each half (Goodfellow et al. 2014, theorem 1).
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
SLACK = 0.02  # by which a row may miss 1: in half precision, or as rounded by hand


def cross_entropy(p: Any, q: Any, *, reduction: str = "mean", clip: float = CLIP, unit: str = "nats") -> Any:
    """``H(p, q) = -sum_c p_c log q_c``: the mean surprise of one who expects q where p is true.

    Args:
        p: The truth: distributions (..., C), one-hot or soft, or labels (...), whole numbers from 0 to C - 1.
        q: The answers: distributions (..., C), as a softmax gives them.
        reduction: ``mean`` or ``sum`` over the rows, or ``none``: a number for each, (...).
        clip: No q counts as less than this, so that a wrong answer given for certain costs ``-log 1e-15 = 34.5``
            nats instead of infinity; 0 for that.
        unit: ``nats`` or ``bits``.

    Raises:
        UserError: the shapes do not fit, or the values are no probabilities or labels.
    """
    (true, answer), kind, back = _tensors(p, q)
    answer = _distributions("q", answer.to(kind))
    if true.shape == answer.shape:
        terms = torch.special.xlogy(_distributions("p", true.to(kind)), _clipped(answer, clip))
        return back(_reduced(-terms.sum(-1), reduction, unit))
    if true.shape != answer.shape[:-1]:
        raise UserError(
            f"p of shape {tuple(true.shape)} and q of shape {tuple(answer.shape)} do not fit: give p as (n, C) like q, "
            "or as (n,) whole numbers; n yes-or-no questions are binary_cross_entropy's"
        )
    likely = answer.gather(-1, _labels(true, answer.shape[-1])[..., None]).squeeze(-1)
    return back(_reduced(-_clipped(likely, clip).log(), reduction, unit))


def binary_cross_entropy(p: Any, q: Any, *, reduction: str = "mean", clip: float = CLIP, unit: str = "nats") -> Any:
    """``-(p log q + (1 - p) log(1 - q))`` for questions (n,), or of any shape, each with its probability of "yes".

    Args:
        p: The truth: 1, 0 or between.
        q: The answers. Of logits take ``losses.gan``, which needs no clipping.
        reduction: ``mean`` or ``sum`` over all questions, or ``none``.
        clip: Neither q nor 1 - q counts as less than this.
        unit: ``nats`` or ``bits``.

    Raises:
        UserError: the shapes differ, or the values are no probabilities.
    """
    (true, answer), kind, back = _tensors(p, q)
    if true.shape != answer.shape:
        raise UserError(f"p of shape {tuple(true.shape)} and q of shape {tuple(answer.shape)} differ: give one shape")
    true, answer = _probabilities("p", true.to(kind)), _probabilities("q", answer.to(kind))
    terms = torch.special.xlogy(true, _clipped(answer, clip)) + torch.special.xlogy(
        1 - true, _clipped(1 - answer, clip)
    )
    return back(_reduced(-terms, reduction, unit))


def entropy(p: Any, *, unit: str = "nats") -> Any:
    """``H(p) = -sum_c p_c log p_c`` of distributions (..., C): a number for each, (...). ``0 log 0`` is 0.

    Raises:
        UserError: p is no distribution.
    """
    (given,), kind, back = _tensors(p)
    return back(_entropy(_distributions("p", given.to(kind))) * _scale(unit))


def kl(p: Any, q: Any, *, unit: str = "nats") -> Any:
    """``KL(p || q) = sum_c p_c log(p_c / q_c)`` of distributions (..., C): a number for each, (...).

    It is infinite where q excludes what p allows. Nothing is clipped.

    Raises:
        UserError: the shapes differ, or one is no distribution.
    """
    first, second, back = _pair(p, q)
    return back(_kl(first, second) * _scale(unit))


def jsd(p: Any, q: Any, *, unit: str = "nats") -> Any:
    """Jensen-Shannon divergence ``(KL(p || m) + KL(q || m)) / 2``, ``m = (p + q) / 2``, of distributions (..., C).

    From 0 (the same) to ``log 2`` nats, 1 bit (nothing in common). Its root is a distance (scipy's ``jensenshannon``).

    Raises:
        UserError: the shapes differ, or one is no distribution.
    """
    first, second, back = _pair(p, q)
    middle = (first + second) / 2
    return back((_kl(first, middle) + _kl(second, middle)).clamp_min(0) / 2 * _scale(unit))


def histogram_entropy(counts: Any, *, unit: str = "bits") -> Any:
    """The entropy of counts (..., C), each row divided by its sum: of pixel values, of classes that were drawn.

    It is that of the shares as counted, too small by about ``(C - 1) / (2 n)`` nats for n counts (Miller 1955).

    Raises:
        UserError: a count is negative, or a row has none.
    """
    (given,), kind, back = _tensors(counts)
    given = given.to(kind)
    total = given.sum(-1, keepdim=True)
    if not given.ndim or bool((given < 0).any()) or not bool((total > 0).all()):
        raise UserError("these are no counts: give numbers of 0 or more, at least one above 0 in every row")
    return back(_entropy(given / total) * _scale(unit))


def _tensors(*values: Any) -> tuple[list[Tensor], torch.dtype, Callable[[Tensor], Any]]:
    """The values as tensors, the type to compute in, and what brings a result back to the kind that came in."""
    given = [value for value in values if isinstance(value, Tensor)]
    if given:
        tensors = [torch.as_tensor(value, device=given[0].device) for value in values]
    else:
        tensors = [torch.from_numpy(np.array(value)) for value in values]  # a copy, as torch wants to be let write
    kind = torch.float32 if any(tensor.is_floating_point() for tensor in tensors) else torch.float64
    for tensor in tensors:
        kind = torch.promote_types(kind, tensor.dtype) if tensor.is_floating_point() else kind

    def back(result: Tensor) -> Any:
        return result if given else result.numpy()[()]

    return tensors, kind, back


def _pair(p: Any, q: Any) -> tuple[Tensor, Tensor, Callable[[Tensor], Any]]:
    (first, second), kind, back = _tensors(p, q)
    if first.shape != second.shape:
        raise UserError(f"p of shape {tuple(first.shape)} and q of shape {tuple(second.shape)} differ: give one shape")
    return _distributions("p", first.to(kind)), _distributions("q", second.to(kind)), back


def _probabilities(name: str, values: Tensor) -> Tensor:
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise UserError(f"{name} holds values that are no probabilities: give numbers from 0 to 1, as a softmax does")
    return values


def _distributions(name: str, values: Tensor) -> Tensor:
    """The values, if they are distributions on the last axis."""
    if not values.ndim or not values.shape[-1]:
        raise UserError(f"{name} of shape {tuple(values.shape)} is no distribution: give (C,) or (n, C)")
    sums = _probabilities(name, values).detach().sum(-1)
    if not bool((sums - 1).abs().le(SLACK).all()):
        worst = sums.flatten()[(sums - 1).abs().argmax()].item()
        raise UserError(
            f"a row of {name} sums to {worst:.4g}, so it is no distribution: divide it by its sum, or take "
            "binary_cross_entropy if each number is a question of its own"
        )
    return values


def _labels(labels: Tensor, classes: int) -> Tensor:
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise UserError(f"labels of type {labels.dtype} are no classes: give whole numbers, or p as (n, C)")
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.numel():
        raise UserError(f"label {wrong[0].item()} is out of range: take 0 to {classes - 1}")
    return labels.long()


def _clipped(q: Tensor, clip: float) -> Tensor:
    if not 0 <= clip < 1:
        raise UserError(f"a clip of {clip:g} makes no sense: take 0 (none) to below 1, as 1e-15")
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
