"""Ensembles: attacks in stages, each on the images that are still classified correctly.

What the stages share is in one place, :class:`Ensemble`. :func:`run_ensemble` runs the stages one after the other; an
evaluation, which records and verifies every stage, calls :meth:`Ensemble.run` itself, and gets the same images.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn

from rivals.attacks.attack_losses import margin
from rivals.attacks.attack_state import prepare
from rivals.attacks.frozen_model import FrozenModel
from rivals.attacks.model_rng import own_randomness
from rivals.base.norm_balls import Ball

Attack = Callable[..., Tensor]


@dataclass(frozen=True)
class Stage:
    """One attack of an ensemble.

    Attributes:
        name: What it is called in reports.
        attack: Called as ``attack(frozen, x, y, ball, targets=, seed=, batch_size=)``; if it has these parameters, also
            with ``clean=``, the logits of ``x``, and ``best=``, for each image the iterate with the largest margin of
            all stages before. Other options are bound beforehand, by ``functools.partial``.
        nets: Networks that it uses beside the one it attacks: with others it is another attack.
    """

    name: str
    attack: Attack
    nets: tuple[nn.Module, ...] = ()

    def takes(self, name: str) -> bool:
        """Whether the attack has a parameter of this name."""
        return name in inspect.signature(self.attack).parameters


class EnsembleOptions(TypedDict, total=False):
    """The keyword options of an ensemble.

    Attributes:
        targets: Target classes (n,). None (default): untargeted.
        seed: Of everything random; 0 by default.
        batch_size: Largest number of images in one forward pass, 128 by default.
    """

    targets: Tensor | None
    seed: int
    batch_size: int


@dataclass(frozen=True)
class Outcome:
    """The result of a stage.

    Attributes:
        stage: Its name; ``clean`` for the clean images, which come first.
        indices: Which images it attacked (m,): those still classified correctly when it began.
        x_adv: Its result for each (m, ...).
        fooled: Which of ``x_adv`` lie in ball and box and are adversarial (m,).
        seconds: Time taken.
        forwards: Images passed forward, the final evaluation included.
        backwards: Images passed backward.
        queries: How many forward passes it took until each was adversarial in ball and box (m,), -1 where none was;
            None if the attack does not count them.
    """

    stage: str
    indices: Tensor
    x_adv: Tensor
    fooled: Tensor
    seconds: float
    forwards: int
    backwards: int
    queries: Tensor | None = None


class Ensemble:
    """An ensemble under way: what its stages share, and carry from one to the next.

    Args:
        frozen: A model that :func:`~rivals.attacks.frozen_model.freeze` made ready.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: The threat model.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        options: See :class:`EnsembleOptions`.

    Attributes:
        clean: The outcome of the clean images: which are misclassified without an attack.

    Raises:
        UserError: bad input, in one line.
    """

    def __init__(
        self,
        frozen: FrozenModel,
        x: Tensor,
        y: Tensor,
        ball: Ball,
        *,
        clean: Tensor | None = None,
        **options: Unpack[EnsembleOptions],
    ) -> None:
        meter = _Meter(frozen)
        with prepare(frozen, x, y, ball, **options) as state:
            self._seed, self._batch_size = state.seed, state.batch_size
            self._logits, fooled = state.clean_logits(clean), state.fooled
            self._x, self._y, self._targets = state.x, state.y, state.targets
        self._frozen, self._ball, self._radii = frozen, ball, ball.radii(self._x)
        self._best, self._margin = self._x, torch.empty_like(self._radii)
        if len(self._x):
            self._best, self._margin = self._x.clone(), margin(self._logits, self._y, self._targets)
        self.clean = meter.outcome("clean", torch.arange(len(x), device=x.device), self._x, fooled)

    def run(self, stage: Stage, indices: Tensor) -> Outcome | None:
        """Run a stage on some images (m,), without those misclassified as they are; None if there are no others.

        What it returns is evaluated by a forward pass of its own, and must lie in ball and box. Where it fooled no
        more than it was, but came nearer, later stages start from there.
        """
        indices = indices[~self.clean.fooled[indices]]
        if not len(indices):
            return None
        frozen, meter = self._frozen, _Meter(self._frozen)
        x, y, ball = self._x[indices], self._y[indices], self._ball.with_eps(self._radii[indices])
        targets = None if self._targets is None else self._targets[indices]
        extra = {"clean": self._logits[indices], "best": self._best[indices]}
        wanted = {name: values for name, values in extra.items() if stage.takes(name)}
        seed, batch_size = self._seed, self._batch_size
        frozen.forget_queries()
        with own_randomness(seed, x.device):
            x_adv = stage.attack(frozen, x, y, ball, targets=targets, seed=seed, batch_size=batch_size, **wanted)
        queries = frozen.queries_needed
        if queries is not None and len(queries) != len(indices):
            queries = None  # of an attack on some of the images, inside one of a user's own
        valid = ball.contains(x_adv, x).nonzero()[:, 0]
        margins = torch.full_like(self._margin[indices], -torch.inf)
        fooled = torch.zeros_like(indices, dtype=torch.bool)
        with own_randomness(seed, x.device):
            for some in torch.split(valid, batch_size) if len(valid) else ():
                logits = frozen.logits(x_adv[some])
                predicted, target = logits.argmax(1), None if targets is None else targets[some]
                fooled[some] = predicted != y[some] if target is None else predicted == target
                margins[some] = margin(logits, y[some], target)
        # A success is not carried on: whoever attacks the image again did not believe it.
        nearer = (margins > self._margin[indices]) & ~fooled
        self._best[indices[nearer]], self._margin[indices[nearer]] = x_adv[nearer], margins[nearer]
        return meter.outcome(stage.name, indices, x_adv, fooled, queries)


def run_ensemble(
    frozen: FrozenModel,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    stages: Sequence[Stage],
    *,
    clean: Tensor | None = None,
    **options: Unpack[EnsembleOptions],
) -> Iterator[Outcome]:
    """Evaluate the clean images, then run each stage on the images that are still classified correctly.

    Args:
        frozen: A model that :func:`~rivals.attacks.frozen_model.freeze` made ready.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: The threat model.
        stages: The attacks, in order.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        options: See :class:`EnsembleOptions`.

    Yields:
        The outcome ``clean``, then one for each stage that still had images to attack.

    Raises:
        UserError: bad input, in one line.
    """
    # Nothing is held open over a yield: the caller's own gradients and random numbers must not notice.
    ensemble = Ensemble(frozen, x, y, ball, clean=clean, **options)
    yield ensemble.clean
    indices = ensemble.clean.indices
    for stage in stages:
        outcome = ensemble.run(stage, indices)
        if outcome is None:
            return
        yield outcome
        indices = outcome.indices[~outcome.fooled]


class _Meter:
    """Measures time and passes from its making to the outcome."""

    def __init__(self, frozen: FrozenModel) -> None:
        self.frozen = frozen
        self.since = time.perf_counter(), frozen.forwards, frozen.backwards

    def outcome(
        self, stage: str, indices: Tensor, x_adv: Tensor, fooled: Tensor, queries: Tensor | None = None
    ) -> Outcome:
        now = time.perf_counter(), self.frozen.forwards, self.frozen.backwards
        seconds, forwards, backwards = (after - before for after, before in zip(now, self.since, strict=True))
        return Outcome(stage, indices, x_adv, fooled, seconds, int(forwards), int(backwards), queries)
