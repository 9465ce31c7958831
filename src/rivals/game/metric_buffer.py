"""Values on their way from the device to the host: the loop never waits for them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from rivals.game.checkpoint import Checkpoints

StepRecord = dict[str, float | int | None]


class TrainingFailure(Exception):
    """Training has failed; :func:`~rivals.game.loop.play` may return to a good checkpoint.

    Attributes:
        good: The checkpoints to return to; None for the run's own.
    """

    def __init__(self, message: str, good: Checkpoints | None = None) -> None:
        super().__init__(message)
        self.good = good


class NonFinite(TrainingFailure):
    """A value is not finite. The message names the turn and the part of the loss."""

    def __init__(self, key: str, step: int) -> None:
        kind, _, rest = key.partition("/")
        player, _, part = rest.partition("/")
        what = {
            "loss": f"the {player}'s loss" + (f", part '{part}'," if part else ""),
            "penalty": f"the penalty {player}",
            "grad_norm": f"the {player}'s gradient",
            "weights": f"the {player}'s weights",
        }.get(kind, key)
        turn = "discriminator" if kind == "penalty" else player
        super().__init__(f"{what} is not finite at step {step}" + (f", in the {turn}'s turn" if turn else ""))
        self.step = step


class _Row:
    """The values of one step, as one vector that is copied to the host asynchronously."""

    def __init__(self, fixed: StepRecord, values: dict[str, Tensor]) -> None:
        self.fixed = fixed
        self.names = list(values)
        vector = torch.stack([value.float() for value in values.values()])
        self.event: torch.Event | None = None
        if vector.device.type == "cpu":
            self.host = vector
        else:
            # Only copies into pinned memory are asynchronous.
            self.host = torch.empty(vector.shape, pin_memory=True)
            self.host.copy_(vector, non_blocking=True)
            self.event = torch.Event(vector.device)
            self.event.record()

    def arrived(self) -> bool:
        return self.event is None or self.event.query()

    def record(self) -> StepRecord:
        if self.event is not None:
            self.event.synchronize()
        return self.fixed | dict(zip(self.names, self.host.tolist(), strict=True))


class MetricBuffer:
    """Takes the device scalars of each step and returns them as records once they are on the host.

    Args:
        seconds: Time the run has taken so far.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds_before = seconds
        self._start = time.perf_counter()
        self._rows: deque[_Row] = deque()
        self._recent: deque[tuple[float, int]] = deque(maxlen=50)

    @property
    def seconds(self) -> float:
        """Time the run has taken, with its parts before it was resumed."""
        return self._seconds_before + time.perf_counter() - self._start

    def add(self, step: int, images: int, values: dict[str, Tensor]) -> None:
        """Take the values of the round that ended at ``step`` steps and ``images`` images."""
        now = self.seconds
        self._recent.append((now, images))
        then, seen = self._recent[0]
        speed = round((images - seen) / (now - then), 1) if now > then else None
        fixed: StepRecord = {"images": images, "step": step, "seconds": round(now, 3), "images_per_second": speed}
        self._rows.append(_Row(fixed, values))

    def arrived(self) -> Iterator[StepRecord]:
        """The records whose values are on the host, in order, without waiting.

        Raises:
            NonFinite: a value is not finite.
        """
        while self._rows and self._rows[0].arrived():
            yield _finite(self._rows.popleft().record())

    def drain(self) -> Iterator[StepRecord]:
        """All records; waits for those under way.

        Raises:
            NonFinite: a value is not finite.
        """
        while self._rows:
            yield _finite(self._rows.popleft().record())


def _finite(record: StepRecord) -> StepRecord:
    for key, value in record.items():
        if value is not None and not math.isfinite(value):
            assert isinstance(record["step"], int)
            raise NonFinite(key, record["step"])
    return record
