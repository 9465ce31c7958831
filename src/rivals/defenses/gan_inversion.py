"""Purification by GAN inversion: the image that a generator makes of an encoder's latent."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.defenses.defense_gan import check_generator, check_images
from rivals.defenses.purifier import Purifier

NAME = "GAN inversion"


class GANInversion(Purifier):
    """``G(E(x))``: Defense-GAN with its search replaced by an encoder (Zhu et al. 2016, sec. 3.2), in one forward pass.

    It is deterministic and differentiable, so it hides no gradient: an attack simply follows it.

    Args:
        generator: Latents (m, latent_dim) to images (m, C, H, W) in [-1, 1], without classes.
        encoder: Images (m, C, H, W) in [-1, 1] to latents, as of a run of ``rivals train --invert``.

    Raises:
        UserError: they do not fit each other.
    """

    differentiable = True

    def __init__(self, generator: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        check_generator(generator, NAME)
        facts: Any = generator
        if facts.classes:
            raise UserError(f"{NAME} takes a generator without classes, not one of {facts.classes}: give another")
        theirs, ours = (
            " x ".join(str(getattr(net, name, "?")) for name in ("channels", "size", "latent_dim"))
            for net in (encoder, generator)
        )
        if theirs != ours:
            raise UserError(
                f"the encoder is for channels x size x latent of {theirs}, and the generator for {ours}: give those of "
                "one run"
            )
        self.generator, self.encoder = generator, encoder

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1] to images that the generator makes.

        Raises:
            UserError: the generator makes images of another shape.
        """
        check_images(self.generator, x, NAME)
        if not len(x):
            return x
        like = next(self.generator.parameters())
        images: Tensor = self.generator(self.encoder((x * 2 - 1).to(like)))
        return images.to(x).add(1).div(2).clamp(0, 1)
