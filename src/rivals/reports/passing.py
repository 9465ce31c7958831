"""A pass over images on the terminal: a live line, or plain lines where there is no terminal. All to standard error."""

from __future__ import annotations

import time

from rivals.reports.terminal import PLAIN_EVERY, Bar, clock


class Passing(Bar):
    """Shows how far a pass has come. Use as a context manager, and call it with what was done.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._next = time.monotonic() + PLAIN_EVERY
        self._what = ""
        self._begun = 0.0

    def __call__(self, what: str, done: int, n: int) -> None:
        """Show that ``done`` of ``n`` images have passed, in the pass called ``what``."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._begun = what, now
        spent = now - self._begun
        left = f"  {clock(spent / done * (n - done))} left" if done and spent > 0 else ""
        line = f"{what}: {done:,} of {n:,} images{left}"
        if self._progress is not None:
            self._progress.update(self._task, completed=done / n, description=line)
        elif now >= self._next:
            self._next = now + PLAIN_EVERY
            self.console.print(line, markup=False)
