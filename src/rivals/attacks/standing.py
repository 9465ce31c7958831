"""The points still standing, kept in a full batch: who has fallen leaves at once, and who waits takes the place.

An attack is two functions on the rows of a batch: ``begin`` makes rows for points that enter, ``advance`` takes every
row one step and says for which the trial is over. Rows stand at different steps of it, so all that an attack
remembers is a tensor with one entry a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

import torch
from torch import Tensor


@dataclass
class Rows:
    """A batch under attack. Attacks add fields; each is a tensor with one entry a row, or None throughout.

    Attributes:
        point: Which image of the call it is.
        trial: Which of its trials (restarts, targets) this is, from 0.
        x: The original.
        x_adv: The iterate.
        y: The label.
        goal: The class to be pulled towards, if there is one.
    """

    point: Tensor
    trial: Tensor
    x: Tensor
    x_adv: Tensor
    y: Tensor
    goal: Tensor | None

    def __len__(self) -> int:
        return len(self.point)

    def replace(self, gone: Tensor, fresh: Rows | None) -> None:
        """Put ``fresh`` rows, no more than are ``gone``, in the places of those; close the gaps that remain."""
        count = 0 if fresh is None else len(fresh)
        keep = torch.ones(len(self), dtype=torch.bool, device=gone.device)
        keep[gone[count:]] = False
        for field in fields(self):
            values = getattr(self, field.name)
            if values is None:
                continue
            if fresh is not None:
                values = values.index_copy(0, gone[:count], getattr(fresh, field.name))
            setattr(self, field.name, values if count == len(gone) else values[keep])


R = TypeVar("R", bound=Rows)


@dataclass(frozen=True)
class Storm(Generic[R]):
    """An attack in steps.

    Attributes:
        begin: Rows for points (m,) in their trials (m,).
        advance: Takes every row one step, in place; True (rows,) where its trial is over.
        trials: How many trials each point is due, one after the other.
    """

    begin: Callable[[Tensor, Tensor], R]
    advance: Callable[[R], Tensor]
    trials: int = 1

    def run(self, points: Tensor, capacity: int, fallen: Callable[[Tensor], Tensor]) -> None:
        """Storm ``points`` in batches of up to ``capacity`` until each has fallen or is through with its trials.

        A point's trials never run side by side: the first that succeeds saves the others.

        Args:
            points: The points (n,).
            capacity: The largest batch.
            fallen: Which of some points need no further trial.
        """
        waiting = deque((point, 0) for point in points.tolist())

        def enlist(room: int) -> R | None:
            if not (waiting and room):
                return None
            drawn = torch.tensor([waiting.popleft() for _ in range(min(room, len(waiting)))], device=points.device)
            return self.begin(drawn[:, 0], drawn[:, 1])

        rows = enlist(capacity)
        while rows is not None and len(rows):
            over = self.advance(rows).nonzero()[:, 0]
            if not len(over):
                continue
            if self.trials > 1:
                again = over[~fallen(rows.point[over]) & (rows.trial[over] + 1 < self.trials)]
                waiting.extend(zip(rows.point[again].tolist(), (rows.trial[again] + 1).tolist(), strict=True))
            rows.replace(over, enlist(len(over)))
