"""BIM, the basic iterative method: PGD from the image itself (Kurakin et al. 2017)."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from rivals.attacks.active_batch import ActiveBatch
from rivals.attacks.attack_state import CommonOptions, Model, check_at_least, prepare
from rivals.attacks.pgd import PGDLoop, constant_steps
from rivals.base.norm_balls import Ball


def bim(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 10,
    step_size: float | None = None,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """Basic iterative method (Kurakin et al. 2017): like :func:`pgd`, without a random start.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: The threat model.
        steps: Gradients. The last iterate is evaluated too.
        step_size: As a share of eps; ``1 / steps`` by default.
        options: See :class:`CommonOptions`.

    Returns:
        The best iterate of each image: an adversarial one before one that is not, then the larger loss.

    Raises:
        UserError: bad input, in one line.
    """
    check_at_least(steps, 1, "steps")
    with prepare(model, x, y, ball, **options) as state:
        loop = PGDLoop(state, ball, constant_steps(steps, 1 / steps if step_size is None else step_size))
        ActiveBatch(loop.init_rows, loop.step).run(*state.queue())
        return state.best
