"""The only loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch

from rivals.base.spans import Span
from rivals.game.checkpoint import Checkpoints
from rivals.game.game import Batches, Game
from rivals.game.ledger import Ledger, NonFinite, Setback

Record = dict[str, Any]
MOST_ROLLBACKS = 8


@dataclass(frozen=True)
class Moment:
    """Where a run is: ``step`` rounds played, ``images`` shown, ``epochs`` and ``seconds`` passed."""

    step: int
    images: int
    epochs: float
    seconds: float

    def along(self, span: Span) -> float:
        """How far along ``span`` this is: 1 at its end."""
        return span.progress(images=self.images, epochs=self.epochs, steps=self.step, seconds=self.seconds)

    def passed(self, span: Span, before: Moment) -> bool:
        """Whether a whole number of ``span`` was completed since ``before``."""
        return int(self.along(span)) > int(before.along(span))


@dataclass(frozen=True)
class Interlude:
    """Something done between rounds, every ``span``, at the start and at the end: a sheet of samples, a measurement.

    ``act`` is told the moment and returns the records it made.
    """

    every: Span
    act: Callable[[Moment], Iterable[Record]]


class Journal(Protocol):
    """What keeps the records of a run, and can go back to a step."""

    def append(self, records: Iterable[Record]) -> None: ...
    def rewind(self, step: int) -> None: ...
    def records(self) -> Iterable[Record]: ...


class Watch(Protocol):
    """What sees every record and answers with further ones: alarms."""

    def __call__(self, record: Record) -> Iterable[Record]: ...
    def recall(self, past: Iterable[Record]) -> None:
        """Forget what was seen, and take the past of the journal instead."""


@dataclass(frozen=True)
class Saving:
    """Where and how often the state of the game is saved, and whether to go on from there."""

    checkpoints: Checkpoints
    every: Span
    resume: bool = False


@dataclass
class _Table:
    """What :func:`play` was given, and the loop over it."""

    game: Game
    batches: Batches
    until: Span
    seed: int
    rank: int
    journal: Journal | None
    saving: Saving | None
    interludes: Sequence[Interlude]
    watch: Watch | None
    show: Callable[[Record], None]
    stop: Callable[[], bool]
    step: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    fresh: bool = True

    def now(self) -> Moment:
        images = self.step * self.game.images_a_round(self.batches)
        return Moment(self.step, images, images / self.batches.n, self.ledger.seconds)

    def note(self, records: Iterable[Record]) -> None:
        noted = []
        for record in records:
            noted += [record, *(self.watch(record) if self.watch is not None else ())]
        if self.journal is not None:
            self.journal.append(noted)
        for record in noted:
            self.show(record)

    def save(self) -> None:
        """Save the state, once everything that led to it is known to be finite."""
        self.note(self.ledger.drain())
        if self.saving is None:
            return
        for name, player in self.game.players.items():
            if not all(bool(value.isfinite().all()) for value in player.net.state_dict().values()):
                raise NonFinite(f"weights/{name}", self.step)
        facts = {"moment": asdict(self.now()), "rate": self.game.rate}
        self.saving.checkpoints.save(self.step, self.game.state(), facts)

    def go_back(self, slower: float = 1.0, good: Checkpoints | None = None) -> None:
        """Return to the newest checkpoint, there multiplying all rates by ``slower``; to the start if there is none.

        ``good`` are other checkpoints to return to than the run's own.
        """
        assert self.saving is not None
        checkpoints = self.saving.checkpoints if good is None else good
        if not checkpoints.paths():  # killed before the first one
            if self.journal is not None:
                self.journal.rewind(-1)
            return
        tensors, facts = checkpoints.load()
        self.game.restore(tensors)
        # From what it is now, if lower: an older state knows nothing of the setbacks since.
        self.game.rate = min(facts["rate"], self.game.rate) * slower
        self.fresh = False
        self.step, self.ledger = facts["step"], Ledger(facts["moment"]["seconds"])
        if self.journal is not None:
            self.journal.rewind(self.step)
            if self.watch is not None:
                self.watch.recall(self.journal.records())
        if slower != 1:
            if good is not None:
                self.saving.checkpoints.drop_after(self.step)  # they are of what went wrong
            self.save()  # or a kill would forget that the rates are lower now

    def rounds(self) -> Moment:
        """Play on until the end, or until asked to stop."""
        before = self.now()
        if self.fresh:
            self.perform(self.interludes)
            self.save()
        while before.along(self.until) < 1 and not self.stop():
            values = self.game.round(self.step, self.batches, seed=self.seed, rank=self.rank)
            self.step += 1
            moment = self.now()
            self.ledger.add(self.step, moment.images, values)
            self.note(self.ledger.arrived())
            over = moment.along(self.until) >= 1
            self.perform(each for each in self.interludes if over or moment.passed(each.every, before))
            if self.saving is not None and moment.passed(self.saving.every, before):
                self.save()
            before = moment
        self.save()
        return self.now()

    def perform(self, due: Iterable[Interlude]) -> None:
        for each in due:
            self.note(self.ledger.drain())
            self.note(each.act(self.now()))


def play(
    game: Game,
    batches: Batches,
    *,
    until: Span | str,
    seed: int = 0,
    rank: int = 0,
    journal: Journal | None = None,
    saving: Saving | None = None,
    interludes: Sequence[Interlude] = (),
    watch: Watch | None = None,
    show: Callable[[Record], None] = lambda record: None,
    stop: Callable[[], bool] = lambda: False,
    rollback: bool = False,
) -> Moment:
    """Play rounds of ``game`` on ``batches`` until ``until`` or until ``stop()``.

    Args:
        game: The players and their turns.
        batches: The real images.
        until: The length of the run, counted from its very start, as ``2M images``.
        seed: What all randomness follows from, with ``rank`` and the step.
        rank: This process among several.
        journal: Keeps the records.
        saving: Checkpoints. With ``resume`` the run goes on from the newest one, exactly as if never stopped.
        interludes: Things to do between rounds, also before the first and after the last.
        watch: Sees every record and returns further ones, as :class:`rivals.Health` its alarms.
        show: Sees every record, for display.
        stop: Asked after each round; once it says yes, the state is saved and the loop ends.
        rollback: On a setback (a non-finite number, or what an interlude raises) go back to the last good checkpoint
            and halve the learning rates, instead of stopping. Without checkpoints there is nowhere to go back to.

    Returns:
        Where the run ended.

    Raises:
        Setback: a loss, penalty, gradient or weight is not a finite number, and the last checkpoint is a good one; or
            what an interlude raised.
    """
    length = Span.parse(until) if isinstance(until, str) else until
    table = _Table(game, batches, length, seed, rank, journal, saving, interludes, watch, show, stop)
    if saving is not None and saving.resume:
        table.go_back()
    rollbacks = 0
    with torch.random.fork_rng():  # the caller's random state comes back as it was
        while True:
            try:
                return table.rounds()
            except Setback as error:
                rollbacks += 1
                if not rollback or saving is None or rollbacks > MOST_ROLLBACKS:
                    raise
                table.go_back(slower=0.5, good=error.good)
                place = {"images": table.now().images, "step": table.step, "seconds": round(table.ledger.seconds, 3)}
                says = f"{error}: back to step {table.step}, all rates halved"
                table.note([place | {"rollback": table.step, "says": says}])
