"""Attacks that step along the gradient: once (FGSM), or again and again (BIM, PGD, MI-FGSM)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.siege import Model, Shared, Siege, at_least, besiege
from rivals.attacks.standing import Rows, Storm
from rivals.base.balls import Ball


def fgsm(model: Model, x: Tensor, y: Tensor, ball: Ball, **shared: Unpack[Shared]) -> Tensor:
    """Fast gradient sign method: the best answer to the loss made linear at ``x`` (Goodfellow et al. 2015).

    In Linf that is ``clip(x + eps * sign(gradient))``. In L2 and L1 it is the point of ball *and box* that lies
    farthest along the gradient; clipping ``x + eps * direction`` would fall short of it. One forward and one backward
    pass.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`~rivals.attacks.frozen.Frozen`.
        x: Images (n, ...) within the ball's bounds.
        y: Labels (n,).
        ball: Where to look: ``Linf(8 / 255)``, ``L2(0.5)``, ``L1(12.0)``.
        shared: loss, targets, seed, batch_size, stop_when_fooled: see :class:`~rivals.attacks.siege.Shared`.

    Returns:
        Images like ``x``, in ball and box.

    Raises:
        UserError: bad input, in one line.
    """
    with besiege(model, x, y, ball, **shared) as siege:
        radii = ball.radii(siege.x)
        for points in siege.batches():
            leaf, logits, values = siege.climb(siege.rows(points))
            siege.offer(points, siege.x[points], logits)
            going = ~siege.done(points)
            if bool(going.any()):
                gradient, points = siege.frozen.gradient(values, leaf)[going], points[going]
                siege.best[points] = ball.sized(radii[points]).maximise(siege.x[points], gradient)
        return siege.best


def bim(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 10,
    step: float | None = None,
    **shared: Unpack[Shared],
) -> Tensor:
    """Basic iterative method: PGD from the image itself (Kurakin et al. 2017). As :func:`pgd` but for:

    Args:
        step: The length of a step as a share of eps; ``1 / steps`` if not given.
    """
    at_least(steps, 1, "steps")
    with besiege(model, x, y, ball, **shared) as siege:
        return _Ascent(siege, ball, _even(steps, 1 / steps if step is None else step)).run()


def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 40,
    step: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    start: Tensor | None = None,
    clean: Tensor | None = None,
    **shared: Unpack[Shared],
) -> Tensor:
    """Projected gradient descent (Madry et al. 2018): steps along the dual direction, each projected to ball and box.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`~rivals.attacks.frozen.Frozen`.
        x: Images (n, ...) within the ball's bounds.
        y: Labels (n,).
        ball: Where to look. With an eps for each image, one call on repeated images traces a curve against eps.
        steps: How many gradients a trial takes. The last iterate is judged too.
        step: The length of each step as a share of eps. If not given, lengths fall from eps to 0 along half a cosine,
            which fells more images in fewer passes than any even length does; Madry et al. took even steps of about
            ``2.5 / steps``.
        restarts: How many trials, from different random starts, a point that still stands is due.
        random_start: Start anywhere in the ball, rather than at ``x``.
        start: Where to start instead: images like ``x`` in ball and box.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        shared: loss, targets, seed, batch_size, stop_when_fooled: see :class:`~rivals.attacks.siege.Shared`.

    Returns:
        The best iterate of each image: one that fools before one that does not, then the larger loss.

    Raises:
        UserError: bad input, in one line.
    """
    at_least(steps, 1, "steps")
    at_least(restarts, 1, "restarts")
    with besiege(model, x, y, ball, **shared) as siege:
        random_start = random_start and start is None
        if ((random_start or start is not None) and siege.stop) or clean is not None:
            siege.look(clean)
        lengths = _falling(steps) if step is None else _even(steps, step)
        ascent = _Ascent(siege, ball, lengths, random_start=random_start, start=start)
        return ascent.run(restarts if random_start else 1)


def mifgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 10,
    step: float | None = None,
    decay: float = 1.0,
    **shared: Unpack[Shared],
) -> Tensor:
    """Momentum iterative FGSM (Dong et al. 2018): steps along the dual direction of a running sum of gradients.

    ``g <- decay * g + gradient / |gradient|_1``, eq. 6; a gradient of 0 adds nothing. As :func:`pgd` but for:

    Args:
        step: The length of a step as a share of eps; ``1 / steps`` if not given.
        decay: How much of the sum each step keeps; with 0 it is :func:`bim`.
    """
    at_least(steps, 1, "steps")
    at_least(decay, 0, "a decay")
    with besiege(model, x, y, ball, **shared) as siege:
        return _Ascent(siege, ball, _even(steps, 1 / steps if step is None else step), decay=decay).run()


def _even(steps: int, step: float) -> list[float]:
    at_least(step, 0, "a step")
    return [step] * steps


def _falling(steps: int) -> list[float]:
    # Long first steps cross the ball, short last ones settle; with one even length PGD can only do either.
    return [(1 + math.cos(math.pi * taken / steps)) / 2 for taken in range(steps)]


@dataclass
class _Climbing(Rows):
    eps: Tensor
    taken: Tensor
    momentum: Tensor | None


class _Ascent:
    """The loop of BIM, PGD and MI-FGSM, one step at a time."""

    def __init__(
        self,
        siege: Siege,
        ball: Ball,
        lengths: Sequence[float],
        *,
        random_start: bool = False,
        start: Tensor | None = None,
        decay: float | None = None,
    ) -> None:
        self.siege = siege
        self.ball = ball
        self.radii = ball.radii(siege.x)
        self.steps = len(lengths)
        self.lengths = torch.tensor([*lengths, 0.0], dtype=siege.x.dtype, device=siege.x.device)
        self.random_start = random_start
        self.start = siege.x if start is None else siege.starts(ball, start)
        self.decay = decay

    def run(self, trials: int = 1) -> Tensor:
        self.siege.storm(Storm(self._begin, self._advance, trials))
        return self.siege.best

    def _begin(self, points: Tensor, trials: Tensor) -> _Climbing:
        siege, x, eps = self.siege, self.siege.x[points], self.radii[points]
        start = self.start[points]
        if self.random_start:
            start = self.ball.sized(eps).random(x, siege.generators(points, trials, "pgd"))
        momentum = None if self.decay is None else torch.zeros_like(x)
        taken = torch.zeros_like(points)
        return _Climbing(points, trials, x, start, siege.y[points], siege.goal(points), eps, taken, momentum)

    def _advance(self, rows: _Climbing) -> Tensor:
        leaf, logits, values = self.siege.climb(rows)
        fools = self.siege.offer(rows.point, rows.x_adv, logits)
        over = (rows.taken == self.steps) | (fools & self.siege.stop)
        if bool(over.all()):  # the last gradient would go unused
            return over
        direction = self.siege.frozen.gradient(values, leaf)
        if rows.momentum is not None and self.decay is not None:
            size = torch.linalg.vector_norm(direction.flatten(1), 1, dim=1)
            size = size.clamp_min(torch.finfo(size.dtype).tiny).view(-1, *[1] * (direction.ndim - 1))
            direction = rows.momentum = self.decay * rows.momentum + direction / size
        ball = self.ball.sized(rows.eps)
        rows.x_adv = ball.project(ball.step(rows.x_adv, direction, self.lengths[rows.taken] * rows.eps), rows.x)
        rows.taken = rows.taken + 1
        return over
