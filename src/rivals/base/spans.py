"""How long: ``2M images``, ``20 epochs``, ``500 steps``, ``4 minutes``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from rivals.base.errors import UserError

UNITS = ("images", "epochs", "steps", "minutes")
_PATTERN = re.compile(r"\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*([kM]?)\s*([A-Za-z]+)\s*")


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
        try:
            number, factor, unit = match.groups() if match else ("", "", "")
            amount = float(number) * {"": 1, "k": 1e3, "M": 1e6}[factor]
        except ValueError:
            amount, unit = math.nan, ""
        unit = unit.lower() if unit.lower().endswith("s") else f"{unit.lower()}s"
        if unit not in UNITS or not (0 < amount < math.inf):
            raise UserError(
                f"'{text}' is not a length of training: write N images, N epochs, N steps or N minutes, "
                "N above 0, with k or M if wanted, as in '2M images'"
            )
        return cls(amount, unit)

    def __str__(self) -> str:
        for letter, factor in (("M", 1e6), ("k", 1e3)):
            if self.amount >= factor and (self.amount / (factor / 1000)).is_integer():
                return f"{self.amount / factor:.10g}{letter} {self.unit}"
        return f"{self.amount:.10g} {self.unit}"

    def progress(self, *, images: int, epochs: float, steps: int, seconds: float) -> float:
        """How far a run has come along this span: 0 at its start, 1 and more when it is done."""
        come = {"images": images, "epochs": epochs, "steps": steps, "minutes": seconds / 60}
        return come[self.unit] / self.amount
