"""The training loop: rounds, callbacks, checkpoints, rollback."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from rivals.base import rng
from rivals.base.duration import Duration
from rivals.base.process_group import ALONE, ProcessGroup
from rivals.base.run_folder import Record
from rivals.game.callbacks import Callback, Progress
from rivals.game.checkpoint import Checkpoints
from rivals.game.game import Batches, Game, Values
from rivals.game.metric_buffer import MetricBuffer, NonFinite, TrainingFailure

MAX_ROLLBACKS = 8


class MetricLog(Protocol):
    """Stores the records of a run, as :class:`rivals.Run` in ``metrics.jsonl``."""

    def append(self, records: Iterable[Record]) -> None: ...
    def rewind(self, step: int) -> None:
        """Drop the records of later steps."""

    def records(self) -> Iterable[Record]: ...


@dataclass(frozen=True)
class Saving:
    """Where and how often the state of the game is saved, and when it is restored.

    Attributes:
        checkpoints: Where.
        every: Time between checkpoints.
        resume: Continue from the newest checkpoint, exactly as if the run had never stopped.
        rollback: After a training failure go back to the last good checkpoint with halved learning rates, instead of
            stopping.
    """

    checkpoints: Checkpoints
    every: Duration
    resume: bool = False
    rollback: bool = False


def play(
    game: Game,
    batches: Batches,
    *,
    until: Duration | str,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    log: MetricLog | None = None,
    saving: Saving | None = None,
    stop: Callable[[], bool] = lambda: False,
    processes: ProcessGroup = ALONE,
) -> Progress:
    """Play rounds of ``game`` on ``batches`` until ``until`` or until ``stop()``.

    Several processes play every round together; the first alone records, measures and saves.

    Args:
        game: The players and their turns.
        batches: The real images.
        until: Length of the run, counted from its very start, such as ``2M images``.
        seed: Seed of everything random, together with the step and the micro-batch.
        callbacks: Called in this order, between rounds and for every record.
        log: Stores the records.
        saving: Checkpoints; none are written without it.
        stop: Called after each round; once it returns True in a process, the state is saved and the loop ends.
        processes: Those that play the game.

    Returns:
        Where the run ended.

    Raises:
        TrainingFailure: a loss, penalty, gradient or weight is not finite, or a callback found that training failed;
            the last checkpoint is a good one.
        ProcessLost: another process died or cannot be reached.
    """
    end = Duration.parse(until) if isinstance(until, str) else until
    run = _Run(game, batches, callbacks, log, saving, stop, processes)
    fresh = not (saving is not None and saving.resume and run.restore())
    rollbacks = 0
    with rng.fork(game.device):  # leaves the caller's random state as it was
        while True:
            try:
                progress = run.lead(run.begin if fresh else lambda progress: None)
                while progress.fraction(end) < 1 and not run.stopped:
                    values = run.round(seed, progress.seconds)
                    progress = run.lead(partial(run.conclude, values, progress, end))
                return run.lead(run.finish)
            except TrainingFailure as error:
                if saving is not None and processes.first:
                    saving.checkpoints.drop_end()  # the run returns to where one that was never stopped does
                rollbacks += 1
                if saving is None or not saving.rollback or rollbacks > MAX_ROLLBACKS:
                    raise
                fresh = not run.roll_back(error) and fresh


def _is_finite(values: Tensor) -> bool:
    """Whether all are finite: if one is not, it is the least or the largest (NaN is both)."""
    if not (values.is_floating_point() and values.numel()):
        return True
    return all(math.isfinite(float(extreme)) for extreme in torch.aminmax(values))


class _Cost:
    """The seconds that a callback has taken in this process."""

    def __init__(self) -> None:
        self.total = self.last = 0.0

    def add(self, seconds: float) -> None:
        self.total, self.last = self.total + seconds, seconds

    def allows(self, share: float | None, seconds: float) -> bool:
        """Whether another call, as long as the last one, stays within a share of the run's time so far."""
        return share is None or self.total + self.last <= share * seconds


