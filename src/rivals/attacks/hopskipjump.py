"""HopSkipJump: a minimum-norm attack that sees labels only, in L2 and Linf (Chen et al. 2020, Alg. 2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.attack_state import Model, check_at_least, check_norm, prepare
from rivals.attacks.decision_oracle import DecisionOptions, Oracle, nearest_within
from rivals.base.norm_balls import L2, Ball, Linf
from rivals.base.tensors import nonzero_norm

_MAX_SAMPLES = 10_000  # of one estimate of the gradient's direction


def hopskipjump(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    queries: int = 5000,
    samples: int = 100,
    start: Tensor | None = None,
    **options: Unpack[DecisionOptions],
) -> Tensor:
    """HopSkipJump (Chen et al. 2020, Alg. 2): a near adversarial example, from predicted labels alone.

    From a point on the boundary, the direction of the gradient there is estimated by the labels of random points around
    it: more of them as the search goes on, ``samples * sqrt(t)``. A step in this direction, halved until it ends on
    the adversarial side, and a bisection back to the boundary give the next point.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), of which the largest counts, or a frozen one.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: ``L2`` or ``Linf``: its bounds and, by its eps, how far an adversarial example may be to count.
        queries: The most forward passes of an image, all included but that of the clean image.
        samples: B_0, random points of the first estimate.
        start: Adversarial images like ``x`` to start from, (n, ...): in a targeted attack images of the target classes.
            By default uniform noise, coarser where white noise does not fool.
        options: See :class:`DecisionOptions`.

    Returns:
        For each image the nearest adversarial example found, if it lies within eps; else the image. Misclassified
        images are returned as they are.

    Raises:
        UserError: bad input, in one line.
    """
    check_norm(ball, "hopskipjump", (L2, Linf))
    check_at_least(queries, 1, "queries")
    check_at_least(samples, 1, "samples")
    with prepare(model, x, y, ball, **options) as state:
        given = None if start is None else state.checked_images(ball, start)
        return nearest_within(state, ball, queries, lambda oracle: _HopSkipJump(oracle, samples).run(given))


class _HopSkipJump:
    """Alg. 2 on one image, in the letters of the paper."""

    def __init__(self, oracle: Oracle, samples: int) -> None:
        self.oracle = oracle
        self.ball = oracle.ball
        self.samples = samples
        self.random = oracle.generator("hopskipjump")
        d = oracle.ball.dimensions(oracle.x)
        self.l2 = isinstance(oracle.ball, L2)
        # Their sec. IV-C: theta = d^(-3/2) in L2, d^-2 in Linf; delta_t = d^(1/2) or d times theta times the distance
        self.theta = d**-1.5 if self.l2 else d**-2.0
        self.delta = math.sqrt(d) * self.theta if self.l2 else d * self.theta

    def run(self, given: Tensor | None) -> None:
        """Until the oracle's budget is spent, or there is nothing to gain."""
        oracle, ball, x = self.oracle, self.ball, self.oracle.x
        x_tilde = oracle.start(given, self.random)
        if x_tilde is None:
            return
        low, high = ball.bounds
        x_t = self._to_boundary(x_tilde)
        t = 0
        while True:
            t += 1
            distance = float(ball.distance(x_t, x))
            if distance == 0:
                return
            # Line 6: B_t samples; delta_t, at first a tenth of the range
            count = min(int(self.samples * math.sqrt(t)), _MAX_SAMPLES)
            delta = self.delta * distance if t > 1 else 0.1 * float(torch.as_tensor(high - low).max())
            v = self._gradient_direction(x_t, count, delta)
            # Lines 7 to 11: the step size, by geometric progression, and back to the boundary
            size = distance / math.sqrt(t)
            while True:
                x_tilde = (x_t + size * v).clamp(low, high)
                if bool(oracle.adversarial(x_tilde)):
                    x_t = self._to_boundary(x_tilde)
                    break
                size /= 2
                if size < 1e-6 * distance:  # rounding: another estimate from the same point
                    break

    def _gradient_direction(self, x_t: Tensor, count: int, delta: float) -> Tensor:
        """The direction of the gradient of the decision function, by Monte Carlo (eq. 9 and, with the baseline, 16)."""
        low, high = self.ball.bounds
        shape = (count, *x_t.shape[1:])
        if self.l2:
            u = torch.randn(shape, generator=self.random, dtype=x_t.dtype).to(x_t.device)
        else:
            u = torch.rand(shape, generator=self.random, dtype=x_t.dtype).to(x_t.device) * 2 - 1
        u = self.ball.on_mask(u)
        u = u / nonzero_norm(u, 2).view(-1, *[1] * (u.ndim - 1))
        points = self.oracle.only_movable((x_t + delta * u).clamp(low, high))
        u = (points - x_t) / delta  # what the box left of it
        phi = torch.where(self.oracle.adversarial(points), 1.0, -1.0).to(x_t.dtype)
        if bool((phi != phi[0]).any()):
            phi = phi - phi.mean()
        v = torch.tensordot(phi, u, dims=1)[None] / count
        return self.ball.steepest_direction(v)  # v over its length, or its sign

    def _to_boundary(self, x_adv: Tensor) -> Tensor:
        """Bin-Search (Alg. 1): in L2 on the line to the image, in Linf by shrinking the box around it."""
        x, size = self.oracle.x, float(self.ball.distance(x_adv, self.oracle.x))
        blend: Callable[[Tensor, float], Tensor]
        if self.l2:
            blend = lambda there, share: self.ball.keep_mask(x + share * (there - x), x)  # noqa: E731
        else:
            side = size * self.ball.steepest_direction(torch.ones_like(x))  # less for features with a smaller radius
            blend = lambda there, share: x + (there - x).clamp(-share * side, share * side)  # noqa: E731
        return self.oracle.to_boundary(x_adv, self.theta, blend)
