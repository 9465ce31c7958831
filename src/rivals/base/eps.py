"""Radii as text: ``0.3``, ``8/255``."""

from __future__ import annotations

import re

from rivals.base.errors import UserError

_PATTERN = re.compile(r"([\d.eE+-]+?)\s*(?:/\s*([\d.eE+-]+))?")


def parse_eps(text: str, name: str = "eps") -> float:
    """The value of a number or a fraction, 0 or more; ``name`` is what the error calls it.

    Raises:
        UserError: it is neither a number nor a fraction, or negative, or not finite.
    """
    match = _PATTERN.fullmatch(text.strip())
    try:
        value = float(match[1]) / float(match[2] or 1) if match else None
    except (ValueError, ZeroDivisionError):
        value = None
    if value is None or not 0 <= value < float("inf"):
        raise UserError(f"{name} '{text.strip()}' is not a radius: write a number or a fraction, such as 0.03 or 8/255")
    return value


def describe_eps(eps: str, per_feature: bool) -> str:
    """A radius as text; of radii per feature, the largest."""
    return f"per feature, at most {eps}" if per_feature else eps
