"""What a turn sees: this step's images and latents, and the discriminator's answers, each made when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

GENERATOR, DISCRIMINATOR = "generator", "discriminator"

View = Callable[[Tensor, int], Tensor]
"""What the discriminator sees of images (B, C, H, W) after so many images: a differentiable augmentation."""


class Scene:
    """One turn's view of the game between a generator and a discriminator.

    Args:
        nets: The players' networks by name.
        mover: The player whose turn it is. The others are held constant.
        draw: Gives the turn's real batch: images from 0 to 255, shape (B, C, H, W), and labels (B,) or None.
        batch: Images a batch, B.
        images: Images seen so far.
        view: What the discriminator sees of an image, real or generated.
        slopes: Whether penalties will ask for gradients with respect to the images.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        mover: str,
        draw: Callable[[], tuple[Tensor, Tensor | None]],
        *,
        batch: int,
        images: int,
        view: View | None,
        slopes: bool,
    ) -> None:
        self.nets = nets
        self.mover = mover
        self.batch = batch
        self.images = images
        self._draw = draw
        self._view = view
        self._wants_slopes = slopes

    @cached_property
    def _real_batch(self) -> tuple[Tensor, Tensor | None]:
        return self._draw()

    @cached_property
    def real_images(self) -> Tensor:
        """The real batch, (B, C, H, W) in [-1, 1]."""
        return (self._real_batch[0] * (1 / 127.5)).sub_(1)

    @cached_property
    def labels(self) -> Tensor | None:
        """Classes of the real images, (B,), which the generated ones share; None in an unconditional game."""
        generator: Any = self.nets[GENERATOR]
        return self._real_batch[1] if generator.classes else None

    @cached_property
    def fake_images(self) -> Tensor:
        """Generated images, (B, C, H, W) in [-1, 1]: constant, unless it is the generator's turn."""
        generator: Any = self.nets[GENERATOR]
        device = next(generator.parameters()).device
        with torch.set_grad_enabled(self.mover == GENERATOR):
            latents = torch.randn(self.batch, generator.latent, device=device)
            images: Tensor = generator(latents, self.labels)
        return images.to(torch.promote_types(images.dtype, torch.float32))

    def critic(self, images: Tensor) -> Tensor:
        """The discriminator's logits, (B,), for any images with the batch's labels."""
        return self._judge(images, self.labels)

    def _judge(self, images: Tensor, labels: Tensor | None) -> Tensor:
        seen = images if self._view is None else self._view(images, self.images)
        logits: Tensor = self.nets[DISCRIMINATOR](seen, labels)
        return logits

    @cached_property
    def _pair(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Logits of the real and the generated batch and, if wanted, their gradients with respect to the images."""
        real, fake = self.real_images, self.fake_images
        if getattr(self.nets[DISCRIMINATOR], "couples_batch", False):
            if self._wants_slopes:
                real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
            answers = self.critic(real), self.critic(fake)
            if not self._wants_slopes:
                return *answers, None, None
            total = answers[0].sum() + answers[1].sum()
            real_slopes, fake_slopes = torch.autograd.grad(total, (real, fake), create_graph=True)
            return *answers, real_slopes, fake_slopes
        # The images do not influence one another, so one pass over both is the same game in fewer, larger products.
        both = torch.cat([real, fake])
        labels = None if self.labels is None else self.labels.repeat(2)
        if not self._wants_slopes:
            judged = self._judge(both, labels)
            return judged[: self.batch], judged[self.batch :], None, None
        both = both.detach().requires_grad_()
        judged = self._judge(both, labels)
        (slopes,) = torch.autograd.grad(judged.sum(), both, create_graph=True)
        return judged[: self.batch], judged[self.batch :], slopes[: self.batch], slopes[self.batch :]

    @cached_property
    def real(self) -> Tensor:
        """Logits of the real images, (B,). Nothing in them depends on the generator, so its turn takes no graph."""
        if self.mover == DISCRIMINATOR:
            return self._pair[0]
        with torch.no_grad():
            return self.critic(self.real_images)

    @cached_property
    def fake(self) -> Tensor:
        """Logits of the generated images, (B,)."""
        return self._pair[1] if self.mover == DISCRIMINATOR else self.critic(self.fake_images)

    @property
    def real_slopes(self) -> Tensor:
        """Gradient of each real image's logit with respect to that image, (B, C, H, W), differentiable."""
        slopes = self._pair[2]
        assert slopes is not None, "a penalty that reads slopes must say so"
        return slopes

    @property
    def fake_slopes(self) -> Tensor:
        """Gradient of each generated image's logit with respect to that image, (B, C, H, W), differentiable."""
        slopes = self._pair[3]
        assert slopes is not None, "a penalty that reads slopes must say so"
        return slopes
