"""Distance of a GAN from its equilibrium, from a discriminator's logits on held-out images.

For ANY function D with values in (0, 1), the binary cross-entropy ``L_D = -E log D(x) - E log(1 - D(G(z)))`` is at
least ``2 log 2 - 2 JSD(p_data, p_G)``, with equality for the optimal D (Goodfellow et al. 2014, theorem 1). So any D
gives a lower bound on the divergence, and none an upper bound: a weak D outputs 1/2 everywhere, as at the equilibrium.
The bound only holds on images that D was not trained on.

Logits have the shapes (n,) for real and (m,) for generated images; above 0 means "real". Intervals are 95% ones.
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
from rivals.metrics.proportion import Z95, Proportion

PARTS = 25  # equal parts of the images, for the standard error of values that are not means over images


@dataclass(frozen=True)
class ConfidenceInterval:
    """A value with its 95% confidence interval over other images of the same kind."""

    value: float
    low: float
    high: float

    @classmethod
    def from_error(cls, value: float, error: float) -> ConfidenceInterval:
        """``value`` ± 1.96 standard errors."""
        return cls(value, value - Z95 * error, value + Z95 * error)

    def scaled(self, factor: float, offset: float = 0.0) -> ConfidenceInterval:
        """``offset + factor * value``, for a ``factor`` above 0."""
        return ConfidenceInterval(offset + factor * self.value, offset + factor * self.low, offset + factor * self.high)

    def as_dict(self) -> dict[str, float | None]:
        """As plain values; without an interval, None for its ends, as JSON has no infinity."""
        bounded = math.isfinite(self.low) and math.isfinite(self.high)
        low, high = (self.low, self.high) if bounded else (None, None)
        return {"value": self.value, "low": low, "high": high}


def cross_entropy_loss(real: Tensor, fake: Tensor) -> ConfidenceInterval:
    """``L_D``, the binary cross-entropy of D, summed over both terms, in nats: 2 log 2 = 1.386 at the equilibrium."""
    losses = softplus(-_checked(real)), softplus(_checked(fake))
    error = math.sqrt(sum(float(loss.var()) / len(loss) for loss in losses))
    return ConfidenceInterval.from_error(sum(float(loss.mean()) for loss in losses), error)


def jsd_bound(real: Tensor, fake: Tensor) -> ConfidenceInterval:
    """``log 2 - L_D / 2`` nats: a lower bound on the Jensen-Shannon divergence of data and generator.

    Vacuous below 0. Its expectation never exceeds the divergence; ``low`` does for one set of images in 40 at most, if
    D is nearly optimal.

    Each image on the wrong side costs log 2 at least, so the bound is at most ``log 2`` times D's balanced accuracy.
    ``low`` is at most that of the accuracy's interval, which knows of errors that few images do not show.
    """
    loss = cross_entropy_loss(real, fake)
    most = math.log(2) * balanced_accuracy(real, fake).low
    # The bound falls as the loss rises, so the ends of the interval change places.
    value, low, high = (math.log(2) - each / 2 for each in (loss.value, loss.high, loss.low))
    return ConfidenceInterval(value, min(low, most), high)


def balanced_accuracy(real: Tensor, fake: Tensor, threshold: float = 0.0) -> ConfidenceInterval:
    """Mean of D's accuracies on real and on generated images; 1/2 at the equilibrium.

    A logit exactly at the threshold counts as half correct. The interval combines the Wilson intervals of the two
    accuracies (Newcombe 1998, method 10).
    """
    shares = []
    for logits, sign in ((_checked(real), 1), (_checked(fake), -1)):
        margin = sign * (logits - threshold)
        correct = float((margin > 0).sum()) + 0.5 * float((margin == 0).sum())
        # Wilson's formula takes integer counts; half an image makes no difference to it.
        shares.append((correct / len(margin), Proportion(round(correct), len(margin)).interval))
    value = sum(share for share, _ in shares) / 2
    down, up = (math.hypot(*(share - ends[side] for share, ends in shares)) / 2 for side in (0, 1))
    return ConfidenceInterval(value, max(0.0, value - down), min(1.0, value + up))


def tv_bound(accuracy: ConfidenceInterval) -> ConfidenceInterval:
    """``2 accuracy - 1``: a lower bound on the total variation of data and generator, from balanced accuracy."""
    return accuracy.scaled(2, -1)


def overfitting_rt(train: Tensor, threshold: float = 0.0) -> ConfidenceInterval:
    """``r_t = E sign D(train)``, the overfitting heuristic without held-out images (ADA, Karras et al. 2020, eq. 1).

    0 at the equilibrium. ADA keeps it at 0.6; near 1, D memorizes its training images.
    """
    logits = _checked(train) - threshold
    low, high = Proportion(int((logits > 0).sum()), len(logits)).interval
    return ConfidenceInterval(float(logits.sign().mean()), 2 * low - 1, 2 * high - 1)


def overfitting_rv(train: Tensor, held_out: Tensor, fake: Tensor) -> ConfidenceInterval:
    """``r_v = (E D(train) - E D(held_out)) / (E D(train) - E D(fake))`` (ADA, Karras et al. 2020, eq. 1).

    0: D rates held-out images as it does training images: no overfitting. 1: it rates them as generated ones. Where D
    separates nothing the ratio is 0 / 0, and the interval is wide.
    """
    means, variances = [], []
    for logits in map(_checked, (train, held_out, fake)):
        means.append(float(logits.mean()))
        variances.append(float(logits.var()) / len(logits))
    gap = means[0] - means[2]
    if gap == 0:
        return ConfidenceInterval(0.0, -math.inf, math.inf)
    ratio = (means[0] - means[1]) / gap
    # Delta method: d ratio / d train = (1 - ratio) / gap, d held_out = -1 / gap, d fake = ratio / gap.
    variance = ((1 - ratio) ** 2 * variances[0] + variances[1] + ratio**2 * variances[2]) / gap**2
    return ConfidenceInterval.from_error(ratio, math.sqrt(variance))


def calibrate(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Calibrated logits ``a s + b`` from the scores ``s`` of any D, as of one trained with a hinge loss.

    Platt scaling with two-fold cross-fitting: fitted on every other image and applied to the rest, and vice versa. No
    image takes part in its own logit, so the bounds hold as for any D.

    Args:
        real: Scores of real images (n,).
        fake: Scores of generated images (m,).

    Returns:
        Logits (n,) and (m,), float64, in the order of the scores.

    Raises:
        UserError: fewer than 4 images of either kind.
    """
    real, fake = _checked(real), _checked(fake)
    if min(len(real), len(fake)) < 4:
        raise UserError(
            f"{len(real)} real and {len(fake)} generated images are too few to calibrate on: give 4 of each"
        )
    out = torch.empty_like(real), torch.empty_like(fake)
    for half in (0, 1):
        a, b = platt_scaling(real[half::2], fake[half::2])
        for scores, logits in zip((real, fake), out, strict=True):
            logits[1 - half :: 2] = a * scores[1 - half :: 2] + b
    return out


