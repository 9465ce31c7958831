"""Attacks that need no gradient and no skill: noise, and the distortions a picture meets in everyday use.

They are the floor of an evaluation: a model that they fool is weak, and an attack that does worse than they do is
broken or blinded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from rivals.attacks.siege import Model, Shared, Siege, at_least, besiege
from rivals.attacks.standing import Rows, Storm
from rivals.base.balls import Ball, draw
from rivals.base.errors import UserError
from rivals.base.registry import unknown

_Drawn = Callable[[Tensor, Sequence[Generator]], Tensor]


def noise(
    model: Model, x: Tensor, y: Tensor, ball: Ball, *, kind: str = "uniform", trials: int = 1, **shared: Unpack[Shared]
) -> Tensor:
    """Random noise in the ball, the best of ``trials`` draws.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`~rivals.attacks.frozen.Frozen`.
        x: Images (n, ...) within the ball's bounds.
        y: Labels (n,).
        ball: Where to look.
        kind: ``uniform``: evenly from the ball. ``gaussian``: normal noise with a deviation of ``eps / D^(1/p)`` for
            images of D values (eps in Linf, about the length eps in L2), projected to ball and box.
        trials: How many draws a point that still stands is due.
        shared: loss, targets, seed, batch_size, stop_when_fooled: see :class:`~rivals.attacks.siege.Shared`.

    Returns:
        The best draw of each image, or the image itself if that fools the model and ``stop_when_fooled``.

    Raises:
        UserError: bad input, in one line.
    """
    at_least(trials, 1, "trials")
    if kind not in ("uniform", "gaussian"):
        raise unknown("kind of noise", kind, ("uniform", "gaussian"))
    with besiege(model, x, y, ball, **shared) as siege:
        radii = ball.radii(siege.x)
        spread = math.prod(x.shape[1:]) ** (-1 / ball.p)

        def drawn(points: Tensor, generators: Sequence[Generator]) -> Tensor:
            original, own = siege.x[points], ball.sized(radii[points])
            if kind == "uniform":
                return own.random(original, generators)
            deviation = (radii[points] * spread).view(-1, *[1] * (original.ndim - 1))
            return own.project(original + deviation * draw(torch.randn, original, generators), original)

        return _best_of(siege, trials, f"noise {kind}", drawn)


@dataclass(frozen=True)
class Reach:
    """How far everyday distortions may go; each is drawn evenly, and all act together. The ball of :func:`augment`.

    Attributes:
        shift: Up to this share of the width and of the height, either way.
        turn: Up to this many degrees, either way.
        brightness: Up to this much is added to all values, or taken from them.
        crop: Up to this share of each side is cut away, and what is left stretched to the whole.
    """

    shift: float = 0.1
    turn: float = 15.0
    brightness: float = 0.1
    crop: float = 0.1

    def __post_init__(self) -> None:
        for name, most in (("shift", 1.0), ("turn", 180.0), ("brightness", 1.0), ("crop", 0.9)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise UserError(f"a reach with a {name} of {value:g} makes no sense: take 0 (none) to {most:g}")

    def distort(self, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Images (n, C, H, W) in [0, 1], each distorted by its own draw. What comes into view from outside is black."""
        return self.moved(x, 2 * draw(torch.rand, x, generators, size=(5,)) - 1)

    def moved(self, x: Tensor, draws: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1], each distorted as far as its five numbers in [-1, 1] say, (n, 5)."""
        across, down, turn, light, crop = draws.unbind(1)
        height, width = x.shape[2:]
        turn = turn * math.radians(self.turn)
        keep = 1 - self.crop * crop.abs()
        cos, sin = turn.cos() * keep, turn.sin() * keep
        # In the grid's coordinates both sides run from -1 to 1, so a turn must be told how long they are.
        affine = torch.stack(
            [
                *(cos, -sin * height / width, across * self.shift * 2),
                *(sin * width / height, cos, down * self.shift * 2),
            ],
            dim=1,
        ).view(-1, 2, 3)
        grid = affine_grid(affine, list(x.shape), align_corners=False)
        moved = grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return (moved + light.view(-1, 1, 1, 1) * self.brightness).clamp_(0, 1)


def augment(
    model: Model, x: Tensor, y: Tensor, reach: Reach | None = None, *, trials: int = 10, **shared: Unpack[Shared]
) -> Tensor:
    """The worst of ``trials`` random shifts, turns, crops and changes of brightness (as Engstrom et al. 2019).

    The result lies in no norm ball: what bounds it is ``reach``.

    Args:
        model: An ``nn.Module`` from images (n, C, H, W) to logits (n, K), or a frozen one.
        x: Images (n, C, H, W) in [0, 1].
        y: Labels (n,).
        reach: How far the distortions may go.
        trials: How many draws a point that still stands is due.
        shared: loss, targets, seed, batch_size, stop_when_fooled: see :class:`~rivals.attacks.siege.Shared`.

    Returns:
        The best draw of each image, or the image itself if that fools the model and ``stop_when_fooled``.

    Raises:
        UserError: bad input, in one line.
    """
    at_least(trials, 1, "trials")
    reach = Reach() if reach is None else reach
    if not isinstance(reach, Reach):
        raise UserError(
            f"the reach is a {type(reach).__name__}: give Reach(shift=0.1, turn=15, brightness=0.1, crop=0.1)"
        )
    with besiege(model, x, y, None, **shared) as siege:
        if x.ndim != 4:
            raise UserError(
                f"the images have the shape {tuple(x.shape)}: to be turned and moved, they must be (n, C, H, W)"
            )
        return _best_of(siege, trials, "augment", lambda points, generators: reach.distort(siege.x[points], generators))


def _best_of(siege: Siege, trials: int, name: str, drawn: _Drawn) -> Tensor:
    if siege.stop:
        siege.look()

    def begin(points: Tensor, trial: Tensor) -> Rows:
        x_adv = drawn(points, siege.generators(points, trial, name))
        return Rows(points, trial, siege.x[points], x_adv, siege.y[points], siege.goal(points))

    def advance(rows: Rows) -> Tensor:
        siege.offer(rows.point, rows.x_adv, siege.frozen.logits(rows.x_adv))
        return torch.ones_like(rows.point, dtype=torch.bool)

    siege.storm(Storm(begin, advance, trials))
    return siege.best
