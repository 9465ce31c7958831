"""Records on their way from the device to the host, without the loop ever waiting for them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from rivals.game.checkpoint import Checkpoints

Record = dict[str, float | int | None]


class Setback(Exception):
    """The game has gone wrong, and :func:`~rivals.game.play.play` may go back to where it was well.

    Attributes:
        good: The checkpoints to go back to; None for the run's own.
    """

    def __init__(self, says: str, good: Checkpoints | None = None) -> None:
        super().__init__(says)
        self.good = good


class NonFinite(Setback):
    """A value of the game is not finite. The text names the turn and the part."""

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
        super().__init__(
            f"{what} stopped being a finite number at step {step}" + (f", in the {turn}'s turn" if turn else "")
        )
        self.step = step


class _Row:
    """One step's values, as one vector that travels to the host by itself."""

    def __init__(self, fixed: Record, values: dict[str, Tensor]) -> None:
        self.fixed = fixed
        self.names = list(values)
        vector = torch.stack([value.float() for value in values.values()])
        self.arrived: torch.Event | None = None
        if vector.device.type == "cpu":
            self.host = vector
        else:
            # Only a copy into pinned memory leaves the host free to go on.
            self.host = torch.empty(vector.shape, pin_memory=True)
            self.host.copy_(vector, non_blocking=True)
            self.arrived = torch.Event(vector.device)
            self.arrived.record()

    def here(self) -> bool:
        return self.arrived is None or self.arrived.query()

    def record(self) -> Record:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.fixed | dict(zip(self.names, self.host.tolist(), strict=True))


class Ledger:
    """Takes each step's device scalars, and gives them back as records once they have arrived.

    Args:
        seconds: Time the run has already taken.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._before = seconds
        self._start = time.perf_counter()
        self._rows: deque[_Row] = deque()
        self._pace: deque[tuple[float, int]] = deque(maxlen=50)

    @property
    def seconds(self) -> float:
        """Time the run has taken, over all its parts."""
        return self._before + time.perf_counter() - self._start

    def add(self, step: int, images: int, values: dict[str, Tensor]) -> None:
        """Take the values of the round that ended at ``step`` steps and ``images`` images."""
        now = self.seconds
        self._pace.append((now, images))
        then, seen = self._pace[0]
        pace = round((images - seen) / (now - then), 1) if now > then else None
        fixed: Record = {"images": images, "step": step, "seconds": round(now, 3), "images_per_second": pace}
        self._rows.append(_Row(fixed, values))

    def arrived(self) -> Iterator[Record]:
        """The records whose values have come, in order, without waiting.

        Raises:
            NonFinite: a value is not a finite number.
        """
        while self._rows and self._rows[0].here():
            yield _finite(self._rows.popleft().record())

    def drain(self) -> Iterator[Record]:
        """All records, waiting for those under way.

        Raises:
            NonFinite: a value is not a finite number.
        """
        while self._rows:
            yield _finite(self._rows.popleft().record())


def _finite(record: Record) -> Record:
    for key, value in record.items():
        if value is not None and not math.isfinite(value):
            assert isinstance(record["step"], int)
            raise NonFinite(key, record["step"])
    return record
