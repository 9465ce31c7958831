"""Notes of how far a long piece of work is: after a few seconds, then ever more seldom."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST, LONGEST = 5.0, 60.0  # seconds to the first note, and at most between two


class ProgressNotes:
    """Calls ``on_note`` with where some work is.

    Args:
        on_note: Receives the notes.
        what: The text, in which ``{done}`` is replaced.
        total: All that is to be done.
        done: What was done before.
    """

    def __init__(self, on_note: Callable[[str], None], what: str, total: int, done: int = 0) -> None:
        self.on_note, self.what, self.total, self.before = on_note, what, total, done
        self.start = time.monotonic()
        self.wait, self.due = FIRST, self.start + FIRST

    def show(self, done: int) -> None:
        """Called often, with what is done by now."""
        now = time.monotonic()
        if now < self.due or done >= self.total:
            return
        speed = (done - self.before) / (now - self.start)
        left = f", {_duration((self.total - done) / speed)} left" if speed else ""
        self.on_note(f"{self.what.replace('{done}', f'{done:,}')} ({speed:,.0f} a second{left})")
        self.wait = min(2 * self.wait, LONGEST)
        self.due = now + self.wait


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
