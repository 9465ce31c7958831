"""What a classifier's turn sees in certified training: also bounds of its logits over sets of inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor, nn

from rivals.game.classifier_step import ClassifierStep


class BatchBounds(Protocol):
    """Logits of a batch, and bounds over a set of inputs around each image."""

    @property
    def logits(self) -> Tensor: ...
    def logits_at(self, x: Tensor) -> Tensor: ...
    @property
    def margins(self) -> Tensor: ...
    @property
    def widths(self) -> Sequence[Tensor]: ...
    @property
    def before_relus(self) -> Sequence[tuple[Tensor, Tensor]]: ...


Bound = Callable[[nn.Module, ClassifierStep], BatchBounds]
"""From a network in training mode and the view of its turn to bounds."""


class CertifiedStep(ClassifierStep):
    """One turn's view of a game in which a classifier learns to be certified.

    The clean forward pass is that of the bounds. They and the pass of the adversarial examples take its statistics for
    batch norm, whose running statistics are updated once, by clean images alone.

    Args:
        args: As :class:`~rivals.game.classifier_step.ClassifierStep`.
        bound: Bounds the logits.
        progress: From the clock to how far eps and kappa have come, 0 to 1.
        kwargs: As :class:`~rivals.game.classifier_step.ClassifierStep`.
    """

    def __init__(self, *args: Any, bound: Bound, progress: Callable[[Any], float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bound = bound
        self.ramp = progress(self.clock)

    @cached_property
    def _bounds(self) -> BatchBounds:
        return self._bound(self.nets[self.mover], self)

    @property
    def logits(self) -> Tensor:
        """Logits of the clean images, (B, classes)."""
        return self._bounds.logits

    @cached_property
    def logits_adv(self) -> Tensor:
        """Logits of :attr:`x_adv`, (B, classes), by the clean images' statistics."""
        return self._bounds.logits_at(self.x_adv)

    @property
    def margins(self) -> Tensor:
        """Lower bounds of ``z_y - z_k``, (B, classes); 0 for k = y."""
        return self._bounds.margins

    @property
    def widths(self) -> Sequence[Tensor]:
        """Mean width of the bounds of the input, then of those before each ReLU."""
        return self._bounds.widths

    @property
    def before_relus(self) -> Sequence[tuple[Tensor, Tensor]]:
        """Lower and upper bounds before each ReLU."""
        return self._bounds.before_relus
