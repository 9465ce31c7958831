"""Lists of seeds in their written form, such as ``3,17,40-50``."""

from __future__ import annotations

import re

from rivals.base.errors import UserError

MAX_SEEDS = 100_000
_PART = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds in their order, each once: numbers and ranges, whose last number belongs to them, with commas between.

    Raises:
        UserError: the text is of another form, a range goes down, or there are too many.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise UserError(f"'{text}' is not a list of seeds: write whole numbers and ranges, such as 3,17,40-50")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"the range '{part.strip()}' of seeds goes down: write {last}-{first}")
        if len(seeds) + last - first >= MAX_SEEDS:
            raise UserError(f"'{text}' names more than {MAX_SEEDS:,} seeds: take fewer at a time")
        seeds += range(first, last + 1)
    return tuple(dict.fromkeys(seeds))
