"""Callbacks: what the loop calls between rounds and for every record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rivals.base.duration import Duration
from rivals.base.run_folder import Record


@dataclass(frozen=True)
class Progress:
    """Where a run is: ``step`` rounds played, ``images`` shown, ``epochs`` and ``seconds`` passed."""

    step: int
    images: int
    epochs: float
    seconds: float

    def fraction(self, duration: Duration) -> float:
        """The fraction of ``duration`` that has passed: 1 at its end."""
        return duration.progress(images=self.images, epochs=self.epochs, steps=self.step, seconds=self.seconds)

    def passed(self, duration: Duration, before: Progress) -> bool:
        """Whether a multiple of ``duration`` was completed since ``before``."""
        return int(self.fraction(duration)) > int(before.fraction(duration))

    def record(self, **values: Any) -> Record:
        """A record of ``values`` measured here."""
        return {"images": self.images, "step": self.step, "seconds": round(self.seconds, 3), **values}


class Callback:
    """Base class of callbacks. Override what is needed; every method does nothing by default.

    Attributes:
        every: Time between two calls of :meth:`measure`; None for no calls.
        max_share: The share of the run's time that :meth:`measure` may take; None for any. Calls that would exceed it
            are left out, except the first and the last.
        active: Alarms that are raised now, by name.
    """

    every: Duration | None = None
    max_share: float | None = None
    active: Mapping[str, Record] = MappingProxyType({})

    def measure(self, progress: Progress) -> Iterable[Record]:
        """Called between rounds, also before the first and after the last. Returns records."""
        return ()

    def on_record(self, record: Record, progress: Progress) -> Iterable[Record]:
        """Called for every record before it is logged, in order. Returns further records, as alarms.

        Raises:
            TrainingFailure: the record shows that training has failed.
        """
        return ()

    def on_log(self, record: Record) -> None:
        """Called for every record after it was logged."""

    def on_restore(self, past: Iterable[Record], progress: Progress) -> None:
        """Called when the game was restored from a checkpoint: forget all records, then take those of the ``past``.

        Args:
            past: The records up to the checkpoint.
            progress: Where the checkpoint is.
        """


class Every(Callback):
    """Calls a function at intervals.

    Args:
        every: Time between two calls.
        function: Takes the progress and returns records.
        max_share: The share of the run's time that the function may take; None for any.
    """

    def __init__(
        self, every: Duration, function: Callable[[Progress], Iterable[Record]], max_share: float | None = None
    ) -> None:
        self.every = every
        self.max_share = max_share
        self.function = function

    def measure(self, progress: Progress) -> Iterable[Record]:
        """The records of the function."""
        return self.function(progress)


class OnLog(Callback):
    """Calls a function for every record after it was logged, for display."""

    def __init__(self, function: Callable[[Record], object]) -> None:
        self.function = function

    def on_log(self, record: Record) -> None:
        """Pass the record on."""
        self.function(record)
