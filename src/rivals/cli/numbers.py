"""Numbers on the command line, alone or several, checked where they are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, get_args

from tyro.constructors import PrimitiveConstructorSpec

from rivals.base.errors import UserError
from rivals.recipes.base import flag

MOST = 2**63 - 1  # an integer of 64 bits, which is what tensors and files of ours hold
SHOWN = 40  # characters of a wrong word


def number_rule(name: str, kind: Any) -> PrimitiveConstructorSpec[Any] | None:
    """How tyro reads and shows a flag of this name, if ``kind`` is a number, an optional one or a tuple of numbers."""
    number = next((each for each in (kind, *get_args(kind)) if each in (int, float)), None)
    if number is None or not {kind, *get_args(kind)} <= {kind, number, NoneType, Ellipsis}:
        return None
    several = Ellipsis in get_args(kind)
    optional = NoneType in get_args(kind)

    def read(words: list[str]) -> Any:
        if several:
            return tuple(_read(flag(name), number, word) for word in words)
        return None if optional and words == ["None"] else _read(flag(name), number, words[0])

    metavar = number.__name__.upper()
    return PrimitiveConstructorSpec(
        nargs="*" if several else 1,
        metavar=f"[{metavar} [{metavar} ...]]" if several else metavar,
        instance_from_str=read,
        is_instance=lambda value: True,  # our own defaults
        str_from_instance=_words,
    )


def _read(title: str, number: Callable[[str], int | float], word: str) -> int | float:
    shown = word if len(word) <= SHOWN else f"{word[:SHOWN]}..."
    what, example = ("a whole number", "8") if number is int else ("a number", "0.5")
    try:
        value = number(word)
    except ValueError:
        if len(word) <= SHOWN or not word.lstrip("+-").isdecimal():  # else Python's limit on digits
            raise UserError(f"{title} '{shown}' is not {what}: write one such as {example}") from None
        value = math.inf
    if not -MOST <= value <= MOST and (number is int or not math.isfinite(value)):  # the former is so for NaN too
        raise UserError(f"{title} '{shown}' cannot be used: write {what} that fits into 64 bits, such as {example}")
    return value


def _words(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, Sequence) else [str(value)]
