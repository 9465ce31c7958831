"""The base class of purifiers, and a classifier behind one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.images_under_noise import under_noise

GRADIENTS = ("own", "bpda", "surrogate")


class Purifier(nn.Module):
    """Images (n, C, H, W) in [0, 1] to images of the same shape and range, without what an attack has added.

    A subclass has ``forward``, what is deployed, and may have :meth:`surrogate`, which attacks differentiate instead.

    Attributes:
        differentiable: Whether ``forward`` itself has a gradient to follow.
    """

    differentiable: bool = False

    def surrogate(self, x: Tensor) -> Tensor:
        """A differentiable approximation of the purifier, of images (n, C, H, W); by default the identity."""
        return x

    @property
    def has_surrogate(self) -> bool:
        """Whether :meth:`surrogate` is better than the identity."""
        return type(self).surrogate is not Purifier.surrogate


class PurifiedModel(nn.Module):
    """A classifier behind a purifier: ``model(purifier(x))``.

    Args:
        model: Images (n, C, H, W) in ``bounds`` to logits (n, K).
        purifier: The defense.
        gradient: Which gradient it has, the forward pass being the same: ``own``, that of autograd, as it is deployed;
            ``bpda``, the purifier replaced by the identity in the backward pass (BPDA, Athalye et al. 2018, sec. 4.1);
            ``surrogate``, replaced by :meth:`Purifier.surrogate`.
        bounds: Range of the images; the purifier gets them in [0, 1].

    Raises:
        UserError: there is no such gradient.
    """

    def __init__(
        self, model: nn.Module, purifier: Purifier, gradient: str = "own", bounds: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        super().__init__()
        if gradient not in GRADIENTS:
            raise UserError(f"unknown gradient '{gradient}' of a purified model: take {', '.join(GRADIENTS)}")
        self.model, self.purifier, self.gradient, self.bounds = model, purifier, gradient, bounds

    def with_gradient(self, gradient: str) -> PurifiedModel:
        """The same model with another gradient; it shares all weights."""
        other = PurifiedModel(self.model, self.purifier, gradient, self.bounds)
        other.training = self.training
        return other

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, C, H, W) in ``bounds`` to logits (n, K).

        Raises:
            UserError: images reach out of ``bounds``.
        """
        low, high = self.bounds
        # Attacks look a little beyond valid images, and smoothing far beyond: they are clipped. Else images that reach
        # far out have another range.
        slack = 0.25 * (high - low)
        if (
            not under_noise()
            and len(x)
            and not bool((x.detach().amin() >= low - slack) & (x.detach().amax() <= high + slack))
        ):
            raise UserError(
                f"the purifier is for images in [{low:g}, {high:g}], and these reach from {float(x.amin()):g} to "
                f"{float(x.amax()):g}: give PurifiedModel their bounds"
            )
        unit = ((x - low) / (high - low)).clamp(0, 1)
        logits: Tensor = self.model(self._purified(unit) * (high - low) + low)
        return logits

    def _purified(self, x: Tensor) -> Tensor:
        if self.gradient == "own":
            own: Tensor = self.purifier(x)
            return own
        # Forward the purifier, backward the approximation (Athalye et al. 2018, sec. 4.1).
        approximation = x if self.gradient == "bpda" else self.purifier.surrogate(x)
        with torch.no_grad():
            exact = self.purifier(x.detach())
        through: Tensor = approximation + (exact - approximation).detach()
        return through
