"""Signs that a model hides its gradients rather than resisting: what an attack finds then says nothing of the model.

The signs are those of Athalye et al. 2018 (sec. 3.1) and Carlini et al. 2019, read on a few images with small budgets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rivals.base.balls import L1, L2, Ball

Attack = Callable[[Tensor, Tensor, Ball], Tensor]  # images, labels, ball -> adversarial images
Judge = Callable[[Tensor, Tensor], Tensor]  # images, labels -> which fool the model

FACTORS = (1.0, 2.0, 4.0)  # radii in eps at which more should fall, the wider
SURE = 0.05  # the chance that a sign by luck may have
LEFT = 0.05  # of the images, may stand in the whole range of images
DEAD = 0.1  # of the images, may have a gradient of 0
BLIND_SHARE = 0.02  # of all images, an attack without gradients may fell after those with

STEPS = "many steps"
ONE = "one step"
NOISE = "noise"
BLIND = "no gradient"

ADVICE = {
    "no-gradient": "attack it through a differentiable stand-in (BPDA), or take the numbers of the black-box part as "
    "an upper bound of its robustness only",
    "zero-gradient": "look for rounding, saturated softmax or clipping on the way, and attack a stand-in without them",
    "one-step-beats-many": "more steps or restarts, or another loss (dlr, margin), should find at least as much",
    "noise-beats-gradient": "trust no attack by gradients on this model: use square, or a stand-in that has them",
    "black-box-beats-gradient": "trust no attack by gradients on this model: use square with more queries, or a "
    "stand-in that has gradients",
    "wider-fells-fewer": "try other losses and more steps: a larger ball holds every point of a smaller one",
    "unbounded-leaves-some": "try other losses and more steps: anywhere in the range of images, every image can be "
    "turned into one of another class",
    "randomised": "average over its draws with --eot 20, or the attack chases noise",
    "probabilities": "leave the last softmax out: where it is sure, its gradient rounds to 0 and attacks look weak",
}


@dataclass(frozen=True)
class Alarm:
    """A sign: its name, what was seen, and what to do."""

    alarm: str
    says: str

    def as_dict(self) -> dict[str, str]:
        """As plain values, with the remedy."""
        return {"alarm": self.alarm, "says": self.says, "remedy": ADVICE[self.alarm]}


@dataclass(frozen=True)
class Signs:
    """What small attacks did to the same few images.

    Attributes:
        felled: By attack, which images fell at eps.
        wider: By radius in rising order, which images fell to :data:`STEPS`; the last is the whole range of images.
        dead: Which images have a gradient of exactly 0.
    """

    felled: Mapping[str, Tensor]
    wider: Sequence[tuple[float, Tensor]]
    dead: Tensor

    def as_dict(self) -> dict[str, Any]:
        """The counts as plain values."""
        return {
            "n": len(self.dead),
            "felled": {name: int(fallen.sum()) for name, fallen in self.felled.items()},
            "wider": [{"eps": eps, "felled": int(fallen.sum())} for eps, fallen in self.wider],
            "zero_gradients": int(self.dead.sum()),
        }


def look(x: Tensor, y: Tensor, ball: Ball, attacks: Mapping[str, Attack], judge: Judge, gradient: Tensor) -> Signs:
    """Attack a few images in small ways.

    Args:
        x: Images (n, ...) that the model classifies rightly.
        y: Their labels (n,).
        ball: The ball of the evaluation; its eps is one number.
        attacks: What :data:`STEPS`, :data:`ONE`, :data:`NOISE` and, if it can be had, :data:`BLIND` stand for.
        judge: Which of some images fool the model.
        gradient: The gradient of what attacks climb at the images (n, ...).
    """
    eps, n = float(ball.eps), len(x)
    felled = {name: judge(attack(x, y, ball), y) for name, attack in attacks.items()}
    whole = whole_range(ball, x)
    radii = [*(factor * eps for factor in FACTORS if factor * eps < whole), whole]
    many = (len(radii), *[1] * (x.ndim - 1))
    wide = ball.sized(torch.tensor(radii, dtype=x.dtype, device=x.device).repeat_interleave(n))
    # One call for all radii: eps is one number an image.
    found = judge(attacks[STEPS](x.repeat(many), y.repeat(len(radii)), wide), y.repeat(len(radii)))
    return Signs(felled, list(zip(radii, torch.split(found, n), strict=True)), without_direction(gradient))


def without_direction(gradient: Tensor) -> Tensor:
    """Which images have a gradient of exactly 0 (n,)."""
    return (gradient == 0).flatten(1).all(1)


def read(signs: Signs) -> list[Alarm]:
    """The alarms that the signs give rise to, the plainest first."""
    n, found = len(signs.dead), []
    dead = int(signs.dead.sum())
    if n and dead > DEAD * n:
        found.append(Alarm("zero-gradient", f"{dead} of {n} images have a gradient of exactly zero"))
    strong = signs.felled[STEPS]
    for name, alarm, says in (
        (NOISE, "noise-beats-gradient", "random noise fells more than PGD"),
        (BLIND, "black-box-beats-gradient", "a black-box attack fells more than PGD"),
        (ONE, "one-step-beats-many", "one step fells more than many"),
    ):
        if name in signs.felled and more(signs.felled[name], strong):
            found.append(Alarm(alarm, f"{says} ({_count(signs.felled[name])} against {_count(strong)} of {n})"))
    for (narrow, before), (wide, after) in zip(signs.wider, signs.wider[1:], strict=False):
        if more(before, after):
            counts = f"{_count(before)} at eps {narrow:.4g}, {_count(after)} at {wide:.4g}"
            says = f"PGD fells fewer in a larger ball ({counts})"
            found.append(Alarm("wider-fells-fewer", says))
            break
    left = n - int(signs.wider[-1][1].sum())
    if left > max(LEFT * n, 1):
        says = f"PGD leaves {left} of {n} images standing even where it may change them at will"
        found.append(Alarm("unbounded-leaves-some", says))
    return found


def blind_parts_beat(felled_blind: int, felled_seeing: int, n: int) -> list[Alarm]:
    """The alarm, if there is one, that parts without gradients felled many images which those with had left."""
    if felled_blind <= max(BLIND_SHARE * n, 2):
        return []
    says = f"the black-box part fells {felled_blind} of {n} images more, which attacks by gradients had left standing"
    return [Alarm("black-box-beats-gradient", f"{says} (they felled {felled_seeing})")]


def more(one: Tensor, other: Tensor) -> bool:
    """Whether ``one`` (n,) is true more often than ``other`` (n,), and not by luck: a sign test on the pairs."""
    wins, losses = int((one & ~other).sum()), int((other & ~one).sum())
    total = wins + losses
    tail = sum(math.comb(total, k) for k in range(wins, total + 1)) / 2**total
    return wins > losses and tail <= SURE


def whole_range(ball: Ball, x: Tensor) -> float:
    """The radius from which on the ball of every image is the whole range of images."""
    low, high = ball.bounds
    size = math.prod(x.shape[1:])
    return (high - low) * (size if isinstance(ball, L1) else math.sqrt(size) if isinstance(ball, L2) else 1.0)


def _count(fallen: Tensor) -> int:
    return int(fallen.sum())
