"""The losses of a generator and a discriminator, each a function of the discriminator's answers.

An *answers* object has ``real`` and ``fake``: the discriminator's logits, shape (B,), for real and generated images.
It may compute them only when asked, so a loss reads just what it needs. Every function returns its loss in named
parts, each a scalar (mean over the batch, natural logarithm); the loss is their sum.

Binary cross-entropy is taken on logits: ``-log sigmoid(s) = softplus(-s)`` and ``-log(1 - sigmoid(s)) = softplus(s)``,
which is the same number without the overflow.
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

Parts = dict[str, Tensor]


class Answers(Protocol):
    """What a loss may look at."""

    @property
    def real(self) -> Tensor:
        """Logits of the real images, shape (B,)."""

    @property
    def fake(self) -> Tensor:
        """Logits of the generated images, shape (B,)."""


@dataclass(frozen=True)
class GanLoss:
    """The two losses of a game, and where it comes to a draw.

    Attributes:
        discriminator: The discriminator's loss in parts.
        generator: The generator's loss in parts.
        unit: ``probability`` if ``sigmoid(logit)`` is the probability of "real", else ``score``.
        equilibrium: The values at the draw, where the generator's images follow the data's distribution and the
            discriminator is at its best: ``loss/discriminator``, ``loss/generator`` and ``d``, the mean answer in
            ``unit``. None where the draw leaves a value open.
    """

    discriminator: Callable[[Answers], Parts]
    generator: Callable[[Answers], Parts]
    unit: str
    equilibrium: dict[str, float | None]

    def readings(self, answers: Answers) -> Parts:
        """Mean answers to real and to generated images, ``d_real`` and ``d_fake``, in ``unit``."""
        read = torch.sigmoid if self.unit == "probability" else torch.clone
        with torch.no_grad():
            return {"d_real": read(answers.real).mean(), "d_fake": read(answers.fake).mean()}


def _draw(discriminator: float, generator: float | None, d: float | None) -> dict[str, float | None]:
    return {"loss/discriminator": discriminator, "loss/generator": generator, "d": d}


def _cross_entropy(smoothing: float, generator: Callable[[Answers], Parts], sign: int) -> GanLoss:
    target = 1 - smoothing

    def discriminator(answers: Answers) -> Parts:
        real = softplus(-answers.real) + smoothing * answers.real  # = -(t log D + (1 - t) log(1 - D))
        return {"real": real.mean(), "fake": softplus(answers.fake).mean()}

    # Where p_G = p_data, the best D answers t / (t + 1 + (1 - t)) = t / 2 everywhere.
    best = target / 2
    loss_d = -target * math.log(best) - (2 - target) * math.log(1 - best)
    loss_g = -math.log(best) if sign > 0 else math.log(1 - best)
    return GanLoss(discriminator, generator, "probability", _draw(loss_d, loss_g, best))


def minimax(smoothing: float = 0.0) -> GanLoss:
    """The value of the original game: G minimises ``E log(1 - D(G(z)))`` (Goodfellow et al. 2014, eq. 1).

    Args:
        smoothing: One-sided label smoothing: real images are labelled ``1 - smoothing`` (Salimans et al. 2016, 3.4).
    """
    return _cross_entropy(smoothing, lambda answers: {"fake": -softplus(answers.fake).mean()}, -1)


def nonsaturating(smoothing: float = 0.0) -> GanLoss:
    """The original game with the generator's stronger gradient, ``-E log D(G(z))`` (Goodfellow et al. 2014, sec. 3).

    Args:
        smoothing: One-sided label smoothing: real images are labelled ``1 - smoothing`` (Salimans et al. 2016, 3.4).
    """
    return _cross_entropy(smoothing, lambda answers: {"fake": softplus(-answers.fake).mean()}, 1)


def least_squares(smoothing: float = 0.0) -> GanLoss:
    """Squares of the distance to 1 (real) and 0 (fake), halved (LSGAN, Mao et al. 2017, eq. 9).

    Args:
        smoothing: Real images are labelled ``1 - smoothing``.
    """
    target = 1 - smoothing

    def discriminator(answers: Answers) -> Parts:
        return {
            "real": 0.5 * (answers.real - target).square().mean(),
            "fake": 0.5 * answers.fake.square().mean(),
        }

    def generator(answers: Answers) -> Parts:
        return {"fake": 0.5 * (answers.fake - target).square().mean()}

    return GanLoss(discriminator, generator, "score", _draw(target**2 / 4, target**2 / 8, target / 2))


def _hinge_discriminator(answers: Answers) -> Parts:
    return {"real": relu(1 - answers.real).mean(), "fake": relu(1 + answers.fake).mean()}


def _wasserstein_discriminator(answers: Answers) -> Parts:
    return {"real": -answers.real.mean(), "fake": answers.fake.mean()}


def _critic_generator(answers: Answers) -> Parts:
    return {"fake": -answers.fake.mean()}


def _relativistic_discriminator(answers: Answers) -> Parts:
    return {"pair": softplus(answers.fake - answers.real).mean()}


def _relativistic_generator(answers: Answers) -> Parts:
    return {"pair": softplus(answers.real - answers.fake).mean()}


hinge = GanLoss(_hinge_discriminator, _critic_generator, "score", _draw(2.0, 0.0, 0.0))
"""Hinge loss: margins at +-1 (Lim & Ye 2017; Miyato et al. 2018, eq. 16-17)."""

wasserstein = GanLoss(_wasserstein_discriminator, _critic_generator, "score", _draw(0.0, None, None))
"""Difference of mean scores (Arjovsky et al. 2017, eq. 2). Needs a Lipschitz discriminator, as by WGAN-GP."""

relativistic = GanLoss(
    _relativistic_discriminator,
    _relativistic_generator,
    "score",
    _draw(math.log(2), math.log(2), None),
)
"""Each real image against one fake: ``f(D(x_i) - D(G(z_i)))`` (Jolicoeur-Martineau 2019; R3GAN, Huang et al. 2024)."""

_SMOOTHABLE: Registry[Callable[[float], GanLoss]] = Registry(
    "loss", {"minimax": minimax, "nonsaturating": nonsaturating, "least-squares": least_squares}
)
LOSSES = Registry(
    "loss",
    {name: make(0.0) for name, make in _SMOOTHABLE.items()}
    | {"hinge": hinge, "wasserstein": wasserstein, "relativistic": relativistic},
)


def make_loss(name: str, smoothing: float = 0.0) -> GanLoss:
    """The loss called ``name``, with one-sided label smoothing.

    Raises:
        UserError: unknown name, smoothing outside [0, 1), or smoothing for a loss that has no labels.
    """
    plain = LOSSES[name]
    if smoothing == 0:
        return plain
    if not 0 <= smoothing < 1:
        raise UserError(f"a label smoothing of {smoothing:g} makes no sense: take 0 (none) to below 1, as 0.1")
    if name not in _SMOOTHABLE:
        raise UserError(f"the loss '{name}' has no labels to smooth: set smoothing to 0, or take nonsaturating")
    return _SMOOTHABLE[name](smoothing)
