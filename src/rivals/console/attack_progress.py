"""The progress of an attack or a certification on the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.progress import ProgressColumn, Task
from rich.text import Text

from rivals.base.run_folder import Record
from rivals.console.bars import ProgressBar, format_clock


class AttackProgress(ProgressBar):
    """Shows how far an evaluation has come. Call it with every record.

    Args:
        n: Number of images.
        count_passes: Returns the number of images that the model has processed so far.
        quiet: Show nothing.
        description: What is done before the first record.
    """

    def __init__(
        self,
        n: int,
        count_passes: Callable[[], int],
        *,
        quiet: bool = False,
        description: str = "looking for gradient masking",
    ) -> None:
        # The count is read at each refresh, so that a long stage is seen to work.
        super().__init__(quiet=quiet, description=description, total=float(n), columns=[_Passes(count_passes)])
        self.n = n
        self._start: tuple[int, float] | None = None  # images and seconds at the first record

    def __call__(self, record: Record) -> None:
        """Show a record with ``n_fooled``, the number of images that are misclassified so far."""
        at = record["images"]
        if self._start is None:
            self._start = (at, record["seconds"])
        gained, spent = at - self._start[0], record["seconds"] - self._start[1]
        left = f"{format_clock(spent / gained * (self.n - at))} left" if gained > 0 and spent > 0 else ""
        stage = record["stage"] + (f" at {record['eps']:.4g}" if record["eps"] else "")
        line = f"{at:>7,} of {self.n:,} images, {record['n_fooled']:,} misclassified  {stage}  {left}"
        if self._progress is not None or self.is_due:
            self.update(at, line)


class _Passes(ProgressColumn):
    """The number of images that the model has processed."""

    def __init__(self, count: Callable[[], int]) -> None:
        super().__init__()
        self.count = count

    def render(self, task: Task) -> Text:
        """The count now."""
        return Text(f"{self.count():,} passes")
