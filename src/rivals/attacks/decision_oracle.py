"""What attacks that see labels only ask of a model: is this image adversarial? At a budget of queries an image.

The queries of one image fill a batch, so images are attacked one after the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Generator, Tensor

from rivals.attacks.attack_state import AttackState
from rivals.base.norm_balls import Ball
from rivals.base.rng import draw_per_image

_STARTS = 25  # random images of each kind that are tried for an adversarial one
_CELLS = (1, 2, 4, 8)  # their kinds: noise in cells of so many pixels a side


class DecisionOptions(TypedDict, total=False):
    """The keyword options of attacks that see labels only.

    Attributes:
        targets: Target classes (n,). None (default): untargeted.
        seed: Of everything random; 0 by default. Each image has its own random stream, as in other attacks.
        batch_size: Largest number of images in one forward pass, 128 by default. But for rounding, results do not
            depend on it.
    """

    targets: Tensor | None
    seed: int
    batch_size: int


class BudgetSpent(Exception):
    """An image has had all its queries."""


@dataclass
class Oracle:
    """The decisions about one image, counted.

    Attributes:
        state: Model and images.
        ball: Its norm, its bounds and, by its eps, how far an adversarial example may be to count.
        index: Which image it is.
        queries: The most images that may be asked about.
        made: How many were.
        best: The nearest adversarial image so far (1, ...), or the image itself.
        distance: Its distance; infinity where there is none.
        needed: How many queries it took until one within eps was found; -1 if none was.
    """

    state: AttackState
    ball: Ball
    index: int
    queries: int
    made: int = 0
    best: Tensor = field(init=False)
    distance: float = float("inf")
    needed: int = -1

    def __post_init__(self) -> None:
        self.best = self.x.clone()
        self.eps = float(self.ball.radii(self.state.x)[self.index])

    @property
    def x(self) -> Tensor:
        """The image (1, ...)."""
        return self.state.x[self.index : self.index + 1]

    def generator(self, attack: str) -> Generator:
        """The random stream of the image."""
        index = torch.tensor([self.index], device=self.state.x.device)
        return self.state.generators(index, torch.zeros_like(index), attack)[0]

    def adversarial(self, x_adv: Tensor) -> Tensor:
        """Which of some images (m, ...) in the box are adversarial (m,); each is a query.

        Raises:
            BudgetSpent: there are fewer queries left than images, after those that are left were used.
        """
        allowed = x_adv[: self.queries - self.made]
        found = [self._ask(some) for some in torch.split(allowed, self.state.batch_size)] if len(allowed) else []
        if len(allowed) < len(x_adv):
            raise BudgetSpent
        return torch.cat(found)

    def _ask(self, x_adv: Tensor) -> Tensor:
        predicted, y = self.state.frozen.logits(x_adv).argmax(1), self.state.y[self.index]
        targets = self.state.targets
        found = predicted != y if targets is None else predicted == targets[self.index]
        far = self.ball.distance(x_adv, self.x.expand_as(x_adv)).masked_fill(~found, torch.inf)
        nearest = int(far.argmin())
        if float(far[nearest]) < self.distance:
            self.best, self.distance = x_adv[nearest : nearest + 1].clone(), float(far[nearest])
        within = (far <= self.eps).nonzero()[:, 0]
        if self.needed < 0 and len(within):
            self.needed = self.made + int(within[0]) + 1
        self.made += len(x_adv)
        return found

    def start(self, given: Tensor | None, generator: Generator) -> Tensor | None:
        """An adversarial image (1, ...): the given one, or uniform noise, fine or coarse; None if there is none."""
        if given is not None:
            here = self.only_movable(given[self.index : self.index + 1])
            return here if bool(self.adversarial(here)) else None
        for cell in _CELLS:
            for _ in range(_STARTS):
                noise = self.only_movable(self._noise(cell, generator))
                if bool(self.adversarial(noise)):
                    return noise
        return None

    def _noise(self, cell: int, generator: Generator) -> Tensor:
        """Uniform noise like the image (1, ...), constant in cells of ``cell`` pixels a side.

        Networks often see one class in all white noise. Images of that class need something coarser to start from.
        """
        low, high = self.ball.bounds
        sides = self.x.shape[2:]
        coarse = (*self.x.shape[1:2], *(-(-side // cell) for side in sides))
        u = draw_per_image(torch.rand, self.x, [generator], size=coarse)
        for dim, side in enumerate(sides, 2):
            u = u.repeat_interleave(cell, dim).narrow(dim, 0, side)
        noise: Tensor = low + (high - low) * u.to(self.x.dtype)
        return noise

    def only_movable(self, x_adv: Tensor) -> Tensor:
        """``x_adv`` (m, ...) where the image may change; exactly the image outside a mask, and where a radius is 0."""
        x_adv = self.ball.keep_mask(x_adv, self.x)
        return x_adv if self.ball.scale is None else torch.where(self.ball.scale > 0, x_adv, self.x)

    def to_boundary(self, x_adv: Tensor, tolerance: float, blend: Callable[[Tensor, float], Tensor]) -> Tensor:
        """The boundary between the image and an adversarial one, by bisection; the adversarial side of it.

        Args:
            x_adv: Adversarial (1, ...).
            tolerance: How close the two sides come, as a share of the way.
            blend: From an adversarial image and a share of the way to a point: at 0 the image, at 1 ``x_adv``.
        """
        low, high = 0.0, 1.0
        while high - low > tolerance:
            middle = (low + high) / 2
            if bool(self.adversarial(blend(x_adv, middle))):
                high = middle
            else:
                low = middle
        return blend(x_adv, high)


def ask_all(state: AttackState, ball: Ball, queries: int, attack: Callable[[Oracle], None]) -> Iterator[Oracle]:
    """Attack the images that are classified correctly, one after the other, until each has had its queries."""
    for index in (~state.fooled).nonzero()[:, 0].tolist():
        oracle = Oracle(state, ball, index, queries)
        with contextlib.suppress(BudgetSpent):
            attack(oracle)
        state.record_queries(index, oracle.made, oracle.needed)
        yield oracle


def nearest_within(state: AttackState, ball: Ball, queries: int, attack: Callable[[Oracle], None]) -> Tensor:
    """For each image the nearest adversarial one found, if it lies within eps; else the image (n, ...)."""
    state.clean_logits()
    result = state.best
    for oracle in ask_all(state, ball, queries, attack):
        if oracle.distance <= oracle.eps:
            result[oracle.index] = oracle.best[0]
    return result
