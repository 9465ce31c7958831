"""What a classifier's turn sees: this step's images and labels, and its logits, each made when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from torch import Tensor, nn

from rivals.game.scene import View


class Lesson:
    """One turn's view of a game in which a classifier learns.

    Args:
        nets: The players' networks by name.
        mover: The classifier whose turn it is.
        draw: Gives the turn's batch: images from 0 to 255, shape (B, C, H, W), and labels (B,).
        batch: Images a batch, B.
        images: Images seen so far.
        view: What the classifier sees of an image.
        slopes: Whether penalties will ask for gradients with respect to the images.
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
    ) -> None:
        self.nets = nets
        self.mover = mover
        self.batch = batch
        self.images = images
        self._draw = draw
        self._view = view
        self._slopes = slopes

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
    def logits(self) -> Tensor:
        """The classifier's answers to :attr:`x`, (B, classes)."""
        answers: Tensor = self.nets[self.mover](self.x)
        return answers
