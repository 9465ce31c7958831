"""Schedules: a value that follows a half-cosine from one number to another over images seen or time passed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rivals.base.duration import NUMBER, Duration, format_number, parse_number
from rivals.base.errors import UserError

UNITS = ("images", "minutes")  # of a length
_PATTERN = re.compile(rf"\s*{NUMBER}\s*(?:->\s*{NUMBER}\s+in\s+(.+))?")


@dataclass(frozen=True)
class Clock:
    """Where a run is: ``images`` seen and ``seconds`` passed, as schedules count it, and a micro-batch of the step."""

    images: int
    seconds: float = 0.0
    micro_batch: int = 0


@dataclass(frozen=True)
class Schedule:
    """A half-cosine from ``start`` to ``end`` over a length, then held (R3GAN, Huang et al. 2024, app. D).

    Written ``2e-4`` (constant), ``2e-4 -> 5e-5 in 20M images`` or ``1e-3 -> 2e-4 in 25 minutes``.
    """

    start: float
    end: float
    length: float = 0.0
    unit: str = "images"
    """Of the length: images or minutes."""

    @classmethod
    def parse(cls, text: str | float | Schedule, units: Sequence[str] = UNITS) -> Schedule:
        """Parse the written form; a number is a constant schedule.

        Args:
            text: The text; a schedule is returned as it is.
            units: Those that the length in the text may have.

        Raises:
            UserError: the text is of another form, or its length has another unit.
        """
        if isinstance(text, Schedule):
            return text
        match = _PATTERN.fullmatch(str(text))
        if match is None:
            raise UserError(
                f"'{text}' is not a schedule: write a number, or START -> END in N {' or '.join(units)}, "
                "as in '2e-4 -> 5e-5 in 20M images'"
            )
        duration = Duration.parse(match[3], f"the length of '{text}'", units) if match[3] else None
        if not math.isfinite(parse_number(match[1])) or not math.isfinite(parse_number(match[2] or "0")):
            raise UserError(f"'{text}' is too large a number: take one that a 64-bit float can hold")
        start = parse_number(match[1])
        return cls(start, parse_number(match[2]), duration.amount, duration.unit) if duration else cls(start, start)

    def __str__(self) -> str:
        if self.start == self.end:
            return format_number(self.start)
        return f"{format_number(self.start)} -> {format_number(self.end)} in {Duration(self.length, self.unit)}"

    @property
    def peak(self) -> float:
        """The largest value it takes."""
        return max(self.start, self.end)

    def at(self, clock: Clock) -> float:
        """The value at a point of a run."""
        passed = clock.images if self.unit == "images" else clock.seconds / 60
        if passed >= self.length:
            return self.end
        # Half a cosine: 1 at the start, 0 at the end, with zero slope at both.
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * passed / self.length))
