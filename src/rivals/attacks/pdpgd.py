"""PDPGD, primal-dual proximal gradient descent: a minimum-norm attack in L1 and L2 (Matyasko & Chau 2021, Alg. 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor
from torch.nn.functional import softplus

from rivals.attacks.active_batch import ActiveBatch, Rows
from rivals.attacks.adam import adam_moments
from rivals.attacks.attack_state import Model, check_at_least, check_norm
from rivals.attacks.linear_boundary import numerical_margin
from rivals.attacks.min_norm import MinNormOptions, MinNormSearch, min_norm_search
from rivals.base.errors import UserError
from rivals.base.norm_balls import L1, L2, Ball
from rivals.base.tensors import batch_view

DUAL_RATIO = 0.01  # lambda_0 / lambda_1 at first: the norm weighs little until the image is misclassified
MIN_DUAL_RATIO = 1e-6  # and its reciprocal bounds the other side
DUAL_EMA = 0.9  # of the dual variables
NEWTON_STEPS = 6  # for the proximal operator in L2


def pdpgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 100,
    primal_lr: float = 0.5,
    primal_lr_decrease: float = 0.01,
    dual_lr: float = 0.1,
    dual_lr_decrease: float = 0.1,
    **options: Unpack[MinNormOptions],
) -> Tensor:
    """Primal-dual proximal gradient descent (Matyasko & Chau 2021): a nearest adversarial example in L1 or L2.

    The Lagrangian ``lambda_0 |r|_p + lambda_1 softplus(z_y - max_{i != y} z_i)`` has its saddle point searched for. In
    the perturbation r, a step of Adam on the loss and then the proximal operator of the norm, in Adam's own metric: in
    L1 that is soft-thresholding, one threshold for each component. In the weights, which sum to 1, ascent in log space:
    that of the loss rises while the image is classified correctly, and falls while it is not.

    The authors find the proximal point by inner iterations. Here it is exact: in L1 since components do not interact,
    box included; in L2 by Newton's method on the norm.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: ``L1`` or ``L2``: its bounds and, by its eps, how far an adversarial example may be to count.
        steps: Gradients, of which a quarter is saved for the time that the refinement takes. The last iterate is
            evaluated too.
        primal_lr: Adam's learning rate at first, in shares of the range of images; the paper's is 0.1.
        primal_lr_decrease: What share of it is left at the end; it falls exponentially.
        dual_lr: Step size of the logarithm of ``lambda_1 / lambda_0`` at first.
        dual_lr_decrease: What share of it is left at the end; it falls linearly.
        options: See :class:`MinNormOptions`.

    Returns:
        For each image the nearest adversarial example found, refined (see :mod:`rivals.attacks.min_norm`), if it lies
        within eps; else the image. Misclassified images are returned as they are.

    Raises:
        UserError: bad input, in one line.
    """
    check_norm(ball, "pdpgd", (L1, L2))
    check_at_least(steps, 1, "steps")
    for name, value in (("primal_lr", primal_lr), ("dual_lr", dual_lr)):
        if not value > 0:
            raise UserError(f"a {name} of {value:g} cannot work: take one above 0")
    for name, share in (("primal_lr_decrease", primal_lr_decrease), ("dual_lr_decrease", dual_lr_decrease)):
        if not 0 < share <= 1:
            raise UserError(f"{name} of {share:g} is not a share of the learning rate: take one above 0, at most 1")
    if options.get("refine_steps", 10):
        steps -= steps // 4
    with min_norm_search(model, x, y, ball, **options) as search:
        shares = torch.linspace(0, 1, steps + 1, dtype=search.state.x.dtype, device=search.state.x.device)
        low, high = search.ball.bounds
        primal = primal_lr * primal_lr_decrease**shares
        dual = dual_lr * (1 - shares * (1 - dual_lr_decrease))
        attack = _PDPGD(search, steps, primal, dual, high - low)
        indices = (~search.state.fooled).nonzero()[:, 0]
        # Where nothing was found, once more, without the norm until something is.
        found = lambda some: search.distances[some].isfinite()  # noqa: E731
        ActiveBatch(attack.init_rows, attack.step, 2).run(indices, search.state.batch_size, found)
        return search.result()


@dataclass
class _PDPGDRows(Rows):
    """``x_adv - x`` is r; ``dual`` is the logarithm of lambda_1 / lambda_0, ``weights`` the two, averaged (b, 2)."""

    dual: Tensor
    weights: Tensor
    mean: Tensor
    square: Tensor
    k: Tensor


class _PDPGD:
    """Alg. 1 on an active batch."""

    def __init__(self, search: MinNormSearch, steps: int, primal: Tensor, dual: Tensor, box: float | Tensor) -> None:
        self.search = search
        self.steps = steps
        self.primal = primal
        self.dual = dual
        self.range = box

    def init_rows(self, indices: Tensor, trials: Tensor) -> _PDPGDRows:
        state, x = self.search.state, self.search.state.x[indices]
        dual, zeros = torch.full_like(self.search.radii[indices], -math.log(DUAL_RATIO)), torch.zeros_like(x)
        y, target, k = state.y[indices], state.target(indices), torch.zeros_like(indices)
        return _PDPGDRows(indices, trials, x, x, y, target, dual, _weights(dual), zeros, zeros, k)

    def step(self, rows: _PDPGDRows) -> Tensor:
        search = self.search
        leaf, logits = search.state.frozen.trace(rows.x_adv)
        margins = search.state.loss(logits, rows)
        search.keep_best(rows.index, rows.x_adv, logits)
        over = rows.k == self.steps
        if bool(over.all()):  # the last gradient would go unused
            return over
        with torch.enable_grad():
            loss = softplus(numerical_margin(logits) - margins)
        gradient = search.state.frozen.gradient(loss, leaf) * self.range
        # The primal step: Adam on the loss, in units of the range, then the proximal operator of the norm
        rate = batch_view(self.primal[rows.k], leaf)
        rows.k = rows.k + 1
        mean, root = adam_moments(rows, gradient)
        r = (rows.x_adv - rows.x) / self.range - rate * mean / root
        ratio = rows.weights[:, 0] / rows.weights[:, 1]
        ratio = ratio.masked_fill((rows.trial > 0) & search.distances[rows.index].isinf(), 0)
        mu = batch_view(ratio, leaf) * rate
        proximal = r.sign() * (r.abs() - mu / root).clamp_min_(0) if isinstance(search.ball, L1) else _l2(r, root, mu)
        rows.x_adv = (rows.x + proximal * self.range).clamp_(*search.ball.bounds)
        # The dual step: ascent along the sign of the constraint, and the moving average of the weights
        sign = torch.where(margins.detach() > numerical_margin(logits), -1.0, 1.0).to(leaf.dtype)
        limit = -math.log(MIN_DUAL_RATIO)
        rows.dual = (rows.dual + self.dual[rows.k - 1] * sign).clamp_(-limit, limit)
        rows.weights = DUAL_EMA * rows.weights + (1 - DUAL_EMA) * _weights(rows.dual)
        return over


def _weights(dual: Tensor) -> Tensor:
    """lambda_0 and lambda_1 (b, 2), which sum to 1."""
    return torch.stack([torch.zeros_like(dual), dual], 1).softmax(1)


def _l2(r: Tensor, root: Tensor, mu: Tensor) -> Tensor:
    """The z that minimizes ``mu |z|_2 + sum_i root_i (z_i - r_i)^2 / 2``, like ``r``.

    Where it is not 0, ``z_i = a_i t / (root_i t + mu)`` with ``a_i = root_i r_i`` and the t = |z| for which
    ``w = a / (root t + mu)`` has norm 1. ``1 / |w|`` is nearly linear in t, so Newton's method on it takes few steps.
    """
    # In single precision at least: in half precision, quotients overflow.
    precise = torch.promote_types(r.dtype, torch.float32)
    a, h, weight = (values.to(precise).flatten(1) for values in (root * r, root, mu))
    t, largest = torch.zeros_like(weight), math.sqrt(torch.finfo(precise).max)
    for _ in range(NEWTON_STEPS):
        w = a / (h * t + weight).clamp_min(torch.finfo(precise).tiny)
        size = w.norm(dim=1, keepdim=True).clamp_min(torch.finfo(precise).tiny)
        slope = (w.square() * h / (h * t + weight)).sum(1, keepdim=True) / size**3
        t = (t + (1 - 1 / size) / slope.clamp_min(torch.finfo(precise).tiny)).clamp_(0, largest)
    return (
        torch.where(weight > 0, a * t / (h * t + weight).clamp_min(torch.finfo(precise).tiny), a / h)
        .view_as(r)
        .to(r.dtype)
    )
