"""A pass over images on the terminal: a live line, or plain lines where there is no terminal. All to standard error."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rivals.reports.terminal import PLAIN_EVERY, clock


class Passing:
    """Shows how far a pass has come. Use as a context manager, and call it with what was done.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._next = time.monotonic() + PLAIN_EVERY
        self._what = ""
        self._begun = 0.0
        self._progress: Progress | None = None
        if self.console.is_terminal and not quiet:
            columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
            self._progress = Progress(*columns, console=self.console, transient=True)
            self._task = self._progress.add_task("starting", total=1.0)

    def __enter__(self) -> Passing:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def say(self, text: str) -> None:
        """Show a line of words at once."""
        self.console.print(text, markup=False)

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
