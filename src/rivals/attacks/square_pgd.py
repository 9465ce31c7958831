"""Square and PGD in turns: where one makes no progress, the other often does."""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor

from rivals.attacks.attack_losses import margin
from rivals.attacks.attack_state import AttackState, CommonOptions, Model, check_at_least, check_norm, prepare
from rivals.attacks.pgd import pgd
from rivals.attacks.square import square
from rivals.base.norm_balls import L1, L2, Ball, Linf
from rivals.base.rng import derive

NEAR, NEARER = 0.5, 0.2  # another turn pays if the margin is down to this share of the clean one, early and late,
PROGRESS = 0.02  # or if the last turn reduced it by this share


def square_pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    turns: int = 10,
    queries: int = 100,
    steps: int = 15,
    best: Tensor | None = None,
    clean: Tensor | None = None,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """Turns of a short :func:`~rivals.attacks.square.square` and a short :func:`~rivals.attacks.pgd.pgd`.

    Each starts from the best iterate so far, so that random search leaves places where the gradient is flat, and PGD
    does the ascent that random search is slow at. On nets hardened with small steps, whose gradients are flat near the
    image, this takes a tenth of the passes that Square alone needs. Both maximize the margin.

    An image gets another turn if its margin is down to half of the clean one, or if the last turn reduced it by a
    fiftieth: that depends on the image alone. In the later half turns are twice as long, and a fifth must be reached.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: The threat model.
        turns: The most turns of an image.
        queries: Of Square, in an early turn.
        steps: Of PGD, in an early turn.
        best: Where to start, images like ``x`` in ball and box: the best of other attacks. By default where Square
            does.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        options: targets, seed, batch_size: see :class:`CommonOptions`.

    Returns:
        The best iterate of each image: an adversarial one before one that is not, then the larger margin.

    Raises:
        UserError: bad input, in one line.
    """
    check_norm(ball, "square_pgd", (Linf, L2, L1))
    for value, name in ((turns, "turns"), (queries, "queries"), (steps, "steps")):
        check_at_least(value, 1, name)
    options["loss"] = "margin"
    with prepare(model, x, y, ball, **options) as state:
        x, radii, clean = state.x, ball.radii(state.x), state.clean_logits(clean)
        indices = (~state.fooled).nonzero()[:, 0]
        if not len(indices):
            return state.best
        clean_margins = margins = margin(clean, state.y, state.targets)
        start = None
        if best is not None:
            start = state.checked_start(ball, best)
            margins = _evaluate(state, indices, start[indices], margins)
            indices = indices[~state.fooled[indices]]
        for turn in range(turns):
            if not len(indices):
                break
            factor = 2 if 2 * turn >= turns else 1
            own, target = ball.with_eps(radii[indices]), state.target(indices)
            # The literal key is part of the results.
            own_options: dict[str, Any] = {**options, "targets": target, "seed": derive(state.seed, "relay", turn)}
            own_options["clean"] = clean[indices]
            to = (state.frozen, x[indices], state.y[indices], own)
            tried = square(
                *to, queries=factor * queries, start=None if start is None else start[indices], **own_options
            )
            tried = pgd(*to, steps=factor * steps, start=tried, **own_options)
            start, before = state.best, margins
            margins = _evaluate(state, indices, tried, margins)
            near = NEARER if 2 * (turn + 1) >= turns else NEAR
            worth = (margins >= near * clean_margins) | (margins - before >= -PROGRESS * clean_margins)
            indices = indices[(worth & ~state.fooled)[indices]]
        return state.best


def _evaluate(state: AttackState, indices: Tensor, tried: Tensor, margins: Tensor) -> Tensor:
    """Evaluate what was tried for some images (m,), keep the best, and return the margins of all (n,)."""
    for some, images in zip(torch.split(indices, state.batch_size), torch.split(tried, state.batch_size), strict=True):
        logits = state.frozen.logits(images)
        state.keep_best(some, images, logits)
        gained = margin(logits, state.y[some], state.target(some))
        margins = margins.index_copy(0, some, torch.maximum(margins[some], gained))
    return margins
