"""A run on the terminal: a live line, or plain lines where there is no terminal. Everything goes to standard error."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn

from rivals.base.spans import Span

Record = dict[str, Any]
SHORT = {"loss/discriminator": "L_D", "loss/generator": "L_G", "loss/classifier": "loss"}
PLAIN_EVERY = 10.0  # seconds between plain lines
LIVE_EVERY = 0.2  # seconds between changes of the live line


class Bar:
    """A live line with a bar on a terminal; elsewhere no bar, and words are plain lines. Use as a context manager.

    Args:
        quiet: Show nothing.
        first: What stands beside the bar at first.
        total: Where the bar is full.
        columns: What stands after the words.
    """

    def __init__(
        self, *, quiet: bool, first: str = "starting", total: float = 1.0, columns: Sequence[ProgressColumn] = ()
    ) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        if self.console.is_terminal and not quiet:
            shown = (BarColumn(bar_width=20), TextColumn("{task.description}"), *columns)
            self._progress = Progress(*shown, console=self.console, transient=True)
            self._task = self._progress.add_task(first, total=total)

    def __enter__(self) -> Self:
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


class Live(Bar):
    """Shows how a run comes along. Use as a context manager, and call it with every record.

    Args:
        until: The length of the run.
        epoch: Images an epoch.
        quiet: Show nothing.
    """

    def __init__(self, until: Span, epoch: int, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self.until = until
        self.epoch = epoch
        self._next = 0.0
        self._begun: tuple[float, float] | None = None

    def __call__(self, record: Record) -> None:
        """Show a record: a batch's now and then, alarms and other words at once."""
        if "says" in record:
            self.console.print(f"{record['images']:>9,} images  {record['says']}", markup=False)
            if record.get("remedy"):
                self.console.print(f"{'':>17} {record['remedy']}", markup=False)
        elif "images_per_second" in record and time.monotonic() >= self._next:
            done = self._done(record)
            if self._progress is None:
                self._next = time.monotonic() + PLAIN_EVERY
                self.console.print(self._line(record, done), markup=False)
            else:
                self._next = time.monotonic() + LIVE_EVERY
                self._progress.update(self._task, completed=done, description=self._line(record, done))

    def _done(self, record: Record) -> float:
        images = record["images"]
        return self.until.progress(
            images=images, epochs=images / self.epoch, steps=record["step"], seconds=record["seconds"]
        )

    def _line(self, record: Record, done: float) -> str:
        if self._begun is None:
            self._begun = (done, record["seconds"])
        gained, spent = done - self._begun[0], record["seconds"] - self._begun[1]
        left = f"{clock(spent / gained * max(0, 1 - done))} left" if gained > 0 else ""
        pace = f"{record['images_per_second']:,.0f}/s" if record.get("images_per_second") else ""
        answers = f"D {record['d_real']:.2f}/{record['d_fake']:.2f}" if "d_real" in record else ""
        if "accuracy" in record:
            answers = f"right {record['accuracy']:.0%}"
        losses = "  ".join(
            f"{SHORT.get(key, key.partition('/')[2])} {value:<5.3f}"
            for key, value in record.items()
            if key.startswith("loss/") and key.count("/") == 1
        )
        # 70 columns, which with the bar fit into 80.
        return f"{min(done, 1):4.0%} {record['images']:>10,} img {pace:>8}  {losses:<20} {answers:<13} {left}"


def clock(seconds: float) -> str:
    """A time left, as ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
