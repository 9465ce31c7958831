"""How processes find each other: the variables that ``torchrun``, or another launcher, sets for each of them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import timedelta

from rivals.base.errors import UserError
from rivals.base.process_group import ALONE, ProcessGroup
from rivals.base.torch_process_group import TorchProcessGroup

TIMEOUT = 1800.0  # seconds that a process waits for the others


def environment_rank() -> int:
    """The rank that ``torchrun`` gave to this process; 0 without it, whatever else may have set ``RANK``."""
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdecimal() and os.environ.get("WORLD_SIZE", "1") != "1" else 0


def environment_size() -> int:
    """How many processes ``torchrun`` started; 1 without it.

    Raises:
        UserError: ``WORLD_SIZE`` is no number.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 1:
        raise UserError(f"WORLD_SIZE is '{size}', which is no number of processes: unset it, or use torchrun")
    return int(size)


_acts_alone: ContextVar[bool] = ContextVar("acts_alone", default=False)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process is the only one: what it calls must not wait for the others."""
    token = _acts_alone.set(True)
    try:
        yield
    finally:
        _acts_alone.reset(token)


def current() -> ProcessGroup:
    """The processes that ``torchrun`` or another launcher started with this one, or this one alone.

    Raises:
        ProcessLost: the others cannot be reached.
        UserError: ``RIVALS_TIMEOUT`` is no time, or the variables of the launcher do not let the processes meet.
    """
    return ALONE if _acts_alone.get() else _started()


def tell_others(error: Exception) -> None:
    """Tell the other processes, if they have met, the error by which this one ends."""
    if _started.cache_info().currsize:
        _started().tell(error)


@functools.cache
def _started() -> ProcessGroup:
    size = environment_size()
    if size == 1:
        return ALONE
    written = os.environ.get("RIVALS_TIMEOUT", str(TIMEOUT))
    try:
        timeout = timedelta(seconds=float(written))
    except (ValueError, OverflowError):
        raise UserError(f"RIVALS_TIMEOUT is '{written}', which is no time: give seconds, such as 600") from None
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise UserError(f"WORLD_SIZE is {size}, and {name} is not set: start the processes with torchrun")
    rank, port = os.environ["RANK"], os.environ["MASTER_PORT"]
    if not rank.isdecimal() or int(rank) >= size:
        raise UserError(f"RANK is '{rank}', which is not one of {size} processes: start them with torchrun")
    if not port.isdecimal() or not 0 < int(port) < 2**16:  # at port 0 each would wait for ever at one of its own
        raise UserError(f"the processes cannot meet at port {port}: start torchrun with --standalone, or another port")
    group = TorchProcessGroup(environment_rank(), size, timeout)
    atexit.register(group.leave)
    return group
