"""Options that an attack does not have are refused by name, with the nearest that it has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, get_args, get_type_hints

from rivals.base.errors import UserError
from rivals.base.norm_balls import Ball
from rivals.base.registry import unknown

P = ParamSpec("P")
R = TypeVar("R")


def checked_options(attack: Callable[P, R]) -> Callable[P, R]:
    """The attack, which raises a :class:`UserError` for an option that it does not have, and takes a ``mask``.

    ``mask``, for every attack with a ball, is a bool tensor that broadcasts with one image, such as (H, W) or (C, 1,
    1), or (T, 1, 1) for the frames of a video: the image changes only where it is True. It is a part of the ball, so
    ``mask=mask`` is short for ``ball.masked(mask)``.
    """

    @functools.wraps(attack)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        inputs, options = _parameters(attack)
        known = (*options, "mask") if "ball" in inputs else options
        for name in kwargs:
            if name not in inputs and name not in known:
                raise unknown(f"option of {getattr(attack, '__name__', 'the attack')}", name, known)
        if "ball" not in inputs or kwargs.get("mask") is None:
            kwargs.pop("mask", None)
            return attack(*args, **kwargs)
        given: dict[str, Any] = {**dict(zip(inputs, args, strict=False)), **kwargs}
        mask, ball = given.pop("mask"), given.get("ball")
        if not isinstance(ball, Ball):
            raise UserError(f"the ball is a {type(ball).__name__}: give Linf(8 / 255), L2(0.5), L1(12.0) or L0(10)")
        by_name: Callable[..., R] = attack
        return by_name(**{**given, "ball": ball.masked(mask)})

    return checked


@functools.cache
def _parameters(attack: Callable[..., object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of its inputs and of its options: its own and those of its ``Unpack[...]``."""
    parameters = inspect.signature(attack).parameters.values()
    inputs = tuple(each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD)
    own = tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
    (shared,) = get_args(get_type_hints(attack)["options"])
    return inputs, (*own, *shared.__annotations__)