def platt_scaling(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """``(a, b)`` of ``sigmoid(a score + b)``: logistic regression with Platt's targets (Platt 1999).

    Both kinds of images have the same total weight. The targets, ``(n + 1) / (n + 2)`` instead of 1, keep ``a`` finite
    for separable scores.
    """
    real, fake = _checked(real), _checked(fake)
    scores = torch.cat([real, fake])
    # Newton's method on standardized scores, with step halving; the result is transformed back.
    center, scale = float(scores.mean()), float(scores.std()) or 1.0
    x = torch.stack([(scores - center) / scale, torch.ones_like(scores)], 1)
    sides = ((real, (len(real) + 1) / (len(real) + 2)), (fake, 1 / (len(fake) + 2)))
    target = torch.cat([torch.full_like(side, aim) for side, aim in sides])
    weight = torch.cat([torch.full_like(side, 1 / len(side)) for side, _ in sides])

    def loss(at: Tensor) -> float:
        z = x @ at
        return float((weight * (softplus(z) - target * z)).sum())

    theta = torch.zeros(2, dtype=x.dtype, device=x.device)
    for _ in range(50):
        p = torch.sigmoid(x @ theta)
        gradient = x.T @ (weight * (p - target))
        # The small ridge keeps the Hessian invertible where all scores are the same.
        hessian = (x.T * (weight * p * (1 - p))) @ x + 1e-9 * torch.eye(2, dtype=x.dtype, device=x.device)
        step = torch.linalg.solve(hessian, gradient)
        before = loss(theta)
        while loss(theta - step) > before and float(step.norm()) > 1e-12:
            step = step / 2
        theta = theta - step
        if float(step.norm()) < 1e-9:
            break
    return float(theta[0]) / scale, float(theta[1]) - float(theta[0]) * center / scale


def game_value(loss: Callable[[Any], Mapping[str, Tensor]], real: Tensor, fake: Tensor, parts: int = PARTS) -> Tensor:
    """The value of the game ``M = -L_D``, which D maximizes and G minimizes, on equal parts of the images.

    For binary cross-entropy it is ``E log D(x) + E log(1 - D(G(z)))`` (Goodfellow et al. 2014, eq. 1).

    Args:
        loss: D's loss by terms, a function of an object with ``real`` and ``fake``, as in ``losses.gan``.
        real: Logits of real images (n,).
        fake: Logits of as many generated ones (n,); a relativistic loss pairs them by index.
        parts: How many parts.

    Returns:
        The value on each part, (parts,), float64.

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


def duality_gap(best_d: Tensor, best_g: Tensor) -> ConfidenceInterval:
    """``max_D' M(D', G) - min_G' M(D, G')`` (Grnarova et al. 2019, def. 2): 0 at an equilibrium, above 0 elsewhere.

    Args:
        best_d: Value of the game on equal parts of held-out images, (parts,), after training D alone.
        best_g: The same after training G alone, on the same real images.

    In expectation at most the true gap: more steps might have improved either player. The interval comes from the
    variance over the parts.
    """
    gaps = _checked(best_d) - _checked(best_g)
    return ConfidenceInterval.from_error(float(gaps.mean()), float(gaps.std()) / math.sqrt(len(gaps)))


def _checked(logits: Tensor) -> Tensor:
    """The logits as float64.

    Raises:
        UserError: fewer than 2, or not all are finite.
    """
    if logits.ndim != 1 or len(logits) < 2:
        raise UserError(f"logits of shape {tuple(logits.shape)} give no estimate: give (n,), for 2 images or more")
    if not bool(logits.isfinite().all()):
        raise UserError("a logit of the discriminator is not finite: the training has diverged, take an earlier state")
    return logits.detach().double()
