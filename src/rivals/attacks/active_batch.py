"""Active-set batching: finished images leave the batch, queued images take their place, so that it stays full.

An iterative attack is two functions on a batch. ``init_rows`` makes rows for images that enter; ``step`` moves every
row by one iteration and says which are finished. The images of a batch entered at different times, so whatever an
attack keeps per image (iterate, step size, iteration count) is a tensor with one entry per row. A plain loop over all
images gives the same results, but its last batches would be passed through the model for a few hard images only.
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
    """The state of a batch under attack. Attacks add fields: tensors with one entry per row, or None throughout.

    Attributes:
        index: Which image of the call each row is (b,).
        trial: Which of its trials this is, from 0 (b,): a trial is one restart, toward one of the
            target classes if there are several.
        x: The clean images (b, ...).
        x_adv: The iterates (b, ...).
        y: The labels (b,).
        target: The classes to be predicted in a targeted attack (b,), or None.
    """

    index: Tensor
    trial: Tensor
    x: Tensor
    x_adv: Tensor
    y: Tensor
    target: Tensor | None

    def __len__(self) -> int:
        return len(self.index)

    def replace(self, finished: Tensor, fresh: Rows | None) -> None:
        """Replace ``finished`` rows by ``fresh`` ones, at most as many, and drop the finished rows that remain."""
        count = 0 if fresh is None else len(fresh)
        keep = torch.ones(len(self), dtype=torch.bool, device=finished.device)
        keep[finished[count:]] = False
        for field in fields(self):
            values = getattr(self, field.name)
            if values is None:
                continue
            if fresh is not None:
                values = values.index_copy(0, finished[:count], getattr(fresh, field.name))
            setattr(self, field.name, values if count == len(finished) else values[keep])


R = TypeVar("R", bound=Rows)


@dataclass(frozen=True)
class ActiveBatch(Generic[R]):
    """An iterative attack on an active batch.

    Attributes:
        init_rows: Makes rows for images, given by index (m,), in their trials (m,).
        step: Moves every row by one iteration, in place; returns which rows have finished their trial (b,).
        trials: Trials per image, one after the other.
    """

    init_rows: Callable[[Tensor, Tensor], R]
    step: Callable[[R], Tensor]
    trials: int = 1

    def run(self, indices: Tensor, batch_size: int, finished: Callable[[Tensor], Tensor]) -> None:
        """Attack images in batches of up to ``batch_size`` until each is finished or has had all its trials.

        The trials of an image never run side by side: the first that succeeds saves the others.

        Args:
            indices: The images (n,).
            batch_size: The largest batch.
            finished: Tells which of some images (m,) need no further trial.
        """
        queue = deque((index, 0) for index in indices.tolist())

        def fill(room: int) -> R | None:
            if not (queue and room):
                return None
            entering = torch.tensor([queue.popleft() for _ in range(min(room, len(queue)))], device=indices.device)
            return self.init_rows(entering[:, 0], entering[:, 1])

        rows = fill(batch_size)
        while rows is not None and len(rows):
            over = self.step(rows).nonzero()[:, 0]
            if not len(over):
                continue
            if self.trials > 1:
                again = over[~finished(rows.index[over]) & (rows.trial[over] + 1 < self.trials)]
                queue.extend(zip(rows.index[again].tolist(), (rows.trial[again] + 1).tolist(), strict=True))
            rows.replace(over, fill(len(over)))
