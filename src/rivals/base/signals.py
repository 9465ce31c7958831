"""Ctrl-C, SIGTERM, SIGHUP and SIGUSR1: as a request to stop at the next good point, or as an exception.

Schedulers warn with SIGUSR1 (Slurm's ``--signal=USR1@120``), and often send SIGTERM twice: themselves and through the
launcher. A terminal that closes sends SIGHUP.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
_HANGUP = getattr(signal, "SIGHUP", None)  # which Windows does not have

Handler = Callable[[int, FrameType | None], None]


class _Received:
    """What the contexts below share when they are nested.

    Attributes:
        depth: How many of them are entered.
        signal: Whether a signal has come since the first was: its repeats must not disturb what is saved after it.
    """

    depth = 0
    signal = False


@contextlib.contextmanager
def stop_on_signal(seconds: float = math.inf) -> Iterator[Callable[[], bool]]:
    """Within it a signal only makes the yielded function return True; but after it, Ctrl-C acts as usual.

    Args:
        seconds: After so many the function returns True without a signal.
    """
    stopped, end = False, time.monotonic() + seconds

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        signal.signal(signal.SIGINT, before.get(signal.SIGINT, signal.SIG_DFL))

    with _handling(stop) as before:
        yield lambda: stopped or time.monotonic() > end


@contextlib.contextmanager
def interrupt_on_signal() -> Iterator[None]:
    """Within it the first signal raises ``KeyboardInterrupt``; repeats other than Ctrl-C are ignored.

    Also where the shell had Ctrl-C ignored, as it does for background jobs.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling(interrupt):
        yield


@contextlib.contextmanager
def _handling(handler: Handler) -> Iterator[dict[int, Any]]:
    """Handle the signals with ``handler``, but repeats of signals other than Ctrl-C. Yields the handlers before.

    Does nothing outside of the main thread, which alone receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if number == _HANGUP:
            _drop_closed_terminal()
        repeated, _Received.signal = _Received.signal, True
        if not repeated or number == signal.SIGINT:
            handler(number, frame)

    if not _Received.depth:
        _Received.signal = False
    _Received.depth += 1
    # What ignores SIGHUP was started by nohup, to outlive its terminal.
    handled = [each for each in _SIGNALS if each != _HANGUP or signal.getsignal(each) != signal.SIG_IGN]
    before = {int(number): signal.signal(number, handle) for number in handled}
    try:
        yield before
    finally:
        _Received.depth -= 1
        for number, previous in before.items():
            signal.signal(number, previous)


def _drop_closed_terminal() -> None:
    """Let standard output and error go nowhere if their terminal is gone: each line written there would be an error."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), stream)
