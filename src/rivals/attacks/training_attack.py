"""Attacks inside adversarial training: run on every batch, with no more work than their passes.

The attacks of an evaluation check the model, keep the best iterate and give each image its own random stream. Training
only needs images that are hard enough, so these do not: a step is one forward and one backward pass, and the last
iterate is used as it is. Random numbers come from torch's global state, which the game seeds for every turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from rivals.attacks.random_baselines import AugmentRanges
from rivals.base.errors import UserError
from rivals.base.norm_balls import Ball

Start = Callable[[Tensor, Ball], Tensor]
Solver = Callable[[nn.Module, Tensor, Tensor, Ball], Tensor]
"""From a net, images (B, ...), labels (B,) and a ball to adversarial examples (B, ...)."""


def no_start(x: Tensor, ball: Ball) -> Tensor:
    """The image itself."""
    return x


def uniform_start(x: Tensor, ball: Ball) -> Tensor:
    """A uniform point of the cube with half-side eps around the image, projected to ball and box."""
    eps = ball.radii(x).view(-1, *[1] * (x.ndim - 1))
    return ball.project(x + eps * (2 * torch.rand_like(x) - 1), x)


def gaussian_start(x: Tensor, ball: Ball) -> Tensor:
    """The image plus Gaussian noise of 0.001: TRADES starts there, since its objective is flat at the image."""
    return (x + 0.001 * torch.randn_like(x)).clamp(*ball.bounds)


def nfgsm_start(x: Tensor, ball: Ball) -> Tensor:
    """Uniform noise from the cube with half-side 2 eps, clipped to the box: N-FGSM (de Jorge et al. 2022), for Linf.

    In other norms it is projected to the ball of radius 2 eps: the cube's corners are far outside.
    """
    return uniform_start(x, ball.with_eps(2 * ball.radii(x)))


STARTS: dict[str, Start] = {
    "none": no_start,
    "uniform": uniform_start,
    "gaussian": gaussian_start,
    "nfgsm": nfgsm_start,
}


@dataclass(frozen=True)
class TrainingPGD:
    """PGD inside adversarial training. One step of it is FGSM-RS (1.25 eps from ``uniform``, Wong et al. 2020) or
    N-FGSM (eps from ``nfgsm``, de Jorge et al. 2022).

    Attributes:
        steps: Each is a forward and a backward pass.
        step_size: As a share of eps.
        start: A name in ``STARTS``. From ``nfgsm`` a single step is clipped to the box only, as published; several
            are projected to the ball, as from other starts.
        divergence: Maximize ``KL(p(x) || p(x'))`` (TRADES, Zhang et al. 2019, eq. 5), for one forward pass more,
            instead of the cross-entropy with the labels.

    Raises:
        UserError: an unknown start, or numbers that make no attack.
    """

    steps: int
    step_size: float
    start: str = "uniform"
    divergence: bool = False

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise UserError(f"unknown start '{self.start}': choose from {', '.join(STARTS)}")
        if self.steps < 1 or not self.step_size > 0:
            raise UserError(f"{self.steps} steps of {self.step_size:g} eps cannot work: take 1 or more, above 0")

    def __call__(self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
        """Adversarial examples (B, ...) in [0, 1] of the images ``x`` for ``net`` as it is now.

        The net should be in evaluation mode, where batch norm neither updates its statistics nor mixes images.
        """
        target = None
        if self.divergence:
            with torch.no_grad():
                target = log_softmax(net(x), 1)
        x_adv = STARTS[self.start](x, ball)
        lengths = self.step_size * ball.radii(x)
        for _ in range(self.steps):
            leaf = x_adv.detach().requires_grad_()
            with torch.enable_grad():
                logits = net(leaf)
                if target is None:
                    loss = cross_entropy(logits, y, reduction="sum")
                else:
                    loss = kl_div(log_softmax(logits, 1), target, reduction="sum", log_target=True)
            (gradient,) = torch.autograd.grad(loss, leaf)
            x_adv = ball.step(leaf.detach(), gradient, lengths)
            # N-FGSM's single step is not projected (their Alg. 1); more steps from its start would leave far behind
            # the ball that the classifier is to be robust in.
            free = self.start == "nfgsm" and self.steps == 1
            x_adv = x_adv.clamp_(*ball.bounds) if free else ball.project(x_adv, x)
        return x_adv


def no_attack(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """The images themselves."""
    return x


def uniform_noise(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """Uniform noise, the cheapest perturbation; needs no pass through the net."""
    return uniform_start(x, ball)


def random_augmentation(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """A random shift, rotation, crop and change of brightness (:class:`AugmentRanges`), bounded by no ball."""
    return AugmentRanges().apply(x, 2 * torch.rand(len(x), 5, device=x.device, dtype=x.dtype) - 1)


class FreeAttack(nn.Module):
    """ "Free" adversarial training (Shafahi et al. 2019, Alg. 1): the classifier's own backward pass, which gives the
    gradient of its weights, also moves the perturbation.

    The perturbation, one for each place in the batch, is 0 at first and is carried over from replay to replay and from
    batch to batch. It is a buffer, so a checkpoint of a game that contains this module stores it.

    A game averages buffers over its micro-batches. So each micro-batch leaves zeros in all places but its own, where it
    leaves its perturbation times their number: the mean holds the perturbation of each.

    Args:
        shape: Of a batch of images, (B, ...).
    """

    delta: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("delta", torch.zeros(*shape))

    def forward(self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball, micro_batch: int = 0) -> Tensor:
        """``x + delta`` (b, ...) in the box, a leaf: once its gradient is known, delta has moved.

        Args:
            net: The classifier, whose backward pass will give the gradient.
            x: The images of a micro-batch (b, ...).
            y: Their labels (b,).
            ball: The ball of the attack.
            micro_batch: Its number.
        """
        places = slice(micro_batch * len(x), (micro_batch + 1) * len(x))
        leaf = (x + self.delta[places]).clamp(*ball.bounds).detach().requires_grad_()
        leaf.register_hook(lambda gradient: self._move(gradient, ball, places))  # type: ignore[no-untyped-call]
        return leaf

    def _move(self, gradient: Tensor, ball: Ball, places: slice) -> None:
        """``delta <- P(delta + eps sign(g_adv))``, the last two lines of Alg. 1; P projects onto the ball alone."""
        eps = float(ball.eps)
        around_zero = type(ball)(eps, bounds=(-eps, eps))  # a box that holds the ball, so that it cuts nothing off
        moved = around_zero.step(self.delta[places], gradient, around_zero.radii(gradient))
        moved = around_zero.project(moved, torch.zeros_like(moved))
        self.delta.zero_()[places] = len(self.delta) // len(moved) * moved
