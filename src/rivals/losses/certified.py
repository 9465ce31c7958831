"""Losses of certified training: functions of logits, and of lower bounds of the differences between logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu

from rivals.base.errors import UserError

LossTerms = dict[str, Tensor]

TOLERANCE = 0.5  # tau of Shi et al. 2021


class CertifiedOutput(Protocol):
    """What a loss reads."""

    @property
    def logits(self) -> Tensor:
        """Logits of the clean images, (B, classes)."""

    @property
    def logits_adv(self) -> Tensor:
        """Logits of the adversarial examples, (B, classes)."""

    @property
    def margins(self) -> Tensor:
        """Lower bounds of ``z_y - z_k`` over the set of inputs, (B, classes); 0 for k = y."""

    @property
    def y(self) -> Tensor:
        """The labels, (B,)."""

    @property
    def ramp(self) -> float:
        """How far eps and kappa have come, from 0 to 1."""

    @property
    def widths(self) -> Sequence[Tensor]:
        """Mean width of the bounds of the input, then of those before each ReLU."""

    @property
    def before_relus(self) -> Sequence[tuple[Tensor, Tensor]]:
        """Lower and upper bounds before each ReLU."""


Loss = Callable[[CertifiedOutput], LossTerms]


def worst_case(output: CertifiedOutput) -> Tensor:
    """Cross-entropy of the worst logits that the bounds allow: ``-margins`` (Gowal et al. 2018, eq. 11)."""
    return cross_entropy(-output.margins, output.y)


def ibp(kappa: float = 0.0) -> Loss:
    """``kappa CE(clean) + (1 - kappa) CE(worst case)`` (Gowal et al. 2018, eq. 12), where kappa falls from 1.

    Args:
        kappa: Its last value.

    Raises:
        UserError: it is not in [0, 1).
    """
    _check_weight(kappa)

    def loss(output: CertifiedOutput) -> LossTerms:
        now = 1 - (1 - kappa) * output.ramp
        return {
            "clean": now * cross_entropy(output.logits, output.y),
            "certified": (1 - now) * worst_case(output),
        }

    return loss


def mtl_ibp(kappa: float = 0.5) -> Loss:
    """``kappa CE(adversarial) + (1 - kappa) CE(worst case)`` (MTL-IBP, De Palma et al. 2024, eq. 7; alpha = 1 - kappa).

    Args:
        kappa: The last weight of the adversarial loss, which falls from 1.

    Raises:
        UserError: it is not in [0, 1).
    """
    _check_weight(kappa)

    def loss(output: CertifiedOutput) -> LossTerms:
        now = 1 - (1 - kappa) * output.ramp
        return {
            "adversarial": now * cross_entropy(output.logits_adv, output.y),
            "certified": (1 - now) * worst_case(output),
        }

    return loss


def regularized(loss: Loss, weight: float = 0.5) -> Loss:
    """A loss with the regularizers of Shi et al. (2021, sec. 3.3), which fade as eps and kappa reach their last values.

    Args:
        loss: The loss.
        weight: lambda_0 of the paper; 0 for none.

    Raises:
        UserError: the weight is negative.
    """
    if weight < 0:
        raise UserError(f"a weight of {weight:g} for the regularizers is out of range: take 0 (none) or more")

    def with_regularizers(output: CertifiedOutput) -> LossTerms:
        terms = loss(output)
        now = weight * (1 - output.ramp)
        if now > 0 and output.before_relus:
            terms["tightness"] = now * tightness(output.widths)
            terms["balance"] = now * balance(output.before_relus)
        return terms

    return with_regularizers


def tightness(widths: Sequence[Tensor]) -> Tensor:
    """``relu(tau - E[width_0] / E[width_i]) / tau``, over layers (Shi et al. 2021, eq. 10): bounds that explode.

    Args:
        widths: Mean width of the bounds of the input, and of each layer.
    """
    first, *others = widths
    terms = [relu(TOLERANCE - first / width.clamp_min(1e-12)) / TOLERANCE for width in others]
    # A ball of radius 0 has bounds without a width.
    return torch.stack(terms).mean() * (first > 0)


def balance(bounds: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """How much active and inactive units differ in mean and variance, over layers (Shi et al. 2021, eq. 11-13).

    With large intervals, IBP likes units that are never active; too many of them cannot learn.

    Args:
        bounds: Lower and upper bounds before each ReLU.
    """
    terms = []
    for lower, upper in bounds:
        lower, upper = lower.float(), upper.float()
        center = (lower + upper) / 2
        active, inactive = (lower > 0).float(), (upper < 0).float()
        deviation = (center - center.mean()).square()
        for on, off in (
            ((center * active).sum(), -(center * inactive).sum()),
            ((deviation * active).sum(), (deviation * inactive).sum()),
        ):
            ratio = torch.minimum(on / off.clamp_min(1e-12), off / on.clamp_min(1e-12))
            # Where there are none of one kind the ratio is 0 and has no gradient of use, as in the authors' code.
            terms.append(relu(TOLERANCE - ratio) / TOLERANCE * ((on > 0) & (off > 0)))
    return torch.stack(terms).sum() / len(bounds)


def readings(output: CertifiedOutput) -> LossTerms:
    """Share of the batch that the bounds of training certify."""
    others = output.margins.detach().scatter(1, output.y[:, None], torch.inf)
    return {"accuracy/train_certified": (others.amin(1) > 0).float().mean()}


def _check_weight(kappa: float) -> None:
    if not 0 <= kappa < 1:
        raise UserError(f"a kappa of {kappa:g} is out of range: take 0 (certified loss only) or more, below 1")
