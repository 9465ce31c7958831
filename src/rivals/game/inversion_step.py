"""What a turn sees where an encoder learns to invert a generator: images, latents, and what comes back of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rivals.base.schedules import Clock
from rivals.base.tensors import at_least_float32
from rivals.game.gan_step import Augment

ENCODER = "encoder"


class InversionStep:
    """One turn's view of the game of an encoder, whose generator is held constant.

    Args:
        nets: The players' networks by name.
        mover: The player whose turn it is: the encoder.
        draw: Returns the turn's batch: images from 0 to 255, shape (B, C, H, W), and labels or None.
        batch_size: Images per batch, B.
        clock: Where the run is, for schedules.
        augment: Not used: a reconstruction is compared with the image itself.
        needs_input_grad: Not used: no penalty fits this game.
        generator: In evaluation mode, without gradients for its weights and without classes: latents (B, latent_dim)
            to images (B, C, H, W) in [-1, 1].
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        mover: str,
        draw: Callable[[], tuple[Tensor, Tensor | None]],
        *,
        batch_size: int,
        clock: Clock,
        augment: Augment | None,
        needs_input_grad: bool,
        generator: nn.Module,
    ) -> None:
        self.nets, self.mover, self.clock = nets, mover, clock
        self.batch_size = batch_size
        self._draw, self._generator = draw, generator

    @cached_property
    def images(self) -> Tensor:
        """The batch, (B, C, H, W) in [-1, 1]."""
        return (self._draw()[0] * (1 / 127.5)).sub_(1)

    @cached_property
    def reconstructed(self) -> Tensor:
        """``G(E(x))`` of the images, (B, C, H, W) in [-1, 1]."""
        images: Tensor = self._generator(self.nets[ENCODER](self.images))
        return at_least_float32(images)

    @cached_property
    def latents(self) -> Tensor:
        """New latents, (B, latent_dim)."""
        generator: Any = self._generator
        return torch.randn(self.batch_size, generator.latent_dim, device=self.images.device)

    @cached_property
    def recovered(self) -> Tensor:
        """``E(G(z))`` of the latents, (B, latent_dim)."""
        with torch.no_grad():
            generated = self._generator(self.latents)
        latents: Tensor = self.nets[ENCODER](generated)
        return latents
