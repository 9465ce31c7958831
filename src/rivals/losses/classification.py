"""The losses of a classifier, each a function of its answers to a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor
from torch.nn.functional import cross_entropy as torch_cross_entropy

from rivals.base.errors import UserError

Parts = dict[str, Tensor]


class Answers(Protocol):
    """What a loss may look at."""

    @property
    def logits(self) -> Tensor:
        """The classifier's logits, (B, classes)."""

    @property
    def y(self) -> Tensor:
        """The labels, (B,)."""


def cross_entropy(smoothing: float = 0.0) -> Callable[[Answers], Parts]:
    """Cross-entropy with the labels, in nats, averaged over the batch.

    Args:
        smoothing: The share of each label that is spread evenly over all classes (Szegedy et al. 2016, sec. 7).

    Raises:
        UserError: ``smoothing`` is not in [0, 1).
    """
    if not 0 <= smoothing < 1:
        raise UserError(f"label smoothing of {smoothing:g} cannot work: take 0 (none) or more, below 1")

    def loss(answers: Answers) -> Parts:
        return {"ce": torch_cross_entropy(answers.logits, answers.y, label_smoothing=smoothing)}

    return loss


def readings(answers: Answers) -> Parts:
    """The share of the batch that was classified rightly."""
    return {"accuracy": (answers.logits.detach().argmax(1) == answers.y).float().mean()}
