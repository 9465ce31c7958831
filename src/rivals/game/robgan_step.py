"""What a turn of Rob-GAN sees: a GAN whose discriminator meets real images under attack, and classifies them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from torch import Tensor

from rivals.base.evaluation_mode import evaluating
from rivals.base.schedules import Clock
from rivals.game.gan_step import DISCRIMINATOR, GanStep

Attack = Callable[[Any, Tensor, Tensor, Clock], Tensor]


class RobGanStep(GanStep):
    """One turn's view of Rob-GAN (Liu & Hsieh 2019).

    In the discriminator's turn the real images are adversarial examples against its class head, which it has to
    classify, and to tell from generated ones. Generated images are not attacked.

    Args:
        args: This and ``options``: see :class:`GanStep`. The generator is conditional; the discriminator is a
            :class:`~rivals.nets.two_heads.TwoHeadedDiscriminator`.
        attack: Discriminator, images (B, C, H, W) in [0, 1], labels (B,), a point of the run to adversarial examples.
    """

    def __init__(self, *args: Any, attack: Attack, **options: Any) -> None:
        super().__init__(*args, **options)
        self._attack = attack

    @cached_property
    def real_images(self) -> Tensor:
        """The real batch in [-1, 1], (B, C, H, W): under attack, if it is the discriminator's turn."""
        images, labels = self._real_batch
        if self.mover != DISCRIMINATOR:
            return (images * (1 / 127.5)).sub_(1)
        assert labels is not None, "Rob-GAN needs labels"
        net = self.nets[DISCRIMINATOR]
        with evaluating(net):  # batch norm must neither learn from the attack's passes nor mix images
            return self._attack(net, images * (1 / 255), labels, self.clock) * 2 - 1

    @property
    def y(self) -> Tensor:
        """Classes of the real images, and of the generated ones, (B,)."""
        labels = self._real_batch[1]
        assert labels is not None, "Rob-GAN needs labels"
        return labels

    @cached_property
    def _real_heads(self) -> tuple[Tensor, Tensor]:
        return self._heads(self.real_images, learns=self.mover == DISCRIMINATOR)

    @cached_property
    def _fake_heads(self) -> tuple[Tensor, Tensor]:
        return self._heads(self.fake_images, learns=False)

    def _heads(self, images: Tensor, *, learns: bool) -> tuple[Tensor, Tensor]:
        """Logits of "real" and of the classes, in one pass.

        Batch norm's running statistics learn from real images under attack alone: they are what the classifier will
        meet, and generated images are not among them.
        """
        net: Any = self.nets[DISCRIMINATOR]
        source, classes = net.heads(images) if learns else net.heads_without_trace(images)
        return source, classes

    @property
    def real(self) -> Tensor:
        """Logits of "real" of the real images, (B,)."""
        return self._real_heads[0]

    @property
    def fake(self) -> Tensor:
        """Logits of "real" of the generated images, (B,)."""
        return self._fake_heads[0]

    @property
    def real_classes(self) -> Tensor:
        """Class logits of the real images, (B, classes)."""
        return self._real_heads[1]

    @property
    def fake_classes(self) -> Tensor:
        """Class logits of the generated images, (B, classes)."""
        return self._fake_heads[1]
