"""What a classifier's turn sees: images, labels, adversarial examples and logits, each computed on first use."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Self

from torch import Tensor, nn
from torch.func import functional_call

from rivals.base.evaluation_mode import evaluating
from rivals.base.schedules import Clock
from rivals.game.gan_step import Augment, augmented

Attack = Callable[[nn.Module, Tensor, Tensor, Clock], Tensor]
"""The other player: network, images (B, C, H, W), labels (B,) and a point of the run to adversarial examples."""


class ClassifierStep:
    """One turn's view of a game in which a classifier learns, alone or against an attack.

    Args:
        nets: The players' networks by name.
        mover: The classifier whose turn it is.
        draw: Returns the turn's batch: images from 0 to 255, shape (B, C, H, W), and labels (B,).
        batch_size: Images per batch, B.
        clock: Where the run is, for schedules.
        augment: Applied to the images that the classifier sees.
        needs_input_grad: Whether penalties will take gradients with respect to the images.
        attack: Makes the adversarial examples, for losses that use them.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        mover: str,
        draw: Callable[[], tuple[Tensor, Tensor]],
        *,
        batch_size: int,
        clock: Clock,
        augment: Augment | None,
        needs_input_grad: bool,
        attack: Attack | None = None,
    ) -> None:
        self.nets = nets
        self.mover = mover
        self.batch_size = batch_size
        self.clock = clock
        self._draw = draw
        self._augment = augment
        self._needs_input_grad = needs_input_grad
        self._attack = attack
        self._replaced: dict[str, Tensor] = {}

    @cached_property
    def _batch(self) -> tuple[Tensor, Tensor]:
        return self._draw()

    @cached_property
    def x(self) -> Tensor:
        """The batch, (B, C, H, W) in [0, 1], as the classifier sees it."""
        images = self._batch[0] * (1 / 255)
        images = augmented(images, self._augment, self.clock)
        return images.requires_grad_() if self._needs_input_grad else images

    @property
    def y(self) -> Tensor:
        """The labels, (B,)."""
        return self._batch[1]

    @cached_property
    def x_adv(self) -> Tensor:
        """Adversarial examples of the batch, (B, C, H, W) in [0, 1], against the current weights.

        The network is in evaluation mode meanwhile: in training mode the forward passes of the attack would change the
        running statistics of batch norm, and batch statistics would couple the images.
        """
        assert self._attack is not None, "a loss on adversarial examples needs an attack"
        net = self.nets[self.mover]
        with evaluating(net):
            return self._attack(net, self.x, self.y, self.clock)

    @cached_property
    def logits(self) -> Tensor:
        """Logits of :attr:`x`, (B, classes)."""
        return self._forward(self.x)

    @cached_property
    def logits_adv(self) -> Tensor:
        """Logits of :attr:`x_adv`, (B, classes)."""
        return self._forward(self.x_adv)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The classifier's weights by name."""
        return dict(self.nets[self.mover].named_parameters())

    @contextlib.contextmanager
    def unchanged_buffers(self) -> Iterator[None]:
        """Inside, forward passes use copies of the buffers, so batch norm's running statistics stay as they are."""
        buffers = {name: buffer.clone() for name, buffer in self.nets[self.mover].named_buffers()}
        before, self._replaced = self._replaced, self._replaced | buffers
        try:
            yield
        finally:
            self._replaced = before

    def at(self, weights: Mapping[str, Tensor]) -> Self:
        """This step with some weights replaced, as AWP needs; they may carry a graph. The adversarial examples stay."""
        if self._attack is not None:
            _ = self.x_adv  # computed here, against the current weights, and shared by the copy
        other = copy.copy(self)
        other._replaced = dict(weights)
        for name in ("logits", "logits_adv"):
            other.__dict__.pop(name, None)  # the cached properties
        return other

    def _forward(self, images: Tensor) -> Tensor:
        net = self.nets[self.mover]
        logits: Tensor = functional_call(net, self._replaced, (images,)) if self._replaced else net(images)
        return logits
