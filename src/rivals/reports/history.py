"""The recorded metrics of a run, read in one pass into a bounded number of buckets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rivals.base.errors import UserError
from rivals.base.run_folder import Record, Run
from rivals.base.typed_json import read_json
from rivals.reports.formatting import finite

Array = npt.NDArray[np.float64]

T = TypeVar("T")

BUCKETS = 1000
FIX = "remove it, or restore it from a copy"


@dataclass(frozen=True)
class Curve:
    """A metric over the run, one entry per bucket: images seen, mean, minimum, maximum and smoothed mean."""

    images: Array
    mean: Array
    low: Array
    high: Array
    smooth: Array


class History:
    """A run folder as the reports need it: ``info``, sample grids, alarms, and every recorded metric in buckets.

    Buckets have equal width in images seen. Each time the run outgrows ``BUCKETS`` of them, the width doubles and
    neighbors merge, so that memory is bounded whatever the length and extremes are kept. Values that are not finite
    numbers are left out. What is damaged is left out too, and named by ``problems``.
    """

    def __init__(self, run: Run) -> None:
        self.folder = run.folder
        self.info = run.info
        self.sample_grids: list[Record] = []
        self.alarms: list[Record] = []
        self.images = 0
        self.step = 0
        self.seconds = 0.0
        self._width = 1
        self._series: dict[str, dict[int, list[float]]] = {}  # key -> bucket -> [count, sum, low, high]
        self._n_damaged = 0
        self._unreadable: dict[str, str] = {}  # file -> what is wrong with it
        self._read(run)

    def _read(self, run: Run) -> None:
        for record in run.records():
            self._add(record["images"], record)
        self._n_damaged = run.n_damaged

    def _add(self, images: int, record: Record) -> None:
        self.images = max(self.images, images)
        self.step = max(self.step, record["step"])
        self.seconds = max(self.seconds, record["seconds"])
        if "alarm" in record:
            self.alarms.append(record)
            return
        if "sample_grid" in record:
            self.sample_grids.append(record)
        while images // self._width >= BUCKETS:
            self._coarsen()
        index = images // self._width
        for key, value in record.items():
            if key in ("images", "step", "seconds") or (number := finite(value)) is None:
                continue
            bucket = self._series.setdefault(key, {}).setdefault(index, [0, 0.0, number, number])
            bucket[0] += 1
            bucket[1] += number
            if number < bucket[2]:
                bucket[2] = number
            elif number > bucket[3]:
                bucket[3] = number

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

    def read_part(self, name: str, read: Callable[[Path], T]) -> T | None:
        """What ``read`` makes of a file of the run; None if it is missing, or damaged, which ``problems`` then says."""
        self._unreadable.pop(name, None)
        try:
            return read(self.folder / name)
        except FileNotFoundError:
            return None
        except UserError as error:
            self._unreadable[name] = str(error)
            return None

    def read_json(self, name: str, schema: type[T]) -> T | None:
        """A JSON file of the run as a value of the type ``schema``, as :meth:`read_part` does."""
        return self.read_part(name, lambda path: read_json(path, schema, FIX))

    @property
    def problems(self) -> list[str]:
        """What was left out because it is damaged, up to now."""
        n = self._n_damaged
        lines = f"{n} line{'s' if n > 1 else ''} of '{self.folder / 'metrics.jsonl'}' cannot be read"
        return ([lines] if n else []) + list(self._unreadable.values())

    @property
    def keys(self) -> list[str]:
        """The names of all recorded metrics, sorted."""
        return sorted(self._series)

    def curve(self, key: str) -> Curve | None:
        """The metric ``key`` over the run, or None if it was never recorded."""
        if not (series := self._series.get(key)):
            return None
        indices = np.array(sorted(series))
        count, total, low, high = np.array([series[i] for i in indices]).T
        smooth = _smooth(indices, count, total)
        return Curve((indices + 0.5) * self._width, total / count, low, high, smooth)

    def last(self, key: str, share: float = 0.05) -> tuple[float, float, float] | None:
        """Mean, minimum and maximum over the last ``share`` of the images, or None if there is no value."""
        series = self._series.get(key, {})
        start = int(self.images * (1 - share)) // self._width
        buckets = [bucket for index, bucket in series.items() if index >= start]
        if not buckets:
            return None
        count, total, low, high = zip(*buckets, strict=True)
        return sum(total) / sum(count), min(low), max(high)

    def section(self, key: str) -> Record:
        """The object under ``key`` in ``run.json``, empty if there is none."""
        return get_object(self.info, key)

    def equilibrium(self, key: str) -> float | None:
        """The value of ``key`` at the equilibrium, or None if the loss leaves it open."""
        return finite(self.section("equilibrium").get(key))


def get_object(record: Record, key: str) -> Record:
    """The object under ``key``, empty if there is none."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def get_objects(record: Record, key: str) -> list[Record]:
    """The objects in the list under ``key``."""
    value = record.get(key)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _smooth(indices: npt.NDArray[np.int_], count: Array, total: Array) -> Array:
    """Bucket means under a Gaussian window, sigma a hundredth of the run, weighted by the records of each bucket."""
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
