"""Accuracy under common corruptions, and the mean corruption error (Hendrycks & Dietterich 2019, sec. 4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rivals.base.run_folder import Record
from rivals.metrics.proportion import Proportion

# AlexNet's top-1 errors on ImageNet-C, by which theirs are divided: means over severities.
ALEXNET = {
    **{"gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640, "defocus_blur": 0.819880},
    **{"glass_blur": 0.826268, "motion_blur": 0.785948, "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572},
    **{"fog": 0.819324, "brightness": 0.564592, "contrast": 0.853204, "elastic_transform": 0.646056},
    **{"pixelate": 0.717840, "jpeg_compression": 0.606500},
}


@dataclass(frozen=True)
class CorruptionRobustness:
    """The result of an evaluation under corruptions. ``print`` it, or take :meth:`as_dict`.

    Attributes:
        clean: Clean accuracy, or None if the images came corrupted.
        accuracies: By kind, the accuracy at each severity, from 1 on.
        relative: Whether errors are divided by AlexNet's, as on ImageNet-C: for models of 1,000 classes.
        notes: What the reader should know.
        protocol: How the numbers were made.
        seconds: Time spent.
        run: The run folder, if there is one.
    """

    clean: Proportion | None
    accuracies: Mapping[str, tuple[Proportion, ...]]
    relative: bool
    notes: Sequence[str]
    protocol: Mapping[str, Any]
    seconds: float
    run: str | None = None

    @property
    def accuracy(self) -> float:
        """The mean over kinds and severities, RobustBench's number for corruptions."""
        return fmean(each.value for severities in self.accuracies.values() for each in severities)

    @property
    def mce(self) -> float:
        """The mean corruption error: the mean over kinds of the mean error over severities; see ``relative``."""
        errors = {kind: 1 - fmean(each.value for each in found) for kind, found in self.accuracies.items()}
        return fmean(error / (ALEXNET[kind] if self.relative else 1) for kind, error in errors.items())

    def as_dict(self) -> Record:
        """As plain values, as ``--json`` prints them and ``run.json`` stores them."""
        return {
            "clean": None if self.clean is None else self.clean.as_dict(),
            "accuracy": self.accuracy,
            "mce": self.mce,
            "mce_relative_to_alexnet": self.relative,
            "corruptions": [
                {"corruption": kind, "severities": [each.as_dict() for each in found]}
                for kind, found in self.accuracies.items()
            ],
            "notes": list(self.notes),
            "protocol": dict(self.protocol),
            "seconds": round(self.seconds, 3),
            **({} if self.run is None else {"run": self.run}),
        }

    def __str__(self) -> str:
        n = next(iter(self.accuracies.values()))[0].of
        lines = [f"{len(self.accuracies)} corruptions, 5 severities, {n:,} images each"]
        if self.clean is not None:
            lines.append(f"clean accuracy      {self.clean}")
        lines.append(f"corrupted accuracy  {100 * self.accuracy:.1f}%, the mean over kinds and severities")
        against = "relative to AlexNet's" if self.relative else "not divided by a baseline's"
        lines.append(f"mCE                 {100 * self.mce:.1f}%, {against}")
        for kind, found in self.accuracies.items():
            lines.append(f"  {kind:<18}" + "".join(f"{100 * each.value:7.1f}%" for each in found))
        lines += [f"note                {note}" for note in self.notes]
        return "\n".join(lines if self.run is None else [*lines, f"run                 {self.run}"])
