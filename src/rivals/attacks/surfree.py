"""SurFree: a minimum-norm attack in L2 that sees labels only and estimates no gradient (Maho et al. 2021)."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.attack_state import Model, check_at_least, check_norm, prepare
from rivals.attacks.decision_oracle import DecisionOptions, Oracle, nearest_within
from rivals.attacks.low_frequencies import low_frequency_noise
from rivals.base.errors import UserError
from rivals.base.norm_balls import L2, Ball
from rivals.base.tensors import nonzero_norm

THETA_MAX = 30.0  # degrees, the largest angle at first (their sec. 4)
RHO = 0.98  # the largest angle is cut to this share where no direction is adversarial, and grows back where one is
SIGNS = 3  # T: angles that are tried to either side
BISECTIONS = 6  # l, of the angle: their 10 refine an angle far below what the next direction gains
MEMORY = 100  # L, directions that a new one is orthogonal to


def surfree(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    queries: int = 5000,
    frequencies: float = 0.5,
    start: Tensor | None = None,
    **options: Unpack[DecisionOptions],
) -> Tensor:
    """SurFree (Maho et al. 2021): a near adversarial example in L2, from predicted labels alone.

    The boundary is taken for a plane. In the plane of the image, the boundary point and a random direction, the points
    at which the boundary point's circle, with the way to the image as its diameter, is adversarial are nearer: angles
    to both sides are tried, and the largest is found by bisection. Directions are smooth noise, orthogonal to the last
    ones.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), of which the largest counts, or a frozen one.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: ``L2``: its bounds and, by its eps, how far an adversarial example may be to count.
        queries: The most forward passes of an image, all included but that of the clean image.
        frequencies: The share of the frequencies of each side that directions are made of, the lowest; 1 is white
            noise.
        start: Adversarial images like ``x`` to start from, (n, ...): in a targeted attack images of the target classes.
            By default uniform noise, coarser where white noise does not fool.
        options: See :class:`DecisionOptions`.

    Returns:
        For each image the nearest adversarial example found, if it lies within eps; else the image. Misclassified
        images are returned as they are.

    Raises:
        UserError: bad input, in one line.
    """
    check_norm(ball, "surfree", (L2,))
    check_at_least(queries, 1, "queries")
    if not 0 < frequencies <= 1:
        raise UserError(f"frequencies of {frequencies:g} are no share of them: take one above 0, at most 1")
    with prepare(model, x, y, ball, **options) as state:
        given = None if start is None else state.checked_images(ball, start)
        return nearest_within(state, ball, queries, lambda oracle: _SurFree(oracle, frequencies).run(given))


class _SurFree:
    """Alg. 1 on one image."""

    def __init__(self, oracle: Oracle, frequencies: float) -> None:
        self.oracle = oracle
        self.frequencies = frequencies
        self.random = oracle.generator("surfree")
        # At most half of the dimensions that there are: else little would be left for a new direction.
        share = frequencies**2 if oracle.x.ndim == 4 else 1.0
        self.memory = max(min(MEMORY, int(share * oracle.ball.dimensions(oracle.x) / 2)), 1)

    def run(self, given: Tensor | None) -> None:
        """Until the oracle's budget is spent, or there is nothing to gain."""
        oracle, ball, x = self.oracle, self.oracle.ball, self.oracle.x
        x_b = oracle.start(given, self.random)
        if x_b is None:
            return
        x_b = oracle.to_boundary(x_b, 1e-3, lambda there, share: ball.keep_mask(x + share * (there - x), x))
        theta_max, known = THETA_MAX, x.new_zeros((0, x.numel()))
        while True:
            distance = float((x_b - x).norm())
            if distance == 0:
                return
            u = (x_b - x) / distance
            v = self._direction(u, known)
            found = self._angle(u, v, distance, theta_max)
            if found is None:
                theta_max *= RHO
            else:
                theta_max = min(theta_max / RHO, THETA_MAX)
                x_b = self._point(u, v, distance, found)
            known = torch.cat([known, v.flatten(1)])[-self.memory :]

    def _direction(self, u: Tensor, known: Tensor) -> Tensor:
        """A random direction of norm 1, orthogonal to u and to those known (m, D), which are so to each other."""
        v = low_frequency_noise(u, self.frequencies, self.random)
        v = self.oracle.ball.on_mask(v)
        for basis in (known, u.flatten(1)):  # u last: it counts most
            v = v - (basis.T @ (basis @ v.flatten())).view_as(v)
        return v / nonzero_norm(v, 2).view(-1, *[1] * (v.ndim - 1))

    def _angle(self, u: Tensor, v: Tensor, distance: float, theta_max: float) -> float | None:
        """The largest adversarial angle, in degrees, to either side; None if none of those tried is (eq. 8 to 10)."""
        for step in range(SIGNS, 0, -1):
            for sign in (1, -1):
                theta = sign * theta_max * step / SIGNS
                if self._is_adversarial(u, v, distance, theta):
                    low = theta
                    high = sign * min(abs(theta) * 2 if step == SIGNS else theta_max * (step + 1) / SIGNS, 89.0)
                    for _ in range(BISECTIONS):
                        middle = (low + high) / 2
                        if self._is_adversarial(u, v, distance, middle):
                            low = middle
                        else:
                            high = middle
                    return low
        return None

    def _is_adversarial(self, u: Tensor, v: Tensor, distance: float, theta: float) -> bool:
        return bool(self.oracle.adversarial(self._point(u, v, distance, theta)))

    def _point(self, u: Tensor, v: Tensor, distance: float, theta: float) -> Tensor:
        """``x + d cos(theta) (cos(theta) u + sin(theta) v)``, at the distance d cos(theta) (eq. 4), in the box."""
        cos, sin = math.cos(math.radians(theta)), math.sin(math.radians(theta))
        x, ball = self.oracle.x, self.oracle.ball
        return ball.keep_mask((x + distance * cos * (cos * u + sin * v)).clamp(*ball.bounds), x)
