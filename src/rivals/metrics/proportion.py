"""A proportion with its confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rivals.base.run_folder import Record

Z95 = 1.959963984540054  # the 97.5% quantile of the normal distribution


@dataclass(frozen=True)
class Proportion:
    """``count`` of ``of``, with the 95% interval of Wilson (1927), which also holds for small counts and for 0."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """``count / of``; NaN if ``of`` is 0."""
        return self.count / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """``(p + z^2/2n ± z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2/n)``, z = 1.96; (0, 1) if ``of`` is 0."""
        if not self.of:
            return 0.0, 1.0
        n, p, z2 = self.of, self.value, Z95**2
        center = p + z2 / (2 * n)
        half_width = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        # At p = 0 and p = 1 one end is exactly 0 or 1, but for rounding.
        low = (center - half_width) / (1 + z2 / n) if self.count else 0.0
        return low, (center + half_width) / (1 + z2 / n) if self.count < n else 1.0

    def as_dict(self) -> Record:
        """As plain values; ``value`` is None if ``of`` is 0."""
        low, high = self.interval
        value = self.value if self.of else None
        return {"value": value, "low": low, "high": high, "count": self.count, "of": self.of}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f}% ({100 * low:.1f} to {100 * high:.1f})" if self.of else "–"
