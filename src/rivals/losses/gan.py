"""GAN losses: functions of the discriminator's logits.

Each takes an object with ``real`` and ``fake``: the logits, (B,), of real and generated images. Both may be computed on
first access, so a loss reads only what it needs. It returns its terms by name, each a scalar (mean over the batch, in
nats); the loss is their sum.

Binary cross-entropy is computed from logits, which does not overflow: ``-log sigmoid(s) = softplus(-s)`` and
``-log(1 - sigmoid(s)) = softplus(s)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from rivals.base.errors import UserError
from rivals.base.registry import Registry

LossTerms = dict[str, Tensor]


class DiscriminatorOutput(Protocol):
    """What a loss reads."""

    @property
    def real(self) -> Tensor:
        """Logits of the real images, (B,)."""

    @property
    def fake(self) -> Tensor:
        """Logits of the generated images, (B,)."""


@dataclass(frozen=True)
class GanLoss:
    """The losses of the two players, and their values at the equilibrium.

    Attributes:
        discriminator: Terms of the discriminator's loss.
        generator: Terms of the generator's loss.
        unit: ``probability`` if ``sigmoid(logit)`` is the probability of "real", else ``score``.
        equilibrium: The values where the generator's distribution is that of the data and the discriminator is
            optimal: ``loss/discriminator``, ``loss/generator`` and ``d``, the mean output in ``unit``. None where the
            equilibrium does not determine a value.
        least: The least that the discriminator's loss can be, with images that it tells apart without error: 0, or of
            cross-entropy with smoothed labels their entropy.
    """

    discriminator: Callable[[DiscriminatorOutput], LossTerms]
    generator: Callable[[DiscriminatorOutput], LossTerms]
    unit: str
    equilibrium: dict[str, float | None]
    least: float = 0.0

    def readings(self, output: DiscriminatorOutput) -> LossTerms:
        """Mean outputs for real and for generated images, ``d_real`` and ``d_fake``, in ``unit``."""
        activation = torch.sigmoid if self.unit == "probability" else torch.clone
        with torch.no_grad():
            return {"d_real": activation(output.real).mean(), "d_fake": activation(output.fake).mean()}


def _equilibrium(discriminator: float, generator: float | None, d: float | None) -> dict[str, float | None]:
    return {"loss/discriminator": discriminator, "loss/generator": generator, "d": d}


def _cross_entropy(label_smoothing: float, generator: Callable[[DiscriminatorOutput], LossTerms], sign: int) -> GanLoss:
    target = 1 - label_smoothing

    def discriminator(output: DiscriminatorOutput) -> LossTerms:
        real = softplus(-output.real) + label_smoothing * output.real  # = -(t log D + (1 - t) log(1 - D))
        return {"real": real.mean(), "fake": softplus(output.fake).mean()}

    # With t = 1 - label_smoothing and p_G = p_data, the optimal D is t / (t + (1 - t) + 1) = t / 2 everywhere: D* of
    # Goodfellow et al. 2014, prop. 1, with smoothed labels. There -(t log D + (2 - t) log(1 - D)) is the loss.
    optimal = target / 2
    loss_d = -target * math.log(optimal) - (2 - target) * math.log(1 - optimal)
    loss_g = -math.log(optimal) if sign > 0 else math.log(1 - optimal)
    least = -sum(share * math.log(share) for share in (target, label_smoothing) if share)
    return GanLoss(discriminator, generator, "probability", _equilibrium(loss_d, loss_g, optimal), least)


def minimax(label_smoothing: float = 0.0) -> GanLoss:
    """The minimax loss: G minimizes ``E log(1 - D(G(z)))`` (Goodfellow et al. 2014, eq. 1).

    Args:
        label_smoothing: One-sided: the label of real images is ``1 - label_smoothing`` (Salimans et al. 2016, 3.4).
    """
    return _cross_entropy(label_smoothing, lambda output: {"fake": -softplus(output.fake).mean()}, -1)


def nonsaturating(label_smoothing: float = 0.0) -> GanLoss:
    """The non-saturating loss: G minimizes ``-E log D(G(z))`` (Goodfellow et al. 2014, sec. 3).

    Args:
        label_smoothing: One-sided: the label of real images is ``1 - label_smoothing`` (Salimans et al. 2016, 3.4).
    """
    return _cross_entropy(label_smoothing, lambda output: {"fake": softplus(-output.fake).mean()}, 1)


def least_squares(label_smoothing: float = 0.0) -> GanLoss:
    """Half the squared distance to 1 (real) and 0 (fake): LSGAN (Mao et al. 2017, eq. 9).

    Args:
        label_smoothing: One-sided: the label of real images is ``1 - label_smoothing``.
    """
    target = 1 - label_smoothing

    def discriminator(output: DiscriminatorOutput) -> LossTerms:
        return {
            "real": 0.5 * (output.real - target).square().mean(),
            "fake": 0.5 * output.fake.square().mean(),
        }

    def generator(output: DiscriminatorOutput) -> LossTerms:
        return {"fake": 0.5 * (output.fake - target).square().mean()}

    return GanLoss(discriminator, generator, "score", _equilibrium(target**2 / 4, target**2 / 8, target / 2))


def _hinge_discriminator(output: DiscriminatorOutput) -> LossTerms:
    return {"real": relu(1 - output.real).mean(), "fake": relu(1 + output.fake).mean()}


def _wasserstein_discriminator(output: DiscriminatorOutput) -> LossTerms:
    return {"real": -output.real.mean(), "fake": output.fake.mean()}


def _critic_generator(output: DiscriminatorOutput) -> LossTerms:
    return {"fake": -output.fake.mean()}


def _relativistic_discriminator(output: DiscriminatorOutput) -> LossTerms:
    return {"pair": softplus(output.fake - output.real).mean()}


def _relativistic_generator(output: DiscriminatorOutput) -> LossTerms:
    return {"pair": softplus(output.real - output.fake).mean()}


hinge = GanLoss(_hinge_discriminator, _critic_generator, "score", _equilibrium(2.0, None, None))
"""Hinge loss: margins at +-1 (Lim & Ye 2017; Miyato et al. 2018, eq. 16-17). Every constant D in [-1, 1] is optimal."""

wasserstein = GanLoss(_wasserstein_discriminator, _critic_generator, "score", _equilibrium(0.0, None, None))
"""Difference of mean scores (Arjovsky et al. 2017, eq. 2). Needs a Lipschitz discriminator, as by WGAN-GP."""

relativistic = GanLoss(
    _relativistic_discriminator,
    _relativistic_generator,
    "score",
    _equilibrium(math.log(2), math.log(2), None),
)
"""Relativistic pairing: ``f(D(x_i) - D(G(z_i)))`` (Jolicoeur-Martineau 2019; R3GAN, Huang et al. 2024)."""

_SMOOTHABLE: Registry[Callable[[float], GanLoss]] = Registry(
    "loss", {"minimax": minimax, "nonsaturating": nonsaturating, "least-squares": least_squares}
)
LOSSES = Registry(
    "loss",
    {name: make(0.0) for name, make in _SMOOTHABLE.items()}
    | {"hinge": hinge, "wasserstein": wasserstein, "relativistic": relativistic},
)


def make_loss(name: str, label_smoothing: float = 0.0) -> GanLoss:
    """The loss called ``name``, with one-sided label smoothing.

    Raises:
        UserError: unknown name, smoothing outside [0, 1), or smoothing for a loss that has no labels.
    """
    plain = LOSSES[name]
    if label_smoothing == 0:
        return plain
    if not 0 <= label_smoothing < 1:
        raise UserError(
            f"a label smoothing of {label_smoothing:g} is out of range: take 0 (none) to below 1, such as 0.1"
        )
    if name not in _SMOOTHABLE:
        raise UserError(f"the loss '{name}' has no labels to smooth: set label_smoothing to 0, or take nonsaturating")
    return _SMOOTHABLE[name](label_smoothing)
