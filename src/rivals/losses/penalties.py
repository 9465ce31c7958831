"""Penalties on the discriminator's gradient with respect to its images, and when they are due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.schedules import Schedule


class Slopes(Protocol):
    """What a penalty may look at: images in [-1, 1], shape (B, C, H, W), and the discriminator itself."""

    @property
    def real_images(self) -> Tensor:
        """The real batch."""

    @property
    def fake_images(self) -> Tensor:
        """The generated batch."""

    @property
    def real_slopes(self) -> Tensor:
        """Gradient of each real image's logit with respect to that image, with a graph of its own."""

    @property
    def fake_slopes(self) -> Tensor:
        """Gradient of each generated image's logit with respect to that image, with a graph of its own."""

    @property
    def real(self) -> Tensor:
        """Logits of the real batch, (B,)."""

    @property
    def fake(self) -> Tensor:
        """Logits of the generated batch, (B,)."""

    def critic(self, images: Tensor) -> Tensor:
        """Logits, shape (B,), of any images of the batch's shape."""


@dataclass(frozen=True)
class Penalty:
    """A term added to a turn's loss on every ``every``-th step, there multiplied by ``every`` (lazy regularisation,
    Karras et al. 2020, app. B), so that its mean strength does not depend on how often it is taken.

    Attributes:
        name: Its key in the records.
        weight: Its strength, by images seen.
        score: The term before weighting, a scalar.
        every: Take it on each step that this divides.
        slopes: Whether ``score`` reads ``real_slopes`` or ``fake_slopes``.
    """

    name: str
    weight: Schedule
    score: Callable[[Slopes], Tensor]
    every: int = 1
    slopes: bool = True

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"the penalty {self.name} cannot be taken every {self.every} steps: take 1 or more")
        if min(self.weight.start, self.weight.end) < 0:
            raise UserError(f"the penalty {self.name} has a negative weight, {self.weight}: take 0 or more")

    def due(self, step: int) -> bool:
        """Whether the penalty is taken at ``step``."""
        return step % self.every == 0


def _squared_norm(slopes: Tensor) -> Tensor:
    return slopes.flatten(1).square().sum(1).mean()


def r1(gamma: float | Schedule, every: int = 1) -> Penalty:
    """``gamma / 2 * E ||grad_x D(x)||^2`` on real images (Mescheder et al. 2018, eq. 9). Summed over C, H, W."""
    return Penalty("r1", Schedule.parse(gamma), lambda s: 0.5 * _squared_norm(s.real_slopes), every)


def r2(gamma: float | Schedule, every: int = 1) -> Penalty:
    """``gamma / 2 * E ||grad_x D(x)||^2`` on generated images (Mescheder et al. 2018, eq. 10)."""
    return Penalty("r2", Schedule.parse(gamma), lambda s: 0.5 * _squared_norm(s.fake_slopes), every)


def wgan_gp(weight: float | Schedule = 10.0, every: int = 1) -> Penalty:
    """``weight * E (||grad D(x^)|| - 1)^2`` between real and generated images (Gulrajani et al. 2017, eq. 3)."""

    def score(s: Slopes) -> Tensor:
        real, fake = s.real_images.detach(), s.fake_images.detach()
        mix = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
        between = torch.lerp(real, fake, mix).requires_grad_()
        (slopes,) = torch.autograd.grad(s.critic(between).sum(), between, create_graph=True)
        norms: Tensor = slopes.flatten(1).norm(dim=1)
        return (norms - 1).square().mean()

    return Penalty("gp", Schedule.parse(weight), score, every, slopes=False)


def consistency(weight: float | Schedule, change: Callable[[Tensor, int], Tensor], every: int = 1) -> Penalty:
    """``weight * E (D(x) - D(T(x)))^2`` on real and on generated images: consistency regularisation (Zhang et al.
    2020, eq. 2), balanced (Zhao et al. 2021, alg. 1).

    Args:
        weight: Its strength; 10 in the papers.
        change: T, which must leave an image what it is: ``(images, seen) -> images``.
        every: Take it on each step that this divides.
    """

    def score(s: Slopes) -> Tensor:
        real, fake = (s.critic(change(images, 0)) for images in (s.real_images, s.fake_images.detach()))
        return (s.real - real).square().mean() + (s.fake - fake).square().mean()

    return Penalty("cr", Schedule.parse(weight), score, every, slopes=False)


class LeCam(nn.Module):
    """``E (D(x) - a_fake)^2 + E (D(G(z)) - a_real)^2``, with moving averages ``a`` of the discriminator's answers
    (Tseng et al. 2021, eq. 5): it holds a discriminator back that has few images to learn from.

    The averages are buffers, so that a game that is handed this module keeps them.
    """

    real: Tensor
    fake: Tensor
    DECAY = 0.99

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("real", torch.tensor(torch.nan))
        self.register_buffer("fake", torch.tensor(torch.nan))

    def forward(self, s: Slopes) -> Tensor:
        """The term, a scalar. The averages take in this batch first."""
        for anchor, answers in ((self.real, s.real), (self.fake, s.fake)):
            mean = answers.detach().mean()
            anchor.copy_(torch.where(anchor.isnan(), mean, torch.lerp(mean, anchor, self.DECAY)))
        return (s.real - self.fake).square().mean() + (s.fake - self.real).square().mean()


def lecam(weight: float | Schedule, averages: LeCam, every: int = 1) -> Penalty:
    """``weight`` times what :class:`LeCam` scores; 0.01 to 0.3 in the paper."""
    return Penalty("lecam", Schedule.parse(weight), averages, every, slopes=False)
