"""What a classifier's turn sees: images and labels, their attacked twins, and its logits, each made when asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Self

from torch import Tensor, nn
from torch.func import functional_call

from rivals.game.scene import View

Attack = Callable[[nn.Module, Tensor, Tensor, int], Tensor]
"""The other player, solved afresh: images (B, C, H, W) and labels (B,) to attacked images, after so many images."""


class Lesson:
    """One turn's view of a game in which a classifier learns, alone or against an attack.

    Args:
        nets: The players' networks by name.
        mover: The classifier whose turn it is.
        draw: Gives the turn's batch: images from 0 to 255, shape (B, C, H, W), and labels (B,).
        batch: Images a batch, B.
        images: Images seen so far.
        view: What the classifier sees of an image.
        slopes: Whether penalties will ask for gradients with respect to the images.
        attack: What the images are attacked by, if the loss looks at attacked ones.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        mover: str,
        draw: Callable[[], tuple[Tensor, Tensor]],
        *,
        batch: int,
        images: int,
        view: View | None,
        slopes: bool,
        attack: Attack | None = None,
    ) -> None:
        self.nets = nets
        self.mover = mover
        self.batch = batch
        self.images = images
        self._draw = draw
        self._view = view
        self._slopes = slopes
        self._attack = attack
        self._moved: dict[str, Tensor] = {}

    @cached_property
    def _drawn(self) -> tuple[Tensor, Tensor]:
        return self._draw()

    @cached_property
    def x(self) -> Tensor:
        """The batch, (B, C, H, W) in [0, 1], as the classifier sees it."""
        images = self._drawn[0] * (1 / 255)
        images = images if self._view is None else self._view(images, self.images)
        return images.requires_grad_() if self._slopes else images

    @property
    def y(self) -> Tensor:
        """The labels, (B,)."""
        return self._drawn[1]

    @cached_property
    def x_adv(self) -> Tensor:
        """The batch's attacked twin, (B, C, H, W) in [0, 1], made against the classifier as it is now.

        It is made in evaluation mode: batch norm shall not learn from the attack's passes, nor tie images together.
        """
        assert self._attack is not None, "a loss that looks at attacked images needs an attack"
        net = self.nets[self.mover].eval()
        attacked = self._attack(net, self.x, self.y, self.images)
        net.train()
        return attacked

    @cached_property
    def logits(self) -> Tensor:
        """The classifier's answers to :attr:`x`, (B, classes)."""
        return self._answer(self.x)

    @cached_property
    def logits_adv(self) -> Tensor:
        """The classifier's answers to :attr:`x_adv`, (B, classes)."""
        return self._answer(self.x_adv)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The classifier's weights by name."""
        return dict(self.nets[self.mover].named_parameters())

    def at(self, weights: Mapping[str, Tensor]) -> Self:
        """The same lesson, the same attacked images, judged with some weights replaced; they may carry a graph."""
        if self._attack is not None:
            _ = self.x_adv  # made against the classifier itself, and shared
        other = copy.copy(self)
        other._moved = dict(weights)
        for answers in ("logits", "logits_adv"):
            other.__dict__.pop(answers, None)
        return other

    def _answer(self, images: Tensor) -> Tensor:
        net = self.nets[self.mover]
        answers: Tensor = functional_call(net, self._moved, (images,)) if self._moved else net(images)
        return answers
