"""The loss of an encoder that inverts a generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from rivals.base.errors import UserError

LossTerms = dict[str, Tensor]


class InversionOutput(Protocol):
    """What the loss reads."""

    @property
    def images(self) -> Tensor:
        """Images, (B, C, H, W)."""

    @property
    def reconstructed(self) -> Tensor:
        """``G(E(x))`` of the images."""

    @property
    def latents(self) -> Tensor:
        """Latents, (B, latent_dim)."""

    @property
    def recovered(self) -> Tensor:
        """``E(G(z))`` of the latents."""


def inversion(latent_weight: float = 0.1) -> Callable[[InversionOutput], LossTerms]:
    """``mean (G(E(x)) - x)^2`` on images (Zhu et al. 2016, sec. 3.2), and a weighted ``mean (E(G(z)) - z)^2``.

    The second, a regression on latents (Perarnau et al. 2016, sec. 3.2), keeps the encoder where the generator was
    trained: latents that no standard normal one is near to may make images that it never makes.

    Args:
        latent_weight: Weight of the regression on latents; 0 leaves it out.

    Raises:
        UserError: it is negative.
    """
    if not latent_weight >= 0:
        raise UserError(f"latent_weight {latent_weight:g} is negative: take 0 or more")

    def loss(output: InversionOutput) -> LossTerms:
        terms = {"image": (output.reconstructed - output.images).square().mean()}
        if latent_weight:
            terms["latent"] = latent_weight * (output.recovered - output.latents).square().mean()
        return terms

    return loss
