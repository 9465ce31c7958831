"""Classification losses: functions of the logits and labels of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor
from torch.nn.functional import cross_entropy as torch_cross_entropy

from rivals.base.errors import UserError

LossTerms = dict[str, Tensor]


class ClassifierOutput(Protocol):
    """What a loss reads."""

    @property
    def logits(self) -> Tensor:
        """Logits, (B, classes)."""

    @property
    def y(self) -> Tensor:
        """The labels, (B,)."""


def cross_entropy(label_smoothing: float = 0.0) -> Callable[[ClassifierOutput], LossTerms]:
    """Cross-entropy in nats, averaged over the batch.

    Args:
        label_smoothing: Probability that is spread evenly over all classes (Szegedy et al. 2016, sec. 7).

    Raises:
        UserError: ``label_smoothing`` is not in [0, 1).
    """
    if not 0 <= label_smoothing < 1:
        raise UserError(f"label smoothing of {label_smoothing:g} is out of range: take 0 (none) or more, below 1")

    def loss(output: ClassifierOutput) -> LossTerms:
        return {"ce": torch_cross_entropy(output.logits, output.y, label_smoothing=label_smoothing)}

    return loss


def readings(output: ClassifierOutput) -> LossTerms:
    """Accuracy on the batch."""
    return {"accuracy": (output.logits.detach().argmax(1) == output.y).float().mean()}
