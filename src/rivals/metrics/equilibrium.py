"""How far a game is from the draw, from what a discriminator answers to images that it has not learnt from.

All of it rests on one inequality. For ANY function D with values in (0, 1), binary cross-entropy on real and on
generated images, ``L_D = -E log D(x) - E log(1 - D(G(z)))``, is at least ``2 log 2 - 2 JSD(p_data, p_G)``, with
equality for the best D (Goodfellow et al. 2014, theorem 1). So a D proves a distance, and can never disprove one: a
weak D answers 1/2 to everything, as at the draw. It must be asked about images that it has not learnt from, or it
proves nothing.

Answers are logits, (n,) for real and (m,) for generated images: above 0 for "real". Intervals are of 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from rivals.base.errors import UserError
from rivals.metrics.robustness import Z95, Share

PARTS = 25  # a value that is no mean over single images gets its standard error from so many parts


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, which says where it would lie if other images of the same kind were taken."""

    value: float
    low: float
    high: float

    @classmethod
    def around(cls, value: float, error: float) -> Estimate:
        """A value with 1.96 standard errors to each side."""
        return cls(value, value - Z95 * error, value + Z95 * error)

    def scaled(self, by: float, shift: float = 0.0) -> Estimate:
        """``shift + by * value``, for ``by`` above 0."""
        return Estimate(shift + by * self.value, shift + by * self.low, shift + by * self.high)

    def as_dict(self) -> dict[str, float]:
        """Plain values."""
        return {"value": self.value, "low": self.low, "high": self.high}


def cross_entropy_loss(real: Tensor, fake: Tensor) -> Estimate:
    """``L_D``: the binary cross-entropy of D, both halves together, in nats. At the draw it is 2 log 2 = 1.386."""
    losses = softplus(-_checked(real)), softplus(_checked(fake))
    error = math.sqrt(sum(float(loss.var()) / len(loss) for loss in losses))
    return Estimate.around(sum(float(loss.mean()) for loss in losses), error)


def jsd_bound(real: Tensor, fake: Tensor) -> Estimate:
    """``log 2 - L_D / 2`` nats: the Jensen-Shannon divergence of data and generator is at least this.

    Below 0 it says nothing, since no divergence is. Its expectation is never above the truth; ``low`` is above it for
    one set of images in forty at most, and only where D is nearly the best there is.
    """
    loss = cross_entropy_loss(real, fake)
    return Estimate(*(math.log(2) - each / 2 for each in (loss.value, loss.high, loss.low)))


def accuracy(real: Tensor, fake: Tensor, threshold: float = 0.0) -> Estimate:
    """Balanced accuracy: the mean of the shares of real and of generated images that D tells rightly; 1/2 at the draw.

    An answer exactly at the threshold counts as half right. The interval puts together Wilson's for the two shares
    (Newcombe 1998, method 10).
    """
    shares = []
    for answers, sign in ((_checked(real), 1), (_checked(fake), -1)):
        told = sign * (answers - threshold)
        right = float((told > 0).sum()) + 0.5 * float((told == 0).sum())
        # Wilson's formula wants whole counts; half an image is nothing to it.
        shares.append((right / len(told), Share(round(right), len(told)).interval))
    value = sum(share for share, _ in shares) / 2
    down, up = (math.hypot(*(share - ends[side] for share, ends in shares)) / 2 for side in (0, 1))
    return Estimate(value, max(0.0, value - down), min(1.0, value + up))


def tv_bound(told: Estimate) -> Estimate:
    """``TV(p_data, p_G) >= 2 accuracy - 1``, from balanced accuracy: how much of the two D tells apart, 0 to 1."""
    return told.scaled(2, -1)


def sureness(train: Tensor, threshold: float = 0.0) -> Estimate:
    """``r_t = E sign D(train)`` (Karras et al. 2020, eq. 1): how far D takes its own training images for real.

    0 at the draw; ADA holds it at 0.6; near 1, D has begun to learn its images by heart.
    """
    answers = _checked(train) - threshold
    right = Share(int((answers > 0).sum()), len(answers))
    low, high = right.interval
    return Estimate(float(answers.sign().mean()), 2 * low - 1, 2 * high - 1)


def overfitting(train: Tensor, held: Tensor, fake: Tensor) -> Estimate:
    """``r_v = (E D(train) - E D(held)) / (E D(train) - E D(fake))`` (Karras et al. 2020, eq. 1).

    0: D takes images that it has never seen for as real as those it learns from. 1: it takes them for generated.
    Where D tells nothing apart the quotient means nothing, and the interval is wide (delta method).
    """
    means, errors = [], []
    for answers in map(_checked, (train, held, fake)):
        means.append(float(answers.mean()))
        errors.append(float(answers.var()) / len(answers))
    below = means[0] - means[2]
    if below == 0:
        return Estimate(0.0, -math.inf, math.inf)
    ratio = (means[0] - means[1]) / below
    # d ratio / d train = (1 - ratio) / below, d held = -1 / below, d fake = ratio / below.
    variance = ((1 - ratio) ** 2 * errors[0] + errors[1] + ratio**2 * errors[2]) / below**2
    return Estimate.around(ratio, math.sqrt(variance))


