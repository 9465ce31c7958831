"""Schedules as data: a value that moves from one number to another over a count of images seen."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from rivals.base.errors import UserError
from rivals.base.spans import NUMBER, Span, number, written

_PATTERN = re.compile(rf"\s*{NUMBER}\s*(?:->\s*{NUMBER}\s+in\s+(.+))?")


@dataclass(frozen=True)
class Schedule:
    """A half-cosine from ``start`` to ``end`` over ``images`` images, then held (R3GAN, Huang et al. 2024, app. D).

    Written ``2e-4`` (constant) or ``2e-4 -> 5e-5 in 20M images``.
    """

    start: float
    end: float
    images: float = 0.0

    @classmethod
    def parse(cls, text: str | float | Schedule) -> Schedule:
        """Read the written form; a number is a constant schedule.

        Raises:
            UserError: the text is of another form.
        """
        if isinstance(text, Schedule):
            return text
        match = _PATTERN.fullmatch(str(text))
        span = Span.parse(match[3]) if match and match[3] else None
        if match is None or (span and span.unit != "images"):
            raise UserError(
                f"'{text}' is not a schedule: write a number, or START -> END in N images, "
                "as in '2e-4 -> 5e-5 in 20M images'"
            )
        if not math.isfinite(number(match[1])) or not math.isfinite(number(match[2] or "0")):
            raise UserError(f"'{text}' is too large a number: take one that a 64-bit float can hold")
        start = number(match[1])
        return cls(start, number(match[2]), span.amount) if span else cls(start, start)

    def __str__(self) -> str:
        if self.start == self.end:
            return written(self.start)
        return f"{written(self.start)} -> {written(self.end)} in {Span(self.images, 'images')}"

    @property
    def peak(self) -> float:
        """The largest value it takes."""
        return max(self.start, self.end)

    def at(self, images: int) -> float:
        """The value when ``images`` images have been seen."""
        if images >= self.images:
            return self.end
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * images / self.images))
