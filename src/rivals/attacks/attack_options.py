"""Options that an attack does not have are refused by name, with the nearest that it has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar, get_args, get_type_hints

from rivals.base.registry import unknown

P = ParamSpec("P")
R = TypeVar("R")


def checked_options(attack: Callable[P, R]) -> Callable[P, R]:
    """The attack, which raises a :class:`UserError` for an option that it does not have."""

    @functools.wraps(attack)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        inputs, options = _parameters(attack)
        for name in kwargs:
            if name not in inputs and name not in options:
                raise unknown(f"option of {getattr(attack, '__name__', 'the attack')}", name, options)
        return attack(*args, **kwargs)

    return checked


@functools.cache
def _parameters(attack: Callable[..., object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of its inputs and of its options: its own and those of its ``Unpack[...]``."""
    parameters = inspect.signature(attack).parameters.values()
    inputs = tuple(each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD)
    own = tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
    (shared,) = get_args(get_type_hints(attack)["options"])
    return inputs, (*own, *shared.__annotations__)
