"""Attacks on a surrogate, made to transfer: one iterative attack with momentum, input transforms, variance tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from rivals.attacks.active_batch import ActiveBatch, Rows
from rivals.attacks.attack_state import AttackState, CommonOptions, Model, check_at_least, prepare
from rivals.attacks.input_transforms import (
    TRANSFORMS,
    Draw,
    Transform,
    compose,
    norm_per_image,
    translation_invariant,
)
from rivals.base.errors import UserError
from rivals.base.norm_balls import Ball
from rivals.base.registry import unknown
from rivals.base.rng import draw_per_image
from rivals.base.tensors import batch_view

MOMENTA = ("none", "mi", "ni")


def transfer(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    steps: int = 10,
    step_size: float | None = None,
    transform: str | Transform = "di",
    momentum: str = "mi",
    decay: float = 1.0,
    variance: int = 0,
    spread: float = 1.5,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """An iterative attack on a surrogate ``model`` whose results are meant for another one.

    Each step follows the gradient of the cross-entropy, averaged over transformed copies of the iterate, with momentum
    ``g <- decay g + gradient / |gradient|_1``: MI (Dong et al. 2018). As in the authors' code, ``|.|_1`` is the mean of
    the absolute values, where the paper has their sum. NI (Lin et al. 2020, eq. 6) takes the gradient ahead, in Linf at
    ``x_t + alpha decay g``. There a first gradient reaches about as far as a step. So that it does in L2 and L1 too,
    they have ``x_t + alpha decay g / D^(1/p)``, with D values that may change; L0 has a step of ``alpha decay``.
    Variance tuning, VMI and VNI (Wang & He 2021), adds to each gradient by how much the mean gradient of random
    neighbors differed from that of the step before.

    It never stops early, and returns the last iterate: what fools the surrogate already may fool the target later.

    Args:
        model: The surrogate: an ``nn.Module`` from images (n, C, H, W) to logits (n, K), or a :class:`FrozenModel`;
            :class:`LogitsMean` makes one of several.
        x: Images (n, C, H, W) in the ball's bounds.
        y: Labels (n,).
        ball: The threat model.
        steps: Gradients.
        step_size: As a share of eps; ``1 / steps`` by default.
        transform: ``di``, ``si``, ``admix``, ``ti`` or several as ``di+ti``, or ``none``; or a function of iterates and
            a :class:`~rivals.attacks.input_transforms.Draw` that returns copies.
        momentum: ``mi``, ``ni`` or ``none``.
        decay: Mu, the share of the accumulated gradient that each step keeps.
        variance: Neighbors whose gradients are compared with the iterate's; 0 for no variance tuning, else such as 5
            (the paper's 20).
        spread: How far they lie: uniform in each value, up to this times eps in Linf, and as far from x in other norms.
        options: See :class:`CommonOptions`; ``stop_when_fooled`` has no use.

    Returns:
        The last iterate of each image, in ball and box.

    Raises:
        UserError: bad input, in one line.
    """
    check_at_least(steps, 1, "steps")
    check_at_least(decay, 0, "a decay")
    check_at_least(variance, 0, "variance")
    check_at_least(spread, 0, "a spread")
    if momentum not in MOMENTA:
        raise unknown("momentum", momentum, MOMENTA)
    transforms, smoothed = parse_transform(transform)
    options["stop_when_fooled"] = False
    with prepare(model, x, y, ball, **options) as state:
        if state.x.ndim != 4 and (transforms or smoothed):
            raise UserError(
                f"the images have the shape {tuple(x.shape)}: transforms are for (n, C, H, W); take transform=none"
            )
        size = 1 / steps if step_size is None else step_size
        loop = _Transfer(state, ball, steps, size, momentum, decay if momentum != "none" else 0.0)
        loop.transforms, loop.smoothed = transforms, smoothed
        # Neighbors differ by up to this share of eps in each value; in L0, where eps has no length, of the range.
        loop.variance = variance
        loop.width = spread * max(ball.dimensions(state.x), 1) ** (-1 / ball.p) if ball.p else spread / 10
        ActiveBatch(loop.init_rows, loop.step).run(*state.queue())
        return state.best


def parse_transform(transform: str | Transform) -> tuple[list[Transform], bool]:
    """The transforms of the input, and whether the gradient is smoothed (TI), from text as ``di+ti``.

    Raises:
        UserError: there is no such transform.
    """
    if not isinstance(transform, str):
        if not callable(transform):
            raise UserError(f"the transform is a {type(transform).__name__}: give a name, or a function")
        return [transform], False
    names = [] if transform == "none" else transform.split("+")
    for name in names:
        if name not in (*TRANSFORMS, "ti"):
            raise unknown("transform", name, (*TRANSFORMS, "ti", "none"))
    return [TRANSFORMS[name] for name in names if name != "ti"], "ti" in names


class LogitsMean(nn.Module):
    """Several surrogates as one: the mean of their logits (Dong et al. 2018, sec. 3.3)."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, ...) to logits (n, K)."""
        return torch.stack([model(x) for model in self.models]).mean(0)


@dataclass
class _TransferRows(Rows):
    eps: Tensor
    t: Tensor
    g: Tensor  # the accumulated gradient
    v: Tensor  # the variance of the gradient


class _Transfer:
    """The iteration, on an active batch."""

    transforms: list[Transform]
    smoothed: bool
    variance: int
    width: float

    def __init__(
        self, state: AttackState, ball: Ball, steps: int, step_size: float, momentum: str, decay: float
    ) -> None:
        self.state = state
        self.ball = ball
        self.radii = ball.radii(state.x)
        self.steps = steps
        self.step_size = step_size
        self.ahead = momentum == "ni"
        self.decay = decay

    def init_rows(self, indices: Tensor, trials: Tensor) -> _TransferRows:
        state, x, t = self.state, self.state.x[indices], torch.zeros_like(indices)
        zeros, eps = torch.zeros_like(x), self.radii[indices]
        return _TransferRows(indices, trials, x, x, state.y[indices], state.target(indices), eps, t, zeros, zeros)

    def step(self, rows: _TransferRows) -> Tensor:
        ball = self.ball.with_eps(rows.eps)
        # NI: the gradient is taken where the momentum is about to lead
        here = self._look_ahead(rows, ball) if self.ahead else rows.x_adv
        generators = self.state.generators(rows.index, rows.t, "transfer")
        draw = Draw(generators, self.state.x, rows.y[:, None] != self.state.y[None])
        gradient = self._gradient(rows, here, draw)
        # VMI, Alg. 1, lines 5 and 6, with the variance of the step before
        tuned = gradient + rows.v
        if self.smoothed:
            tuned = translation_invariant(tuned)
        rows.g = self.decay * rows.g + norm_per_image(tuned)
        if self.variance:
            # Line 7: the mean gradient of neighbors less that of the iterate
            width = batch_view(self.width * rows.eps if ball.p else torch.full_like(rows.eps, self.width), here)
            total = torch.zeros_like(here)
            for _ in range(self.variance):
                u = 2 * draw_per_image(torch.rand, here, generators) - 1
                total += self._gradient(rows, here + ball.on_mask(width * u), draw)
            rows.v = total / self.variance - gradient
        rows.x_adv = ball.project(ball.step(rows.x_adv, rows.g, self.step_size * rows.eps), rows.x)
        rows.t = rows.t + 1
        over = rows.t == self.steps
        done = rows.index[over]
        self.state.best[done] = rows.x_adv[over]
        return over

    def _look_ahead(self, rows: _TransferRows, ball: Ball) -> Tensor:
        """NI, eq. 6: ``x_t + alpha decay g``, whose absolute values have the mean 1 after one gradient."""
        lengths = self.step_size * self.decay * rows.eps
        if not ball.p:
            return ball.step(rows.x_adv, rows.g, lengths)
        g = ball.on_mask(rows.g if ball.scale is None else rows.g * ball.scale)
        # The mean is over all values, also those outside of a mask, which are 0.
        free = max(ball.dimensions(g), 1)
        share = free / max(g[0].numel(), 1) * free ** (-1 / ball.p)
        return rows.x_adv + batch_view(share * lengths, g) * g

    def _gradient(self, rows: _TransferRows, here: Tensor, draw: Draw) -> Tensor:
        """The gradient of the loss at ``here``, the mean over its transformed copies."""
        frozen = self.state.frozen
        with torch.enable_grad():
            point = here.detach().requires_grad_()
            copies = compose(self.transforms, point, draw)
        total = torch.zeros_like(here)
        for copy in copies:
            leaf, logits = frozen.trace(copy)
            at_copy = frozen.gradient(self.state.loss(logits, rows), leaf)
            # Back through the transform: its own vector-Jacobian product
            if copy is point:
                total += at_copy
            else:
                total += torch.autograd.grad(copy, point, at_copy, retain_graph=True)[0]
        return self.ball.on_mask(total / len(copies))
