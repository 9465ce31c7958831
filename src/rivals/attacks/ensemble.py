"""Several attacks as one, each on the images that those before it left standing: AutoAttack (Croce & Hein 2020)."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rivals.attacks.autopgd import apgd
from rivals.attacks.blind import noise
from rivals.attacks.carlini import carlini_wagner
from rivals.attacks.deepfool import deepfool
from rivals.attacks.fab import fab
from rivals.attacks.frozen import Frozen
from rivals.attacks.objectives import margin
from rivals.attacks.relay import relay
from rivals.attacks.shrinking import ddn, fmn
from rivals.attacks.siege import Model, besiege
from rivals.attacks.square import square
from rivals.attacks.steps import bim, fgsm, mifgsm, pgd
from rivals.attacks.streams import own_randomness
from rivals.base.balls import L1, Ball
from rivals.base.errors import UserError
from rivals.base.registry import Registry, unknown
from rivals.base.seeds import derive

Attack = Callable[..., Tensor]


@dataclass(frozen=True)
class Part:
    """One attack of an ensemble.

    Attributes:
        name: What it is called in reports.
        attack: Called as ``attack(frozen, x, y, ball, targets=, seed=, batch_size=)``; if it has these knobs, also with
            ``clean=``, the logits of ``x``, and ``found=``, for each image the one with the largest margin that any
            part before has made. Other knobs are bound beforehand, by ``functools.partial``.
    """

    name: str
    attack: Attack


@dataclass(frozen=True)
class Outcome:
    """What a part of an ensemble did.

    Attributes:
        part: Its name; ``clean`` for the look at the originals, which comes first.
        points: Which images it attacked (m,): those still standing when it began.
        x_adv: What it made of each (m, ...).
        fooled: Which of ``x_adv`` lie in ball and box and fool the model (m,).
        seconds: How long it took.
        forwards: Images passed forward, those of the judgement among them.
        backwards: Images passed backward.
    """

    part: str
    points: Tensor
    x_adv: Tensor
    fooled: Tensor
    seconds: float
    forwards: int
    backwards: int


def assault(
    frozen: Frozen,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    parts: Sequence[Part],
    *,
    targets: Tensor | None = None,
    clean: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 128,
) -> Iterator[Outcome]:
    """Look at the originals, then let each part in turn attack the originals that still stand, until none does.

    The clean logits are computed once and shared. A part is not believed: what it returns is judged by a pass of its
    own, and must lie in ball and box.

    Args:
        frozen: A model that :func:`~rivals.attacks.frozen.freeze` made ready.
        x: Images (n, ...) within the ball's bounds.
        y: Labels (n,).
        ball: Where to look.
        parts: The attacks, in order.
        targets: Classes (n,) to be mistaken for. None: any wrong class will do.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        seed: Of everything random.
        batch_size: The most images in one pass.

    Yields:
        The outcome ``clean``, then one for each part that still found images standing.

    Raises:
        UserError: bad input, in one line.
    """
    meter = _Meter(frozen)
    # Nothing is held open over a yield: the caller's own gradients and random numbers must not notice.
    with besiege(frozen, x, y, ball, targets=targets, seed=seed, batch_size=batch_size) as siege:
        clean, fooled = siege.look(clean), siege.fooled
        x, y, targets = siege.x, siege.y, siege.goals
    points = torch.arange(len(x), device=x.device)
    yield meter.outcome("clean", points, x, fooled)
    radii, points = ball.radii(x), points[~fooled]
    if not len(points):
        return
    found, lead = x.clone(), margin(clean, y, targets)
    for part in parts:
        meter = _Meter(frozen)
        original, label, own = x[points], y[points], ball.sized(radii[points])
        goal = None if targets is None else targets[points]
        extra = {"clean": clean[points], "found": found[points]}
        knobs: dict[str, Any] = {
            name: extra[name] for name in inspect.signature(part.attack).parameters if name in extra
        }
        x_adv = part.attack(frozen, original, label, own, targets=goal, seed=seed, batch_size=batch_size, **knobs)
        valid = own.contains(x_adv, original).nonzero()[:, 0]
        reached = torch.full_like(lead[points], -torch.inf)
        fooled = torch.zeros_like(points, dtype=torch.bool)
        with own_randomness(seed, x.device):
            for some in torch.split(valid, batch_size) if len(valid) else ():
                logits = frozen.logits(x_adv[some])
                said = logits.argmax(1)
                fooled[some] = said != label[some] if goal is None else said == goal[some]
                reached[some] = margin(logits, label[some], None if goal is None else goal[some])
        yield meter.outcome(part.name, points, x_adv, fooled)
        nearer = reached > lead[points]
        found[points[nearer]], lead[points[nearer]] = x_adv[nearer], reached[nearer]
        points = points[~fooled]
        if not len(points):
            return


class _Meter:
    """Reads the clock and the model's counts of passes, from its making to the outcome."""

    def __init__(self, frozen: Frozen) -> None:
        self.frozen = frozen
        self.since = time.perf_counter(), frozen.forwards, frozen.backwards

    def outcome(self, part: str, points: Tensor, x_adv: Tensor, fooled: Tensor) -> Outcome:
        now = time.perf_counter(), self.frozen.forwards, self.frozen.backwards
        seconds, forwards, backwards = (after - before for after, before in zip(now, self.since, strict=True))
        return Outcome(part, points, x_adv, fooled, seconds, int(forwards), int(backwards))


