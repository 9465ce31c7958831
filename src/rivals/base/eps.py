"""Radii as people write them: ``0.3``, ``8/255``."""

from __future__ import annotations

import re

from rivals.base.errors import UserError

_PATTERN = re.compile(r"([\d.eE+-]+?)\s*(?:/\s*([\d.eE+-]+))?")


def radius(text: str, name: str = "eps") -> float:
    """The value of a radius, 0 or more; ``name`` is what a complaint calls it.

    Raises:
        UserError: it is no number and no fraction, or negative, or not finite.
    """
    match = _PATTERN.fullmatch(text.strip())
    try:
        value = float(match[1]) / float(match[2] or 1) if match else None
    except (ValueError, ZeroDivisionError):
        value = None
    if value is None or not 0 <= value < float("inf"):
        raise UserError(f"{name} '{text.strip()}' is no radius: write a number or a fraction, as 0.03 or 8/255")
    return value
