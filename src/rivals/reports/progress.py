"""An evaluation on the terminal: a live line, or plain lines where there is no terminal. All to standard error."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.progress import ProgressColumn, Task
from rich.text import Text

from rivals.reports.run import Record
from rivals.reports.terminal import PLAIN_EVERY, Bar, clock


class LiveAttack(Bar):
    """Shows how an evaluation comes along. Use as a context manager, and call it with every step's record.

    Args:
        n: How many images there are.
        passes: Tells how many images the model has been asked about so far.
        quiet: Show nothing.
        first: What is done before the first step.
    """

    def __init__(
        self, n: int, passes: Callable[[], int], *, quiet: bool = False, first: str = "looking for masked gradients"
    ) -> None:
        # The count of passes is read anew at each refresh, so that a long part is seen to be at work.
        super().__init__(quiet=quiet, first=first, total=float(n), columns=[_Passes(passes)])
        self.n = n
        self._next = 0.0
        self._begun: tuple[int, float] | None = None

    def __call__(self, record: Record) -> None:
        """Show a step's record, with ``fallen``, how many images have fallen so far."""
        at = record["images"]
        if self._begun is None:
            self._begun = (at, record["seconds"])
        gained, spent = at - self._begun[0], record["seconds"] - self._begun[1]
        left = f"{clock(spent / gained * (self.n - at))} left" if gained > 0 and spent > 0 else ""
        place = f"{at:>7,} of {self.n:,} images, {record['fallen']:,} fallen"
        part = record["part"] + (f" at {record['eps']:.4g}" if record["eps"] else "")
        line = f"{place}  {part}  {left}"
        if self._progress is not None:
            self._progress.update(self._task, completed=at, description=line)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_EVERY
            self.console.print(line.rstrip(), markup=False)


class _Passes(ProgressColumn):
    """How many images the model has been asked about."""

    def __init__(self, passes: Callable[[], int]) -> None:
        super().__init__()
        self.passes = passes

    def render(self, task: Task) -> Text:
        """The count now."""
        return Text(f"{self.passes():,} passes")