class _Run:
    """The state of the loop: its step, its records under way, and where both are stored."""

    def __init__(
        self,
        game: Game,
        batches: Batches,
        callbacks: Sequence[Callback],
        log: MetricLog | None,
        saving: Saving | None,
        stop: Callable[[], bool],
        processes: ProcessGroup,
    ) -> None:
        self.game = game
        self.batches = batches
        self.callbacks = callbacks if processes.first else ()
        self.log = log if processes.first else None
        self.saving = saving
        self.stop = stop
        self.processes = processes
        self.step = 0
        self.stopped = False
        self.buffer = MetricBuffer()
        self.costs: dict[Callback, _Cost] = {}

    def progress(self) -> Progress:
        images = self.step * self.game.images_per_round(self.batches)
        return Progress(self.step, images, images / self.batches.n, self.buffer.seconds)

    def lead(self, act: Callable[[Progress], None]) -> Progress:
        """Let the first process ``act``. Returns where all of them are, by its clock.

        Raises:
            TrainingFailure: in all processes, if ``act`` raises it.
        """
        progress, failure, error = self.progress(), None, None
        if self.processes.first:
            try:
                act(progress)
            except TrainingFailure as caught:
                failure = caught
            except Exception as caught:
                error = caught
        seconds = progress.seconds if self.processes.first else 0.0
        seconds, stopped, failed = self.processes.agree(seconds, self.stop(), failure is not None, error=error)
        if failed:
            raise failure or TrainingFailure("training failed, as the first process says")
        self.stopped = bool(stopped)
        return replace(progress, seconds=seconds)

    def round(self, seed: int, seconds: float) -> Values:
        """Play one round, with all processes. Returns the values to record."""
        values = self.game.round(self.step, self.batches, seed=seed, seconds=seconds, processes=self.processes)
        self.step += 1
        return values

    def begin(self, progress: Progress) -> None:
        """Measure and save the initial state."""
        self.measure(progress)
        self.save()

    def conclude(self, values: Values, before: Progress, end: Duration, progress: Progress) -> None:
        """Record the values of a round that have arrived on the host; measure and save what is due."""
        self.buffer.add(self.step, progress.images, values)
        self.record(self.buffer.arrived())
        self.measure(progress, since=before if progress.fraction(end) < 1 else None)
        if self.saving is not None and progress.passed(self.saving.every, before):
            self.save()

    def record(self, records: Iterable[Record]) -> None:
        """Pass records through the callbacks and into the log."""
        progress, logged = self.progress(), []
        for record in records:
            logged.append(record)
            for callback in self.callbacks:
                logged += callback.on_record(record, progress)
        if self.log is not None:
            self.log.append(logged)
        for record in logged:
            for callback in self.callbacks:
                callback.on_log(record)

    def measure(self, progress: Progress, since: Progress | None = None) -> None:
        """Call the callbacks that became due since ``since``, or all of them, once all earlier records are logged."""
        for callback in self.callbacks:
            if callback.every is None or not (since is None or progress.passed(callback.every, since)):
                continue
            cost = self.costs.setdefault(callback, _Cost())
            if since is not None and not cost.allows(callback.max_share, self.buffer.seconds):
                continue
            self.record(self.buffer.drain())
            start = self.buffer.seconds
            self.record(callback.measure(self.progress()))
            cost.add(self.buffer.seconds - start)

    def save(self, *, end: bool = False) -> None:
        """Save the state, once everything that led to it is known to be finite; ``end``: as the process ends."""
        self.record(self.buffer.drain())
        if self.saving is None:
            return
        for name, player in self.game.players.items():
            if not all(map(_is_finite, player.net.state_dict().values())):
                raise NonFinite(f"weights/{name}", self.step)
        self.saving.checkpoints.save_game(self.game, self.progress(), end=end)

    def finish(self, progress: Progress) -> None:
        """Save the last state and wait until it is written."""
        self.save(end=True)
        if self.saving is not None:
            self.saving.checkpoints.wait()

    def restore(self, checkpoints: Checkpoints | None = None) -> bool:
        """Return to the newest intact one of the run's own or other ``checkpoints``; False if there are none.

        Raises:
            UserError: none of them is intact, or they are of another game.
        """
        assert self.saving is not None
        checkpoints = checkpoints or self.saving.checkpoints
        tensors: dict[str, Tensor] = {}
        facts = None
        with self.processes.together():
            if self.processes.first and checkpoints.paths():
                tensors, facts = checkpoints.load()
            elif self.log is not None:  # killed before the first one
                self.log.rewind(-1)
        facts = self.processes.share(facts)
        if facts is None:
            return False
        self.game.restore(self.processes.share_tensors(tensors))
        # The lower of the two scales: an older checkpoint does not know of the failures since.
        self.game.lr_scale = min(facts["lr_scale"], self.game.lr_scale)
        self.step, self.buffer = facts["step"], MetricBuffer(facts["progress"]["seconds"])
        if self.processes.first:
            checkpoints.drop_after(self.step)  # those are damaged: left there, they would push out the intact ones
        if self.log is not None:
            self.log.rewind(self.step)
            for callback in self.callbacks:
                callback.on_restore(self.log.records(), self.progress())
        return True

    def roll_back(self, error: TrainingFailure) -> bool:
        """Return to the last good checkpoint with halved learning rates; False if there is none."""
        assert self.saving is not None
        restored = self.restore(error.good)
        if restored:
            self.game.lr_scale *= 0.5
        self.lead(partial(self._after_roll_back, error, restored))
        return restored

    def _after_roll_back(self, error: TrainingFailure, restored: bool, progress: Progress) -> None:
        assert self.saving is not None
        if restored:
            if error.good is not None:
                self.saving.checkpoints.drop_after(self.step)  # later ones belong to the failed course
            self.save()  # or a kill would forget that the learning rates are halved
        message = f"{error}: back to step {self.step}, all learning rates halved"
        self.record([progress.record(rollback=self.step, message=message)])
