"""A value with the error it is known to."""

from __future__ import annotations

from typing import NamedTuple


class Estimate(NamedTuple):
    """A value and its standard error, in the same unit; None where it cannot be told."""

    value: float
    error: float | None
