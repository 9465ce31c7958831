"""Random search and gradients by turns: where one cannot go on, the other often can."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rivals.attacks.objectives import margin
from rivals.attacks.siege import Model, Siege, at_least, besiege
from rivals.attacks.square import square
from rivals.attacks.steps import pgd
from rivals.base.balls import Ball
from rivals.base.seeds import derive

_NEAR, _NEARER = 0.5, 0.2  # another turn pays if this share of the clean lead or less is left, early and late,
_STIRS = 0.02  # or if the last turn took this share of it off


def relay(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    turns: int = 10,
    queries: int = 100,
    steps: int = 15,
    found: Tensor | None = None,
    clean: Tensor | None = None,
    targets: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 128,
) -> Tensor:
    """Turns of a short :func:`~rivals.attacks.square.square` and a short :func:`~rivals.attacks.steps.pgd`.

    Each starts from the best that all before it found, so that the search leaves places where the gradient says
    nothing, and the gradient does the climbing that random search is slow at. On nets hardened by small steps, whose
    gradients are flat near the image, this takes a tenth of the passes that Square alone needs. Both climb the margin.

    An image gets another turn if half of the label's lead or less is left, or if the last turn took a fiftieth off it:
    that depends on the image alone. In the later half turns are twice as long, and a fifth or less must be left.

    Args:
        model: An ``nn.Module`` from images (n, C, H, W) to logits (n, K), or a :class:`~rivals.attacks.frozen.Frozen`.
        x: Images (n, C, H, W) within the ball's bounds.
        y: Labels (n,).
        ball: Where to look.
        turns: How many turns an image is due at most.
        queries: Of Square, in an early turn.
        steps: Of PGD, in an early turn.
        found: Where to start, images like ``x`` in ball and box: the best of other attacks. If not given, where Square
            does.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        targets: Classes (n,) to be mistaken for. None: any wrong class will do.
        seed: Of everything random.
        batch_size: The most images in one pass.

    Returns:
        The best iterate of each image: one that fools before one that does not, then the larger margin.

    Raises:
        UserError: bad input, in one line.
    """
    for value, name in ((turns, "turns"), (queries, "queries"), (steps, "steps")):
        at_least(value, 1, name)
    shared: dict[str, Any] = {"targets": targets, "seed": seed, "batch_size": batch_size, "loss": "margin"}
    with besiege(model, x, y, ball, **shared) as siege:
        x, radii, clean = siege.x, ball.radii(siege.x), siege.look(clean)
        points = (~siege.fooled).nonzero()[:, 0]
        if not len(points):  # no logits, perhaps
            return siege.best
        whole = lead = margin(clean, siege.y, siege.goals)
        start = None
        if found is not None:
            start = siege.starts(ball, found)
            lead = _judge(siege, points, start[points], lead)
            points = points[~siege.fooled[points]]
        for turn in range(turns):
            if not len(points):
                break
            span = 2 if 2 * turn >= turns else 1
            own, goal = ball.sized(radii[points]), siege.goal(points)
            shared.update(targets=goal, seed=derive(seed, "relay", turn), clean=clean[points])
            to = (siege.frozen, x[points], siege.y[points], own)
            tried = square(*to, queries=span * queries, start=None if start is None else start[points], **shared)
            tried = pgd(*to, steps=span * steps, start=tried, **shared)
            start, before = siege.best, lead
            lead = _judge(siege, points, tried, lead)
            near = _NEARER if 2 * (turn + 1) >= turns else _NEAR
            worth = (lead >= near * whole) | (lead - before >= -_STIRS * whole)
            points = points[(worth & ~siege.fooled)[points]]
        return siege.best


def _judge(siege: Siege, points: Tensor, tried: Tensor, lead: Tensor) -> Tensor:
    """Offer what was tried at some points (m,), and return the leads (n,) that are left of all."""
    for some, images in zip(torch.split(points, siege.capacity), torch.split(tried, siege.capacity), strict=True):
        logits = siege.frozen.logits(images)
        siege.offer(some, images, logits)
        gained = margin(logits, siege.y[some], siege.goal(some))
        lead = lead.index_copy(0, some, torch.maximum(lead[some], gained))
    return lead
