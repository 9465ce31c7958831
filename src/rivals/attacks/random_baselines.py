"""Random baselines: noise, and random shifts, rotations, crops and changes of brightness.

Gradient-free lower bounds on attack strength: an attack that does worse is broken or misled by masked gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from rivals.attacks.active_batch import ActiveBatch, Rows
from rivals.attacks.attack_state import AttackState, CommonOptions, Model, check_at_least, prepare
from rivals.base.errors import UserError
from rivals.base.norm_balls import Ball
from rivals.base.registry import unknown
from rivals.base.rng import draw_per_image
from rivals.base.tensors import batch_view

_Sampler = Callable[[Tensor, Sequence[Generator]], Tensor]


def noise(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    kind: str = "uniform",
    trials: int = 1,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """Random noise in the ball, the best of ``trials`` samples.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`FrozenModel`.
        x: Images (n, ...) within the ball's bounds.
        y: Labels (n,).
        ball: The threat model.
        kind: ``uniform`` in the ball, or ``gaussian`` with a standard deviation of ``eps / D^(1/p)`` for images of D
            values (eps in Linf, about the length eps in L2; 1 in L0), projected to ball and box.
        trials: Samples for an image that is still classified correctly.
        options: See :class:`CommonOptions`.

    Returns:
        The best sample of each image: an adversarial one before one that is not, then the larger loss.

    Raises:
        UserError: bad input, in one line.
    """
    check_at_least(trials, 1, "trials")
    if kind not in ("uniform", "gaussian"):
        raise unknown("kind of noise", kind, ("uniform", "gaussian"))
    with prepare(model, x, y, ball, **options) as state:
        radii = ball.radii(state.x)
        # In L0 the box alone bounds the values.
        spread = radii * math.prod(x.shape[1:]) ** (-1 / ball.p) if ball.p else torch.ones_like(radii)

        def sample(indices: Tensor, generators: Sequence[Generator]) -> Tensor:
            original, own = state.x[indices], ball.with_eps(radii[indices])
            if kind == "uniform":
                return own.sample(original, generators)
            deviation = batch_view(spread[indices], original)
            return own.project(original + deviation * draw_per_image(torch.randn, original, generators), original)

        return _best_of(state, trials, f"noise {kind}", sample)


@dataclass(frozen=True)
class AugmentRanges:
    """Ranges of random distortions, each uniform and all applied together: the threat model of :func:`augment`.

    Attributes:
        shift: Up to this share of the width and of the height, either way.
        turn: Up to this many degrees, either way.
        brightness: Up to this much is added to all values, or taken from them.
        crop: Up to this share of each side is cut away, and the rest is resized to the full image.
    """

    shift: float = 0.1
    turn: float = 15.0
    brightness: float = 0.1
    crop: float = 0.1

    def __post_init__(self) -> None:
        for name, most in (("shift", 1.0), ("turn", 180.0), ("brightness", 1.0), ("crop", 0.9)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise UserError(f"a {name} of {value:g} cannot work: take 0 (none) to {most:g}")

    def distort(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Images (n, C, H, W) in [0, 1], each distorted at random. Padding is black."""
        u = 2 * draw_per_image(torch.rand, x, generators, size=(5,)) - 1
        return self.apply(x, u.to(x.dtype))

    def apply(self, x: Tensor, u: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1], each distorted by its row of ``u`` (n, 5) in [-1, 1]: shares of the ranges."""
        dx, dy, angle, brightness, crop = u.unbind(1)
        height, width = x.shape[2:]
        angle = angle * math.radians(self.turn)
        keep = 1 - self.crop * crop.abs()
        cos, sin = angle.cos() * keep, angle.sin() * keep
        # Grid coordinates run from -1 to 1 on both sides, so a rotation needs the aspect ratio.
        affine = torch.stack(
            [
                torch.stack([cos, -sin * height / width, dx * self.shift * 2], dim=1),
                torch.stack([sin * width / height, cos, dy * self.shift * 2], dim=1),
            ],
            dim=1,
        )
        grid = affine_grid(affine, list(x.shape), align_corners=False)
        warped = grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return (warped + brightness.view(-1, 1, 1, 1) * self.brightness).clamp_(0, 1)


def augment(
    model: Model,
    x: Tensor,
    y: Tensor,
    ranges: AugmentRanges | None = None,
    *,
    trials: int = 10,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """The worst of ``trials`` random shifts, rotations, crops and brightness changes (Engstrom et al. 2019).

    The result lies in no norm ball: it is bounded by ``ranges``.

    Args:
        model: An ``nn.Module`` from images (n, C, H, W) to logits (n, K), or a frozen one.
        x: Images (n, C, H, W) in [0, 1].
        y: Labels (n,).
        ranges: How large the distortions may be.
        trials: Samples for an image that is still classified correctly.
        options: See :class:`CommonOptions`.

    Returns:
        The best sample of each image: an adversarial one before one that is not, then the larger loss.

    Raises:
        UserError: bad input, in one line.
    """
    check_at_least(trials, 1, "trials")
    ranges = AugmentRanges() if ranges is None else ranges
    if not isinstance(ranges, AugmentRanges):
        raise UserError(
            f"the ranges are a {type(ranges).__name__}: "
            "give AugmentRanges(shift=0.1, turn=15, brightness=0.1, crop=0.1)"
        )
    with prepare(model, x, y, None, **options) as state:
        if x.ndim != 4:
            raise UserError(
                f"the images have the shape {tuple(x.shape)}: to be rotated and shifted, they must be (n, C, H, W)"
            )
        return _best_of(
            state, trials, "augment", lambda indices, generators: ranges.distort(state.x[indices], generators)
        )


def _best_of(state: AttackState, trials: int, name: str, sample: _Sampler) -> Tensor:
    if state.stop:
        state.clean_logits()

    def init_rows(indices: Tensor, trial: Tensor) -> Rows:
        x_adv = sample(indices, state.generators(indices, trial, name))
        return Rows(indices, trial, state.x[indices], x_adv, state.y[indices], state.target(indices))

    def step(rows: Rows) -> Tensor:
        adversarial = state.keep_best(rows.index, rows.x_adv, state.frozen.logits(rows.x_adv))
        state.count_queries(rows.index, adversarial)
        return torch.ones_like(rows.index, dtype=torch.bool)

    ActiveBatch(init_rows, step, trials).run(*state.queue())
    return state.best
