"""What a turn of a GAN sees: real and generated images and the discriminator's logits, each computed on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rivals.base import devices
from rivals.base.schedules import Clock
from rivals.base.tensors import at_least_float32, image_mean

GENERATOR, DISCRIMINATOR = "generator", "discriminator"

Augment = Callable[[Tensor, Clock], Tensor]
"""A differentiable augmentation: images (B, C, H, W), at a point of the run, to images."""


def augmented(images: Tensor, augment: Augment | None, clock: Clock) -> Tensor:
    """The images (B, C, H, W) after an augmentation, if there is one.

    It is computed outside of autocast: as bf16, pixel coordinates above 256 would be rounded.
    """
    if augment is None:
        return images
    with devices.autocast(images.device, enabled=False):
        return augment(images, clock)


class GanStep:
    """One turn's view of the game between a generator and a discriminator.

    Args:
        nets: The players' networks by name.
        mover: The player whose turn it is. The others are held constant.
        draw: Returns the turn's real batch: images from 0 to 255, shape (B, C, H, W), and labels (B,) or None.
        batch_size: Images per batch, B.
        clock: Where the run is, for schedules.
        augment: Applied to all images that the discriminator sees, real or generated.
        needs_input_grad: Whether penalties will take gradients with respect to the images.
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
    ) -> None:
        self.nets = nets
        self.mover = mover
        self.batch_size = batch_size
        self.clock = clock
        self._draw = draw
        self._augment = augment
        self._needs_input_grad = needs_input_grad

    @cached_property
    def _real_batch(self) -> tuple[Tensor, Tensor | None]:
        return self._draw()

    @cached_property
    def real_images(self) -> Tensor:
        """The real batch, (B, C, H, W) in [-1, 1]."""
        return (self._real_batch[0] * (1 / 127.5)).sub_(1)

    @cached_property
    def labels(self) -> Tensor | None:
        """Classes of the real images, (B,), also those of the generated ones; None in an unconditional game."""
        generator: Any = self.nets[GENERATOR]
        return self._real_batch[1] if generator.classes else None

    @cached_property
    def fake_images(self) -> Tensor:
        """Generated images, (B, C, H, W) in [-1, 1]: constant, unless it is the generator's turn."""
        generator: Any = self.nets[GENERATOR]
        device = next(generator.parameters()).device
        with torch.set_grad_enabled(self.mover == GENERATOR):
            latents = torch.randn(self.batch_size, generator.latent_dim, device=device)
            images: Tensor = generator(latents, self.labels)
        return at_least_float32(images)

    def critic(self, images: Tensor) -> Tensor:
        """The discriminator's logits, (B,), for any images with the batch's labels."""
        return self._logits(images, self.labels)

    def critic_and_moved(self, images: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of images, each (B,), and of the same images moved by ``offset`` after their augmentation.

        One pass, so that both are seen by the same weights where spectral norm is estimated anew in each.
        """
        seen = augmented(images, self._augment, self.clock)
        labels = None if self.labels is None else self.labels.repeat(2)
        logits = at_least_float32(self.nets[DISCRIMINATOR](torch.cat([seen, seen + offset]), labels))
        return logits[: len(images)], logits[len(images) :]

    def _logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        seen = augmented(images, self._augment, self.clock)
        return at_least_float32(self.nets[DISCRIMINATOR](seen, labels))

    @cached_property
    def _pair(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Logits of the real and the generated batch and, if wanted, their gradients with respect to the images."""
        real, fake = self.real_images, self.fake_images
        if getattr(self.nets[DISCRIMINATOR], "uses_batch_stats", False):
            if self._needs_input_grad:
                real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
            pair = self.critic(real), self.critic(fake)
            if not self._needs_input_grad:
                return *pair, None, None
            total = image_mean(pair[0]).sum() + image_mean(pair[1]).sum()
            real_input_grad, fake_input_grad = torch.autograd.grad(total, (real, fake), create_graph=True)
            return *pair, real_input_grad, fake_input_grad
        # Without batch statistics images are independent, so one pass over both batches gives the same logits, faster.
        both = torch.cat([real, fake])
        labels = None if self.labels is None else self.labels.repeat(2)
        if not self._needs_input_grad:
            logits = self._logits(both, labels)
            return logits[: self.batch_size], logits[self.batch_size :], None, None
        both = both.detach().requires_grad_()
        logits = self._logits(both, labels)
        (input_grad,) = torch.autograd.grad(image_mean(logits).sum(), both, create_graph=True)
        return (
            logits[: self.batch_size],
            logits[self.batch_size :],
            input_grad[: self.batch_size],
            input_grad[self.batch_size :],
        )

    @cached_property
    def real(self) -> Tensor:
        """Logits of the real images, (B,). They do not depend on the generator, so its turn needs no graph."""
        if self.mover == DISCRIMINATOR:
            return self._pair[0]
        with torch.no_grad():
            return self.critic(self.real_images)

    @cached_property
    def fake(self) -> Tensor:
        """Logits of the generated images, (B,)."""
        return self._pair[1] if self.mover == DISCRIMINATOR else self.critic(self.fake_images)

    @property
    def real_input_grad(self) -> Tensor:
        """Gradient of each real image's logit, or of the mean of its map, (B, C, H, W), differentiable."""
        input_grad = self._pair[2]
        assert input_grad is not None, "a penalty that takes input gradients must set `needs_input_grad`"
        return input_grad

    @property
    def fake_input_grad(self) -> Tensor:
        """Gradient of each generated image's logit, or of the mean of its map, (B, C, H, W), differentiable."""
        input_grad = self._pair[3]
        assert input_grad is not None, "a penalty that takes input gradients must set `needs_input_grad`"
        return input_grad
