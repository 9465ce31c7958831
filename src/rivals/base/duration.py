"""Durations of training: ``2M images``, ``20 epochs``, ``500 steps``, ``4 minutes``, ``2 hours``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rivals.base.errors import UserError

UNITS = ("images", "epochs", "steps", "minutes")
NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?\s*[kM]?)"
_CLOCK = ("seconds", "minutes", "hours")
_MINUTES = {"seconds": 1 / 60, "hours": 60}
_PATTERN = re.compile(rf"\s*{NUMBER}\s*((?i:image|epoch|step|second|minute|hour)s?)\s*")


def parse_number(text: str) -> float:
    """The value of a number that matches ``NUMBER``: ``20``, ``0.5``, ``2e-4``, ``10k``, ``2M``."""
    text = text.strip()
    return float(text.rstrip("kM")) * {"k": 1e3, "M": 1e6}.get(text[-1], 1.0)


def format_number(value: float) -> str:
    """The shortest text that :func:`parse_number` reads back as exactly ``value``."""
    for letter, factor in (("M", 1e6), ("k", 1e3)):
        short = f"{value / factor:.10g}{letter}"
        if value >= factor and len(short) <= 7 and parse_number(short) == value:
            return short
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)


@dataclass(frozen=True)
class Duration:
    """An amount of training, in one of ``images``, ``epochs``, ``steps`` or ``minutes``."""

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str, what: str = "a length of training", units: Sequence[str] = UNITS) -> Duration:
        """Parse ``N UNIT``, with N as in ``20``, ``0.5``, ``10k`` or ``2M``. Seconds and hours become minutes.

        Args:
            text: The text.
            what: What it says, for the error.
            units: Those that it may have.

        Raises:
            UserError: the text is of another form, has another unit, or N is not positive.
        """
        match = _PATTERN.fullmatch(text)
        amount = parse_number(match[1]) if match else math.nan
        unit = match[2].lower().removesuffix("s") + "s" if match else ""
        if unit in _MINUTES:
            amount, unit = amount * _MINUTES[unit], "minutes"
        if unit not in units or not (0 < amount < math.inf):
            example = "2M images" if "images" in units else f"20 {units[0]}"
            *names, last = [name for each in units for name in (_CLOCK if each == "minutes" else (each,))]
            known = f"{', '.join(names)} or {last}" if names else last
            raise UserError(
                f"'{text}' is not {what}: write N {known}, N above 0, with k or M if wanted, as in '{example}'"
            )
        return cls(amount, unit)

    def __str__(self) -> str:
        return f"{format_number(self.amount)} {self.unit}"

    def share(self, images: int, seconds: float) -> float:
        """As :meth:`progress`, of a duration in images or minutes."""
        return self.progress(images=images, epochs=math.nan, steps=0, seconds=seconds)

    def progress(self, *, images: int, epochs: float, steps: int, seconds: float) -> float:
        """Share of the duration that has passed: 0 at the start, 1 or more when it is over."""
        elapsed = {"images": images, "epochs": epochs, "steps": steps, "minutes": seconds / 60}
        return elapsed[self.unit] / self.amount
