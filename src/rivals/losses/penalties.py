"""Penalties on the discriminator: R1, R2 (exact and by finite differences), WGAN-GP, consistency, LeCam.

Where a discriminator returns a map of logits, as PatchGAN's, penalties of gradients are of its mean, as the losses are.
The gradient of the sum of n logits is up to n times as long, and a penalty of its square up to n^2 times as strong:
enough to stop a discriminator of patches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.schedules import Clock, Schedule
from rivals.base.tensors import image_mean


class PenaltyInput(Protocol):
    """What a penalty reads: images in [-1, 1], (B, C, H, W), their logits, and the discriminator itself."""

    @property
    def real_images(self) -> Tensor:
        """The real batch."""

    @property
    def fake_images(self) -> Tensor:
        """The generated batch."""

    @property
    def real_input_grad(self) -> Tensor:
        """Gradient of each real image's logit by that image, or of the mean of its map; differentiable."""

    @property
    def fake_input_grad(self) -> Tensor:
        """Gradient of each generated image's logit by that image, or of the mean of its map; differentiable."""

    @property
    def real(self) -> Tensor:
        """Logits of the real batch, (B,)."""

    @property
    def fake(self) -> Tensor:
        """Logits of the generated batch, (B,)."""

    @property
    def clock(self) -> Clock:
        """Where the run is."""

    def critic(self, images: Tensor) -> Tensor:
        """Logits, (B,), of any images of the batch's shape."""

    def critic_and_moved(self, images: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of images, each (B,), and of the same images moved by ``offset`` after their augmentation."""


@dataclass(frozen=True)
class Penalty:
    """A term added to a turn's loss.

    Lazy regularization (StyleGAN2, Karras et al. 2020, sec. 3.1): it is computed on every ``every``-th step only, and
    multiplied by ``every`` there, so that its mean strength does not depend on ``every``.

    Attributes:
        name: Its key in the records.
        weight: Its weight, by images seen.
        score: The unweighted term, a scalar.
        every: Steps from one computation to the next.
        needs_input_grad: Whether ``score`` reads ``real_input_grad`` or ``fake_input_grad``.
        differentiates_twice: Whether ``score`` is made of gradients, which compiled networks cannot be.
        mixed_precision: Whether its own passes may be in the precision of the loss. Not where two passes are compared
            whose inputs are nearly the same: bf16 would leave nothing but rounding of the difference.
    """

    name: str
    weight: Schedule
    score: Callable[[PenaltyInput], Tensor]
    every: int = 1
    needs_input_grad: bool = True
    differentiates_twice: bool = True
    mixed_precision: bool = True

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"the penalty {self.name} cannot be taken every {self.every} steps: take 1 or more")
        if min(self.weight.start, self.weight.end) < 0:
            raise UserError(f"the penalty {self.name} has a negative weight, {self.weight}: take 0 or more")

    def due(self, step: int) -> bool:
        """Whether the penalty is computed at ``step``."""
        return step % self.every == 0


def _squared_norm(input_grad: Tensor) -> Tensor:
    """``E ||grad_x D(x)||^2``, summed over C, H, W and averaged over the batch."""
    return input_grad.flatten(1).square().sum(1).mean()


def r1(gamma: float | Schedule, every: int = 1) -> Penalty:
    """``gamma / 2 * E ||grad_x D(x)||^2`` on real images (Mescheder et al. 2018, eq. 9)."""
    return Penalty("r1", Schedule.parse(gamma), lambda s: 0.5 * _squared_norm(s.real_input_grad), every)


def r2(gamma: float | Schedule, every: int = 1) -> Penalty:
    """``gamma / 2 * E ||grad_x D(x)||^2`` on generated images (Mescheder et al. 2018, eq. 10)."""
    return Penalty("r2", Schedule.parse(gamma), lambda s: 0.5 * _squared_norm(s.fake_input_grad), every)


def _squared_slope(s: PenaltyInput, images: Tensor, sigma: float) -> Tensor:
    """``E (D(x + sigma n) - D(x))^2 / sigma^2`` with n ~ N(0, I), whose limit at sigma = 0 is ``E ||grad_x D(x)||^2``.

    To first order the difference is ``sigma <n, grad D>``, and the mean of the square of ``<n, g>`` is ``||g||^2``.
    """
    logits, moved = s.critic_and_moved(images, sigma * torch.randn_like(images))
    slopes = image_mean(moved - logits) / sigma
    return slopes.square().mean()


FD_SIGMA = 0.01
"""Of images in [-1, 1]: far above the rounding of 32-bit logits, and below the curvature of discriminators."""


def _by_difference(
    name: str, gamma: float | Schedule, images: Callable[[PenaltyInput], Tensor], every: int, sigma: float
) -> Penalty:
    def score(s: PenaltyInput) -> Tensor:
        return 0.5 * _squared_slope(s, images(s), sigma)

    return Penalty(
        *(name, Schedule.parse(gamma), score, every),
        needs_input_grad=False,
        differentiates_twice=False,
        mixed_precision=False,
    )


def fd_r1(gamma: float | Schedule, every: int = 1, sigma: float = FD_SIGMA) -> Penalty:
    """R1 by a finite difference in a random direction, without a second derivative: such turns compile.

    The same strength as :func:`r1` on average, with the noise of one direction an image (the approximated R1 of Lin et
    al. 2025, APT, divided by sigma^2).
    """
    return _by_difference("fd_r1", gamma, lambda s: s.real_images, every, sigma)


def fd_r2(gamma: float | Schedule, every: int = 1, sigma: float = FD_SIGMA) -> Penalty:
    """R2 by a finite difference; see :func:`fd_r1`."""
    return _by_difference("fd_r2", gamma, lambda s: s.fake_images, every, sigma)


def dropout_of(net: nn.Module) -> float:
    """The largest share of its values that a network drops at random: two of its passes differ without a cause."""
    return max((layer.p for layer in net.modules() if isinstance(layer, nn.modules.dropout._DropoutNd)), default=0.0)


def wgan_gp(weight: float | Schedule = 10.0, every: int = 1) -> Penalty:
    """``weight * E (||grad D(x^)|| - 1)^2`` between real and generated images (Gulrajani et al. 2017, eq. 3)."""

    def score(s: PenaltyInput) -> Tensor:
        real, fake = s.real_images.detach(), s.fake_images.detach()
        # x^ = (1 - u) x + u G(z), u uniform in [0, 1], one for each pair.
        u = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
        interpolated = torch.lerp(real, fake, u).requires_grad_()
        (input_grad,) = torch.autograd.grad(image_mean(s.critic(interpolated)).sum(), interpolated, create_graph=True)
        norms: Tensor = input_grad.flatten(1).norm(dim=1)
        return (norms - 1).square().mean()

    return Penalty("gp", Schedule.parse(weight), score, every, needs_input_grad=False)


def consistency(weight: float | Schedule, transform: Callable[[Tensor, Clock], Tensor], every: int = 1) -> Penalty:
    """``weight * E (D(x) - D(T(x)))^2`` on real images (consistency regularization, Zhang et al. 2020, eq. 2) and on
    generated ones (balanced, Zhao et al. 2021, alg. 1).

    Args:
        weight: Its weight; 10 in the papers.
        transform: T, an augmentation that keeps what an image shows: ``(images, clock) -> images``.
        every: Steps from one computation to the next.
    """

    def score(s: PenaltyInput) -> Tensor:
        real, fake = (s.critic(transform(images, s.clock)) for images in (s.real_images, s.fake_images.detach()))
        return (s.real - real).square().mean() + (s.fake - fake).square().mean()

    return Penalty("cr", Schedule.parse(weight), score, every, needs_input_grad=False, differentiates_twice=False)


class LeCam(nn.Module):
    """``E (D(x) - a_fake)^2 + E (D(G(z)) - a_real)^2`` (Tseng et al. 2021, eq. 5), for small data sets.

    ``a_real`` and ``a_fake`` are exponential moving averages of the discriminator's mean logits. They are buffers, so a
    checkpoint of a game that contains this module stores them.
    """

    real: Tensor
    fake: Tensor
    DECAY = 0.99

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("real", torch.tensor(torch.nan))
        self.register_buffer("fake", torch.tensor(torch.nan))

    def forward(self, s: PenaltyInput) -> Tensor:
        """The term, a scalar, after the averages are updated with this batch."""
        for average, logits in ((self.real, s.real), (self.fake, s.fake)):
            mean = logits.detach().float().mean()
            # NaN means no batch yet: the average starts at the first mean, not at 0.
            average.copy_(torch.where(average.isnan(), mean, torch.lerp(mean, average, self.DECAY)))
        # Crossed: real logits are pulled toward the average of the generated ones, and vice versa.
        return (s.real - self.fake).square().mean() + (s.fake - self.real).square().mean()


def lecam(weight: float | Schedule, averages: LeCam, every: int = 1) -> Penalty:
    """``weight`` times :class:`LeCam`; the paper takes 0.01 to 0.3."""
    return Penalty("lecam", Schedule.parse(weight), averages, every, needs_input_grad=False, differentiates_twice=False)
