"""The attack inside adversarial training: solved afresh for every batch, as lean as its passes allow.

An evaluation's attack distrusts the model, keeps the best iterate and gives each image a random stream of its own. Here
the classifier only has to meet points that are hard enough, so none of that is paid for: a step is one forward and one
backward pass, and the last iterate is taken unseen. Random numbers come from torch's global state, which the game
seeds for every turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from rivals.attacks.blind import Reach
from rivals.base.balls import Ball
from rivals.base.errors import UserError

Start = Callable[[Tensor, Ball], Tensor]
Solver = Callable[[nn.Module, Tensor, Tensor, Ball], Tensor]
"""Images (B, ...) and labels (B,) to images that are harder for a net, in a ball."""


def at_image(x: Tensor, ball: Ball) -> Tensor:
    """The image itself."""
    return x


def anywhere(x: Tensor, ball: Ball) -> Tensor:
    """A point drawn evenly from the cube of half-side eps around the image, projected to ball and box."""
    eps = ball.radii(x).view(-1, *[1] * (x.ndim - 1))
    return ball.project(x + eps * (2 * torch.rand_like(x) - 1), x)


def nearby(x: Tensor, ball: Ball) -> Tensor:
    """The image with normal noise of a thousandth: where TRADES starts, since its objective is flat at the image."""
    return (x + 0.001 * torch.randn_like(x)).clamp(*ball.bounds)


def beyond(x: Tensor, ball: Ball) -> Tensor:
    """Noise from the cube of half-side 2 eps, not projected: where N-FGSM starts (de Jorge et al. 2022)."""
    eps = ball.radii(x).view(-1, *[1] * (x.ndim - 1))
    return x + 2 * eps * (2 * torch.rand_like(x) - 1)


STARTS: dict[str, Start] = {"image": at_image, "anywhere": anywhere, "nearby": nearby, "beyond": beyond}


@dataclass(frozen=True)
class Inner:
    """Steps up the gradient of a loss.

    Attributes:
        steps: How many, each a forward and a backward pass.
        step: Their length as a share of eps.
        start: Where from: a name in ``STARTS``. From ``beyond`` the steps are clipped to the box only, as published.
        divergence: Climb the divergence of the answers from those to the image itself, ``KL(p(x) || p(x'))`` (Zhang et
            al. 2019, eq. 5), which needs one pass more; if not, cross-entropy with the labels.

    Raises:
        UserError: an unknown start, or numbers that make no attack.
    """

    steps: int
    step: float
    start: str = "anywhere"
    divergence: bool = False

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise UserError(f"unknown start '{self.start}': choose from {', '.join(STARTS)}")
        if self.steps < 1 or not self.step > 0:
            raise UserError(f"{self.steps} steps of {self.step:g} eps make no attack: take 1 or more, above 0")

    def __call__(self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
        """Images (B, ...) in [0, 1] like ``x``, hard for ``net`` as it is now.

        The net should be in evaluation mode, where batch norm neither learns from these passes nor mixes images.
        """
        target = None
        if self.divergence:
            with torch.no_grad():
                target = log_softmax(net(x), 1)
        x_adv = STARTS[self.start](x, ball)
        lengths = self.step * ball.radii(x)
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
            x_adv = x_adv.clamp_(*ball.bounds) if self.start == "beyond" else ball.project(x_adv, x)
        return x_adv


def noisy(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """Noise, the cheapest of adversarial examples; the net is not asked."""
    return anywhere(x, ball)


def augmented(net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """A random shift, turn, crop and change of brightness (:class:`~rivals.attacks.blind.Reach`), in no ball."""
    return Reach().moved(x, 2 * torch.rand(len(x), 5, device=x.device, dtype=x.dtype) - 1)


class Free:
    """The attack that costs nothing: the step's gradient by the images is left over from the classifier's own backward
    pass ("free" adversarial training, Shafahi et al. 2019, alg. 1).

    It wants each batch to be played several times in a row; a batch not seen the time before is begun anew, from
    ``anywhere``. What it returns are leaves, whose gradient the classifier's backward pass fills in.
    """

    def __init__(self) -> None:
        self._x: Tensor | None = None
        self._leaf: Tensor | None = None

    def __call__(self, net: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
        """Images (B, ...) like ``x``, one step of eps further than the time before."""
        before = self._leaf
        if before is None or before.grad is None or self._x is None or not torch.equal(self._x, x):
            attacked = anywhere(x, ball)
        else:
            attacked = ball.project(ball.step(before.detach(), before.grad, ball.radii(x)), x)
        self._x, self._leaf = x, attacked.detach().requires_grad_()
        return self._leaf