def readout(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The same answers as calibrated logits, ``a s + b``, for a D whose scores ``s`` are no log-odds.

    Logistic regression with Platt's targets (1999), fitted on every other image and applied to those between, and the
    other way round, so no image has a part in its own logit, and the bounds hold for them as for any D.

    Returns:
        Logits (n,) and (m,), float64, in the order of the scores.
    """
    real, fake = _checked(real), _checked(fake)
    if min(len(real), len(fake)) < 4:
        raise UserError(f"{len(real)} real and {len(fake)} generated images are too few to fit on: give 4 of each")
    out = torch.empty_like(real), torch.empty_like(fake)
    for half in (0, 1):
        slope, shift = fit_logistic(real[half::2], fake[half::2])
        for scores, logits in zip((real, fake), out, strict=True):
            logits[1 - half :: 2] = slope * scores[1 - half :: 2] + shift
    return out


def fit_logistic(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """Slope and shift of ``sigmoid(slope * score + shift)`` that tell the scores apart best, both sides weighing alike.

    Newton's method; Platt's targets, ``(n + 1) / (n + 2)`` in place of 1, keep separable scores from an endless slope.
    """
    real, fake = _checked(real), _checked(fake)
    both = torch.cat([real, fake])
    centre, scale = float(both.mean()), float(both.std()) or 1.0
    x = torch.stack([(both - centre) / scale, torch.ones_like(both)], 1)
    sides = ((real, (len(real) + 1) / (len(real) + 2)), (fake, 1 / (len(fake) + 2)))
    target = torch.cat([torch.full_like(side, aim) for side, aim in sides])
    weight = torch.cat([torch.full_like(side, 1 / len(side)) for side, _ in sides])

    def loss(at: Tensor) -> float:
        z = x @ at
        return float((weight * (softplus(z) - target * z)).sum())

    line = torch.zeros(2, dtype=x.dtype, device=x.device)
    for _ in range(50):
        answer = torch.sigmoid(x @ line)
        slope = x.T @ (weight * (answer - target))
        curve = (x.T * (weight * answer * (1 - answer))) @ x + 1e-9 * torch.eye(2, dtype=x.dtype, device=x.device)
        step = torch.linalg.solve(curve, slope)
        before = loss(line)
        while loss(line - step) > before and float(step.norm()) > 1e-12:
            step = step / 2
        line = line - step
        if float(step.norm()) < 1e-9:
            break
    return float(line[0]) / scale, float(line[1]) - float(line[0]) * centre / scale


def game_value(loss: Callable[[Any], Mapping[str, Tensor]], real: Tensor, fake: Tensor, parts: int = PARTS) -> Tensor:
    """The game's value ``M = -L_D``, which D raises and G lowers, on each of ``parts`` equal parts: (parts,), float64.

    For binary cross-entropy it is the value of the original game, ``E log D(x) + E log(1 - D(G(z)))``.

    Args:
        loss: D's loss in parts, a function of ``answers.real`` and ``answers.fake``, as in ``losses.gan``.
        real: Answers to real images (n,).
        fake: Answers to as many generated ones (n,), paired by place where the loss is one of pairs.
        parts: How many parts.

    Raises:
        UserError: fewer images than parts.
    """
    real, fake = _checked(real), _checked(fake)
    count = min(len(real), len(fake)) // parts
    if count < 1:
        raise UserError(f"{min(len(real), len(fake))} images cannot be cut into {parts} parts: give {parts} or more")
    sides = [torch.split(side[: count * parts], count) for side in (real, fake)]
    pieces = (SimpleNamespace(real=x, fake=g) for x, g in zip(*sides, strict=True))
    return torch.stack([-torch.stack(list(loss(piece).values())).sum() for piece in pieces])


def duality_gap(best_d: Tensor, best_g: Tensor) -> Estimate:
    """``max_D' M(D', G) - min_G' M(D, G')`` (Grnarova et al. 2019, def. 2): 0 at an equilibrium, above 0 elsewhere.

    Args:
        best_d: The game's value on equal parts of held-out images, (parts,), after D alone has learnt on.
        best_g: The same after G alone has learnt on, on the same real images.

    What is found is at most the true gap, since either player might have found a better answer in more steps. The
    interval is from the differences between the parts.
    """
    gaps = _checked(best_d) - _checked(best_g)
    return Estimate.around(float(gaps.mean()), float(gaps.std()) / math.sqrt(len(gaps)))


def _checked(answers: Tensor) -> Tensor:
    """Answers as float64, if they are some.

    Raises:
        UserError: fewer than 2, or not all are finite.
    """
    if answers.ndim != 1 or len(answers) < 2:
        raise UserError(f"answers of shape {tuple(answers.shape)} tell nothing: give (n,), for 2 images or more")
    if not bool(answers.isfinite().all()):
        raise UserError("an answer of the discriminator is no finite number: this game has burst, so nothing is to say")
    return answers.detach().double()
