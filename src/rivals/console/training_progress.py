"""The progress of a training run on the terminal."""

from __future__ import annotations

from collections.abc import Callable

from rivals.base.duration import Duration
from rivals.base.run_folder import Record
from rivals.console.bars import ProgressBar, format_clock
from rivals.console.picture import Images, strip

MAX_WIDTH = 100  # of the strip of samples
SHORT_NAMES = {"loss/discriminator": "L_D", "loss/generator": "L_G", "loss/classifier": "loss"}


class TrainingProgress(ProgressBar):
    """Shows how far a run has come. Call it with every record.

    Args:
        until: Length of the run.
        epoch: Images per epoch.
        samples: Returns the latest generated images, uint8 (N, C, H, W), or None; shown above the bar.
        quiet: Show nothing.
    """

    def __init__(
        self,
        until: Duration,
        epoch: int,
        *,
        samples: Callable[[], Images | None] = lambda: None,
        quiet: bool = False,
    ) -> None:
        super().__init__(quiet=quiet)
        self.samples = samples
        self.until = until
        self.epoch = epoch
        self._start: tuple[float, float] | None = None  # progress and seconds at the first update

    def __call__(self, record: Record) -> None:
        """Show a record: those of steps now and then, alarms and other messages at once."""
        if "message" in record:
            self.print(f"{record['images']:>9,} images  {record['message']}")
            if record.get("remedy"):
                self.print(f"{'':>17} {record['remedy']}")
        elif "sample_grid" in record and self.picture_width and (samples := self.samples()) is not None:
            self.show_above(strip(samples, min(self.picture_width, MAX_WIDTH)))
        elif "images_per_second" in record and self.is_due:
            done = self._done(record)
            self.update(done, self._line(record, done))

    def _done(self, record: Record) -> float:
        """Progress as a fraction of the run."""
        images = record["images"]
        return self.until.progress(
            images=images, epochs=images / self.epoch, steps=record["step"], seconds=record["seconds"]
        )

    def _line(self, record: Record, done: float) -> str:
        if self._start is None:
            self._start = (done, record["seconds"])
        gained, spent = done - self._start[0], record["seconds"] - self._start[1]
        left = f"{format_clock(spent / gained * max(0, 1 - done))} left" if gained > 0 else ""
        speed = f"{record['images_per_second']:,.0f}/s" if record.get("images_per_second") else ""
        outputs = f"D {record['d_real']:.2f}/{record['d_fake']:.2f}" if "d_real" in record else ""
        if "accuracy" in record:
            outputs = f"acc {record['accuracy']:.0%}"
        losses = "  ".join(
            f"{SHORT_NAMES.get(key, key.partition('/')[2])} {value:<5.3f}"
            for key, value in record.items()
            if key.startswith("loss/") and key.count("/") == 1
        )
        # 70 columns, which fit into 80 together with the bar.
        return f"{min(done, 1):4.0%} {record['images']:>10,} img {speed:>8}  {losses:<20} {outputs:<13} {left}"
