"""Whether a model gets images under noise, which are in no range."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_under_noise: ContextVar[bool] = ContextVar("under_noise", default=False)


@contextlib.contextmanager
def images_under_noise() -> Iterator[None]:
    """Inside, a model of this thread gets images with noise, which may reach far out of their range."""
    token = _under_noise.set(True)
    try:
        yield
    finally:
        _under_noise.reset(token)


def under_noise() -> bool:
    """Whether images are those of :func:`images_under_noise`."""
    return _under_noise.get()
