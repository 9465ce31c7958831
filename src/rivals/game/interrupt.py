"""Ctrl-C and SIGTERM as a polite request: the loop finishes its round, saves and leaves."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Within it, the first Ctrl-C or SIGTERM only makes the yielded function say True; a second one acts as usual."""
    asked = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: asked  # only the main thread may listen to signals
        return

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        restore()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield lambda: asked
    finally:
        restore()
