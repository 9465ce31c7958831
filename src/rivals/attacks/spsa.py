"""SPSA: gradients estimated from scores at pairs of random points (Spall 1992; as an attack, Uesato et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.active_batch import ActiveBatch, Rows
from rivals.attacks.adam import adam_moments
from rivals.attacks.attack_state import AttackState, CommonOptions, Model, check_at_least, prepare
from rivals.base.errors import UserError
from rivals.base.norm_balls import L0, Ball
from rivals.base.rng import draw_per_image
from rivals.base.tensors import batch_view


def spsa(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    queries: int = 5000,
    samples: int = 32,
    delta: float = 0.01,
    step_size: float = 0.5,
    clean: Tensor | None = None,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """Simultaneous perturbation stochastic approximation (Uesato et al. 2018, Alg. 1). Needs scores, no gradient.

    The gradient is the mean over random sign vectors v of ``(f(x + delta v) - f(x - delta v)) / (2 delta) v``; Adam
    takes the steps, and each iterate is projected onto ball and box.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a frozen one.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: The threat model, in Linf, L2 or L1.
        queries: The most forward passes of an image, all included but that of the clean image.
        samples: Pairs of points for a gradient.
        delta: Their distance from the iterate in every value, in shares of the range of images.
        step_size: Adam's learning rate, as a share of eps for each value: ``eps / D^(1/p)`` for images of D values.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        options: See :class:`CommonOptions`; the loss is ``margin`` by default.

    Returns:
        The best iterate of each image: an adversarial one before one that is not, then the larger loss.

    Raises:
        UserError: bad input, in one line.
    """
    if isinstance(ball, L0):
        raise UserError(f"spsa is an attack in Linf, L2 or L1, the ball is {ball}: take sparse_rs")
    check_at_least(queries, 1, "queries")
    check_at_least(samples, 1, "samples")
    for name, value in (("delta", delta), ("step size", step_size)):
        if not value > 0:
            raise UserError(f"a {name} of {value:g} cannot work: take one above 0")
    if queries < 2 * samples + 1:
        raise UserError(
            f"{queries} queries are too few for a gradient of {samples} pairs and a look at the result: take "
            f"{2 * samples + 1} or more, or fewer samples"
        )
    options.setdefault("loss", "margin")
    with prepare(model, x, y, ball, **options) as state:
        if state.stop or clean is not None:
            state.clean_logits(clean)
        attack = _SPSA(state, ball, queries // (2 * samples + 1), samples, (delta, step_size))
        ActiveBatch(attack.init_rows, attack.step).run(*state.queue())
        return state.best


@dataclass
class _SPSARows(Rows):
    eps: Tensor
    mean: Tensor
    square: Tensor
    k: Tensor


class _SPSA:
    """Alg. 1 on an active batch."""

    def __init__(self, state: AttackState, ball: Ball, steps: int, samples: int, sizes: tuple[float, float]) -> None:
        self.state = state
        self.ball = ball
        self.radii = ball.radii(state.x)
        self.steps = steps
        self.samples = samples
        low, high = ball.bounds
        self.delta, self.step_size = sizes[0] * (high - low), sizes[1]
        self.root = max(ball.dimensions(state.x), 1) ** (1 / ball.p)

    def init_rows(self, indices: Tensor, trials: Tensor) -> _SPSARows:
        state, x = self.state, self.state.x[indices]
        zeros, k = torch.zeros_like(x), torch.zeros_like(indices)
        return _SPSARows(
            indices, trials, x, x, state.y[indices], state.target(indices), self.radii[indices], zeros, zeros, k
        )

    def step(self, rows: _SPSARows) -> Tensor:
        state = self.state
        gradient = self._gradient(rows)
        state.count_queries(rows.index, torch.zeros_like(rows.index, dtype=torch.bool), 2 * self.samples)
        rows.k = rows.k + 1
        mean, root = adam_moments(rows, gradient)
        moved = rows.x_adv + batch_view(self.step_size * rows.eps / self.root, mean) * mean / root
        rows.x_adv = self.ball.with_eps(rows.eps).project(moved, rows.x)
        logits = state.frozen.logits(rows.x_adv)
        adversarial = state.keep_best(rows.index, rows.x_adv, logits)
        state.count_queries(rows.index, adversarial)
        return (rows.k == self.steps) | (adversarial & state.stop)

    def _gradient(self, rows: _SPSARows) -> Tensor:
        """The estimate of each row's gradient, from ``samples`` pairs."""
        state, shape = self.state, tuple(rows.x.shape[1:])
        generators = state.generators(rows.index, rows.k, "spsa")
        signs = draw_per_image(torch.rand, rows.x, generators, size=(self.samples, *shape)).sub_(0.5).sign()
        signs = signs.to(rows.x.dtype)
        signs = self.ball.on_mask(signs)
        x_adv, total = rows.x_adv[:, None], torch.zeros_like(rows.x)
        per_pass = max(state.batch_size // (2 * len(rows)), 1)
        for some in torch.split(signs, per_pass, dim=1):
            # The paper asks beyond the box, too; a model that takes valid images alone would refuse.
            points = torch.cat([x_adv + self.delta * some, x_adv - self.delta * some], 1).clamp(*self.ball.bounds)
            logits = state.frozen.logits(points.flatten(0, 1))
            y = rows.y.repeat_interleave(points.shape[1])
            target = None if rows.target is None else rows.target.repeat_interleave(points.shape[1])
            values = state.loss_fn(logits, y, target).view(len(rows), 2, -1)
            difference = (values[:, 0] - values[:, 1]).to(total.dtype)
            total += (difference.view(*difference.shape, *[1] * len(shape)) * some).sum(1)
        return total / self.samples
