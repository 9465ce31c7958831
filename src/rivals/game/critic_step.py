"""What a critic sees in another's training loop: real and generated images that are given."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor

from rivals.game.gan_step import DISCRIMINATOR, GanStep


class CriticStep(GanStep):
    """A turn's view of given images, whatever their range.

    Args:
        *args: As for :class:`~rivals.game.gan_step.GanStep`.
        fake: The generated images, of the shape of the real ones.
        **options: As for :class:`~rivals.game.gan_step.GanStep`.
    """

    def __init__(self, *args: Any, fake: Tensor, **options: Any) -> None:
        super().__init__(*args, **options)
        self._fake = fake

    @cached_property
    def real_images(self) -> Tensor:
        """The real batch, as given, in the precision of the critic."""
        return self._cast(self._real_batch[0])

    @cached_property
    def fake_images(self) -> Tensor:
        """The generated batch: constant, if it is the critic's turn."""
        fake = self._fake.detach() if self.mover == DISCRIMINATOR else self._fake
        return self._cast(fake)

    def _cast(self, images: Tensor) -> Tensor:
        return images.to(next(self.nets[DISCRIMINATOR].parameters()).dtype)

    @cached_property
    def labels(self) -> Tensor | None:
        """Classes of the images, (B,), or None."""
        return self._real_batch[1]
