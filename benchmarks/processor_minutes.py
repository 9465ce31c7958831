"""Budgets in minutes of processor time of one thread: other programs on the machine use up a clock's, and not these.

A probe plays rounds of a throw-away game to find out how many images the minutes are; then a side trains on so many.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rivals
from benchmarks.harness import RESULTS
from rivals.api.training.adversarial import HardenJob
from rivals.api.training.gan import GanJob
from rivals.api.training.job import Request, TrainingJob
from rivals.data.imageset import ImageSet
from rivals.recipes import auto_rules

ROUNDS = 64  # of a measurement: whole cycles of lazy penalties, which are due on every eighth round
WARM = 8
LONG = "1M images"  # of a probe, which does not play them: longer than what the minutes buy
BUSY = 1.5  # load average of other programs beside one thread that computes

Facts = dict[str, Any]


class Probe:
    """The speed of a training job's rounds, which are played on a throw-away game.

    Args:
        job: Not run yet.
    """

    def __init__(self, job: TrainingJob[Any]) -> None:
        job.load_data()
        job.resolve_config()
        self.job, self.game, self.batches = job, job.build_game(), job.make_batches()
        self._step = 0
        self._play(WARM)

    def _play(self, rounds: int) -> float:
        start = time.process_time()
        for step in range(self._step, self._step + rounds):
            values = self.game.round(step, self.batches, seed=self.job.seed)
            float(next(iter(values.values())))  # waits for the round
        self._step += rounds
        return time.process_time() - start

    def speed(self) -> float:
        """Images per second of processor time."""
        return ROUNDS * self.game.images_per_round(self.batches) / self._play(ROUNDS)

    def images_in(self, minutes: float) -> int:
        """How many images the job sees in so many minutes."""
        return images_at(self.speed(), minutes, self.batches.batch_size)


def images_at(speed: float, minutes: float, least: int) -> int:
    """Images in so many minutes at so many a second; at least a batch."""
    return max(least, round(60 * minutes * speed))


def gan_job(data: str, seed: int = 0, recipe: str = "auto", **settings: Any) -> GanJob:
    """A job of ``rivals train``, to be probed."""
    return GanJob(Request(data, recipe, None, False, seed, "cpu", True, {"until": LONG, **settings}))


def harden_job(data: str, seed: int = 0, **settings: Any) -> HardenJob:
    """A job of ``rivals harden``, to be probed."""
    return HardenJob(Request(data, None, None, False, seed, "cpu", True, {"until": LONG, **settings}), None)


def fit_auto(data: str, minutes: float, **settings: Any) -> Facts:
    """What the recipe ``auto`` does to fit a run to minutes of a clock, by processor time.

    The widest networks that see enough images for each of their first channels in these minutes.

    Returns:
        Settings to train with: ``generator_widths``, ``discriminator_widths`` and ``until``.
    """
    fitted: Facts = {}
    for channels in auto_rules.LADDER:
        widths = _widths(channels, gan_job(data, **settings))
        images = Probe(gan_job(data, **settings, **widths)).images_in(minutes)
        if fitted and not auto_rules.is_enough(images, channels):
            break
        fitted = {**widths, "until": f"{images} images"}
    return fitted


def _widths(channels: int, job: GanJob) -> Facts:
    job.load_data()
    images: ImageSet = job.images
    return auto_rules.widths(channels, auto_rules.DataFacts(len(images), images.size, images.channels))


def train_gan(data: str, out: Path, seed: int = 0, **settings: Any) -> Facts:
    """``rivals train DATA --recipe auto`` into a run folder. Returns what to record of it."""
    shutil.rmtree(out, ignore_errors=True)  # of a run that was cut short: its minutes are counted from the start
    start = time.process_time()
    run: Any = rivals.train(data, recipe="auto", out=out, seed=seed, device="cpu", quiet=True, **settings)
    config = run.info["config"]
    names = ("generator_widths", "generator_lr", "r1", "fd_r1", "penalty_every", "augment", "conditional", "freeze_d")
    return {
        "images": run.info["images"],
        "processor_minutes": round((time.process_time() - start) / 60, 2),  # with the reading of data, grids, report
        "alarms": [alarm["alarm"] for alarm in run.info["alarms"]],
        "settings": {name: config[name] for name in names},
        "data_hash": run.info["data"]["hash"],
    }


def fd_lite0(subject: Any, real: ImageSet, n: int) -> float:
    """FD-lite0 of n images of a run, or of given ones, against as many real images, or all there are."""
    chosen: Facts = {"metrics": "fd", "extractor": "lite0", "n": n, "n_real": min(n, len(real))}
    out = None if not isinstance(subject, Path) else subject / "score"
    scores = rivals.score(subject, real, out=out, device="cpu", quiet=True, **chosen)
    (value,) = scores.as_dict()["values"]
    return round(float(value["value"]), 4)


def kept(path: Path, make: Callable[[], Facts]) -> Facts:
    """What ``make`` returns, or returned before an interruption: it is kept in a file."""
    if not path.exists():
        facts = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=2))
    found: Facts = json.loads(path.read_text())
    return found


def load_facts(before: float) -> Facts:
    """How busy the machine was, given its load average before: others take caches and memory bandwidth."""
    average = max(before, os.getloadavg()[1])
    return {"load_average": round(average, 1), "busy": average > BUSY}


def pictures(trial: bool, home: Path) -> Path:
    """Where pictures go: to the results, unless minutes are too few for a result."""
    return home if trial else RESULTS
