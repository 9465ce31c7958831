"""A run as the reports see it: one pass over its records, held in little memory however long it was."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rivals.reports.run import Record, Run

Array = npt.NDArray[np.float64]

BUCKETS = 1000


@dataclass(frozen=True)
class Curve:
    """A value over the run, one entry a bucket: images seen, and the mean, least and greatest value there."""

    images: Array
    mean: Array
    low: Array
    high: Array
    smooth: Array


class History:
    """What a run folder tells: ``about``, sample sheets, alarms, and every recorded number in buckets.

    Buckets are of equal width in images seen. Each time the run outgrows ``BUCKETS`` of them, their width
    doubles and neighbours merge, so that a stream of unknown length stays small and its extremes are kept.
    Values that are not finite numbers are left out; records without a count of images are passed over.
    """

    def __init__(self, run: Run) -> None:
        self.folder = run.folder
        self.about = run.about
        self.sheets: list[Record] = []
        self.alarms: list[Record] = []
        self.images = 0
        self.step = 0
        self.seconds = 0.0
        self._width = 1
        self._series: dict[str, dict[int, list[float]]] = {}  # key -> bucket -> [count, sum, low, high]
        for record in run.records():
            images = number(record.get("images")) if isinstance(record, dict) else None
            if images is not None and images >= 0:
                self._take(int(images), record)

    def _take(self, images: int, record: Record) -> None:
        self.images = max(self.images, images)
        self.step = max(self.step, int(number(record.get("step")) or 0))
        self.seconds = max(self.seconds, number(record.get("seconds")) or 0.0)
        if "alarm" in record:
            self.alarms.append(record)
            return
        if isinstance(record.get("sheet"), str):
            self.sheets.append(record)
        while images // self._width >= BUCKETS:
            self._coarsen()
        index = images // self._width
        for key, value in record.items():
            if key in ("images", "step", "seconds") or (found := number(value)) is None:
                continue
            bucket = self._series.setdefault(key, {}).setdefault(index, [0, 0.0, found, found])
            bucket[0] += 1
            bucket[1] += found
            if found < bucket[2]:
                bucket[2] = found
            elif found > bucket[3]:
                bucket[3] = found

    def _coarsen(self) -> None:
        self._width *= 2
        for key, fine in self._series.items():
            coarse: dict[int, list[float]] = {}
            for index, (count, total, low, high) in fine.items():
                bucket = coarse.setdefault(index // 2, [0, 0.0, low, high])
                bucket[0] += count
                bucket[1] += total
                bucket[2] = min(bucket[2], low)
                bucket[3] = max(bucket[3], high)
            self._series[key] = coarse

    @property
    def keys(self) -> list[str]:
        """The names of all recorded numbers, sorted."""
        return sorted(self._series)

    def curve(self, key: str) -> Curve | None:
        """The value called ``key`` over the run, or None where it was never recorded."""
        if not (series := self._series.get(key)):
            return None
        indices = np.array(sorted(series))
        count, total, low, high = np.array([series[i] for i in indices]).T
        smooth = _smooth(indices, count, total)
        return Curve((indices + 0.5) * self._width, total / count, low, high, smooth)

    def last(self, key: str, share: float = 0.05) -> tuple[float, float, float] | None:
        """Mean, least and greatest value over the last ``share`` of the images, or None if there is none."""
        series = self._series.get(key, {})
        start = int(self.images * (1 - share)) // self._width
        buckets = [bucket for index, bucket in series.items() if index >= start]
        if not buckets:
            return None
        count, total, low, high = zip(*buckets, strict=True)
        return sum(total) / sum(count), min(low), max(high)

    def part(self, key: str) -> dict[str, Any]:
        """The entry of ``run.json`` called ``key`` if it is an object, else an empty one."""
        value = self.about.get(key)
        return value if isinstance(value, dict) else {}

    def equilibrium(self, key: str) -> float | None:
        """The value that ``key`` has at the draw, where the game has one."""
        return number(self.part("equilibrium").get(key))


def number(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _smooth(indices: npt.NDArray[np.int_], count: Array, total: Array) -> Array:
    """Bucket means under a Gaussian window of a hundredth of the run, weighted by each bucket's records."""
    n = int(indices[-1]) + 1
    sigma = n / 100
    radius = math.ceil(3 * sigma)
    window = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    sums = []
    for values in (total, count):
        dense = np.zeros(n)
        dense[indices] = values
        sums.append(np.convolve(dense, window)[radius : radius + n][indices])
    smooth: Array = sums[0] / sums[1]
    return smooth
