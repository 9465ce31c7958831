"""How long: ``2M images``, ``20 epochs``, ``500 steps``, ``4 minutes``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from rivals.base.errors import UserError

UNITS = ("images", "epochs", "steps", "minutes")
NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?\s*[kM]?)"
_PATTERN = re.compile(rf"\s*{NUMBER}\s*((?i:image|epoch|step|minute)s?)\s*")


def number(text: str) -> float:
    """The value of a number that matches ``NUMBER``: ``20``, ``0.5``, ``2e-4``, ``10k``, ``2M``."""
    text = text.strip()
    return float(text.rstrip("kM")) * {"k": 1e3, "M": 1e6}.get(text[-1], 1.0)


def written(value: float) -> str:
    """The shortest writing of ``value`` that :func:`number` reads back to the same value."""
    for letter, factor in (("M", 1e6), ("k", 1e3)):
        short = f"{value / factor:.10g}{letter}"
        if value >= factor and len(short) <= 7 and number(short) == value:
            return short
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)


@dataclass(frozen=True)
class Span:
    """An amount of training, in one of ``images``, ``epochs``, ``steps`` or ``minutes``."""

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Span:
        """Read ``N UNIT``, with N as in ``20``, ``0.5``, ``10k`` or ``2M``.

        Raises:
            UserError: the text is of another form, or N is not positive.
        """
        match = _PATTERN.fullmatch(text)
        amount = number(match[1]) if match else math.nan
        if match is None or not (0 < amount < math.inf):
            raise UserError(
                f"'{text}' is not a length of training: write N images, N epochs, N steps or N minutes, "
                "N above 0, with k or M if wanted, as in '2M images'"
            )
        return cls(amount, match[2].lower().removesuffix("s") + "s")

    def __str__(self) -> str:
        return f"{written(self.amount)} {self.unit}"

    def progress(self, *, images: int, epochs: float, steps: int, seconds: float) -> float:
        """How far a run has come along this span: 0 at its start, 1 and more when it is done."""
        come = {"images": images, "epochs": epochs, "steps": steps, "minutes": seconds / 60}
        return come[self.unit] / self.amount
