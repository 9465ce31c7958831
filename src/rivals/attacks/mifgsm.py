"""MI-FGSM, the momentum iterative fast gradient sign method (Dong et al. 2018)."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from rivals.attacks.active_batch import ActiveBatch
from rivals.attacks.attack_state import CommonOptions, Model, check_at_least, prepare
from rivals.attacks.pgd import PGDLoop, constant_steps
from rivals.base.norm_balls import Ball


def mifgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """MI-FGSM (Dong et al. 2018): steps in the direction of an accumulated gradient.

    ``g <- mu * g + gradient / |gradient|_1``, eq. 6; a gradient of 0 adds nothing.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: The threat model.
        steps: Gradients. The last iterate is evaluated too.
        step_size: As a share of eps; ``1 / steps`` by default.
        decay: Mu, the share of the accumulated gradient that each step keeps; with 0 it is :func:`bim`.
        options: See :class:`CommonOptions`.

    Returns:
        The best iterate of each image: an adversarial one before one that is not, then the larger loss.

    Raises:
        UserError: bad input, in one line.
    """
    check_at_least(steps, 1, "steps")
    check_at_least(decay, 0, "a decay")
    with prepare(model, x, y, ball, **options) as state:
        step_sizes = constant_steps(steps, 1 / steps if step_size is None else step_size)
        loop = PGDLoop(state, ball, step_sizes, decay=decay)
        ActiveBatch(loop.init_rows, loop.step).run(*state.queue())
        return state.best
