"""A progress bar on a terminal, plain lines elsewhere, and the progress of a pass over images."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn

from rivals.base.errors import printable
from rivals.base.files import discard

SECONDS_PER_LINE = 10.0  # between plain lines
MIN_HEIGHT = 16  # lines of a terminal that has room for a picture
SECONDS_PER_UPDATE = 0.2  # between updates of a bar


class _Console(Console):
    """Standard error, which goes quiet when its reader leaves: that is no reason to stop a training."""

    def on_broken_pipe(self) -> None:
        """Print nothing from now on; rich would end the process."""
        self.quiet = True
        discard(sys.stderr)


class _BarWithPicture(Progress):
    """A bar below something else, both redrawn in place."""

    above: RenderableType | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """The picture, if there is one, then the bar."""
        if self.above is not None:
            yield self.above
        yield from super().get_renderables()


class ProgressBar:
    """A bar with a description on a terminal; elsewhere plain lines, some time apart. Use as a context manager.

    Args:
        quiet: Show nothing.
        description: Shown next to the bar until the first update.
        total: Where the bar is full.
        columns: Shown after the description.
    """

    def __init__(
        self, *, quiet: bool, description: str = "starting", total: float = 1.0, columns: Sequence[ProgressColumn] = ()
    ) -> None:
        self.console = _Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._progress: _BarWithPicture | None = None
        self._next_update = 0.0
        if self.console.is_terminal and not quiet:
            shown = (BarColumn(bar_width=20), TextColumn("{task.description}"), *columns)
            self._progress = _BarWithPicture(*shown, console=self.console, transient=True)
            self._task = self._progress.add_task(description, total=total)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def print(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(printable(text), markup=False)

    @property
    def picture_width(self) -> int:
        """Characters in a line of a picture above the bar; 0 where none can be shown."""
        colorful = self.console.color_system not in (None, "standard") and self.console.height >= MIN_HEIGHT
        return self.console.width if self._progress is not None and colorful else 0

    def show_above(self, picture: RenderableType) -> None:
        """Show something above the bar, in the place of what was there."""
        if self._progress is not None:
            self._progress.above = picture

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed since the last update."""
        return time.monotonic() >= self._next_update

    def update(self, completed: float, description: str) -> None:
        """Move the bar, or print the description as a line."""
        if self._progress is None:
            self._next_update = time.monotonic() + SECONDS_PER_LINE
            self.print(description.rstrip())
        else:
            self._next_update = time.monotonic() + SECONDS_PER_UPDATE
            self._progress.update(self._task, completed=completed, description=description)


class PassProgress(ProgressBar):
    """Shows how far a pass over images has come. Call it with every batch.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._next_update = 0.0 if self._progress is not None else time.monotonic() + SECONDS_PER_LINE
        self._name = ""
        self._start = 0.0

    def __call__(self, name: str, done: int, n: int) -> None:
        """Show that ``done`` of ``n`` images have been processed in the pass ``name``."""
        now = time.monotonic()
        if name != self._name:
            self._name, self._start = name, now
        spent = now - self._start
        left = f"  {format_clock(spent / done * (n - done))} left" if done and spent > 0 else ""
        if self._progress is not None or self.is_due:
            self.update(done / n, f"{name}: {done:,} of {n:,} images{left}")


def format_clock(seconds: float) -> str:
    """A duration as ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