def plan(version: str, ball: Ball) -> tuple[Part, ...]:
    """The parts of a version of AutoAttack, in order.

    ``standard``, as published: APGD on the cross-entropy, APGD-T, FAB-T, Square; 100 steps and 9 targets each, 5000
    queries; in L1 (Croce & Hein 2021) 5 restarts of the first, and 5 targets in the second.

    ``swift``, about an eighth of those passes: PGD of 40 steps; APGD-T of 25 steps towards 4 targets; PGD again, three
    times, on images near falling; then a relay of Square and PGD from the best point found, dropped where the lead
    neither halves nor stirs.

    Args:
        version: ``standard`` or ``swift``.
        ball: Where the search is to be; its norm decides on budgets.

    Raises:
        UserError: there is no such version.
    """
    if version not in _VERSIONS:
        raise unknown("version of autoattack", version, _VERSIONS)
    if not isinstance(ball, Ball):
        raise UserError(f"the ball is a {type(ball).__name__}: give Linf(8 / 255), L2(0.5) or L1(12.0)")
    return _VERSIONS[version](ball)


def autoattack(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    version: str = "standard",
    parts: Sequence[str] | None = None,
    clean: Tensor | None = None,
    targets: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 128,
) -> Tensor:
    """AutoAttack (Croce & Hein 2020): attacks without knobs to tune, each on the images the others left standing.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a :class:`~rivals.attacks.frozen.Frozen`.
        x: Images (n, ...) within the ball's bounds.
        y: Labels (n,).
        ball: Where to look: ``Linf(8 / 255)``, ``L2(0.5)``, ``L1(12.0)``.
        version: Which plan to follow: see :func:`plan`.
        parts: The names of those parts that are wanted, in any order; all if not given.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        targets: Classes (n,) to be mistaken for. None: any wrong class will do.
        seed: Of everything random.
        batch_size: The most images in one pass.

    Returns:
        For each image one in ball and box that fools the model, or the image itself if none was found.

    Raises:
        UserError: bad input, in one line.
    """
    chosen = plan(version, ball)
    if parts is not None:
        names = [part.name for part in chosen]
        for name in parts:
            if name not in names:
                raise unknown(f"part of autoattack {version}", name, names)
        chosen = tuple(part for part in chosen if part.name in parts)
    knobs: dict[str, Any] = {"targets": targets, "seed": seed, "batch_size": batch_size}
    with besiege(model, x, y, ball, **knobs) as siege:
        for outcome in assault(siege.frozen, x, y, ball, chosen, clean=clean, **knobs):
            siege.best[outcome.points[outcome.fooled]] = outcome.x_adv[outcome.fooled]
        return siege.best


def _standard(ball: Ball) -> tuple[Part, ...]:
    sparse = isinstance(ball, L1)
    return (
        Part("apgd-ce", partial(apgd, restarts=5 if sparse else 1)),
        Part("apgd-t", partial(_pull, apgd, 5 if sparse else 9, loss="dlr")),
        Part("fab-t", partial(_pull, fab, 9, stop_within=True)),
        Part("square", square),
    )


def _swift(ball: Ball) -> tuple[Part, ...]:
    return (
        Part("pgd", partial(pgd, steps=40)),
        Part("apgd-t", partial(_pull, apgd, 4, loss="dlr", steps=25)),
        Part("pgd-again", partial(_near, partial(pgd, steps=40, restarts=3), 0.5)),
        Part("relay", partial(relay, turns=7)),
    )


def _near(
    attack: Attack,
    share: float,
    model: Frozen,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    clean: Tensor,
    found: Tensor,
    *,
    targets: Tensor | None,
    seed: int,
    batch_size: int,
) -> Tensor:
    """An attack on those images alone of which ``share`` of the label's lead or less is left; the others stay."""
    reached = torch.cat([model.logits(some) for some in torch.split(found, batch_size)])
    near = (margin(reached, y, targets) >= share * margin(clean, y, targets)).nonzero()[:, 0]
    radii, goal = ball.radii(x)[near], None if targets is None else targets[near]
    knobs: dict[str, Any] = {"targets": goal, "seed": derive(seed, "again"), "batch_size": batch_size}
    x_adv = x.clone()
    x_adv[near] = attack(model, x[near], y[near], ball.sized(radii), clean=clean[near], **knobs)
    return x_adv


def _pull(
    attack: Attack, rivals: int, model: Model, x: Tensor, y: Tensor, ball: Ball, clean: Tensor, **knobs: Any
) -> Tensor:
    """An attack towards the strongest wrong classes in turn; if one class is asked for, towards that one."""
    if knobs.get("targets") is None:
        knobs["rivals"] = rivals
    return attack(model, x, y, ball, clean=clean, **knobs)


_VERSIONS: dict[str, Callable[[Ball], tuple[Part, ...]]] = {"standard": _standard, "swift": _swift}

ATTACKS: Registry[Attack] = Registry(
    "attack",
    {
        "noise": noise,
        "fgsm": fgsm,
        "bim": bim,
        "pgd": pgd,
        "mifgsm": mifgsm,
        "apgd": apgd,
        "fab": fab,
        "deepfool": deepfool,
        "carlini_wagner": carlini_wagner,
        "ddn": ddn,
        "fmn": fmn,
        "square": square,
        "relay": relay,
        "autoattack": autoattack,
    },
)
