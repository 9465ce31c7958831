"""The only loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from rivals.base.errors import UserError
from rivals.base.spans import Span
from rivals.game.checkpoint import Checkpoints
from rivals.game.game import Batches, Game
from rivals.game.ledger import Ledger, NonFinite

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


@dataclass(frozen=True)
class Saving:
    """Where and how often the state of the game is saved, and whether to go on from there."""

    checkpoints: Checkpoints
    every: Span
    resume: bool = False


def play(
    game: Game,
    batches: Batches,
    *,
    until: Span,
    seed: int = 0,
    rank: int = 0,
    journal: Journal | None = None,
    saving: Saving | None = None,
    interludes: Sequence[Interlude] = (),
    watch: Callable[[Record], Iterable[Record]] = lambda record: (),
    show: Callable[[Record], None] = lambda record: None,
    stop: Callable[[], bool] = lambda: False,
    rollback: bool = False,
) -> Moment:
    """Play rounds of ``game`` on ``batches`` until ``until`` or until ``stop()``.

    Args:
        game: The players and their turns.
        batches: The real images.
        until: The length of the run, counted from its very start.
        seed: What all randomness follows from, with ``rank`` and the step.
        rank: This process among several.
        journal: Keeps the records.
        saving: Checkpoints. With ``resume`` the run goes on from the newest one, exactly as if never stopped.
        interludes: Things to do between rounds.
        watch: Sees every record and returns further ones: alarms.
        show: Sees every record, for display.
        stop: Asked after each round; once it says yes, the state is saved and the loop ends.
        rollback: On a non-finite number go back to the last checkpoint and halve the learning rates, instead of
            stopping. Without checkpoints there is nowhere to go back to.

    Returns:
        Where the run ended.

    Raises:
        NonFinite: a loss, penalty, gradient or weight is not a finite number. The last checkpoint is a good one.
    """
    rollbacks = 0
    resume = saving is not None and saving.resume
    while True:
        try:
            with torch.random.fork_rng():
                return _rounds(
                    game, batches, until, seed, rank, journal, saving, resume, interludes, watch, show, stop
                )
        except NonFinite as error:
            rollbacks += 1
            if not rollback or saving is None or rollbacks > MOST_ROLLBACKS:
                raise
            tensors, facts = saving.checkpoints.load()
            lowered = facts["rate"] * 0.5
            saving.checkpoints.save(facts["step"], tensors, {**facts, "rate": lowered})
            resume = True
            if journal is not None:
                journal.rewind(facts["step"])
                note = {"rollback": facts["step"], "says": f"{error}: back to step {facts['step']}, rates halved"}
                place = {key: facts[key] for key in ("images", "step", "seconds")}
                journal.append([place | note])
                show(place | note)


def _rounds(
    game: Game,
    batches: Batches,
    until: Span,
    seed: int,
    rank: int,
    journal: Journal | None,
    saving: Saving | None,
    resume: bool,
    interludes: Sequence[Interlude],
    watch: Callable[[Record], Iterable[Record]],
    show: Callable[[Record], None],
    stop: Callable[[], bool],
) -> Moment:
    step = 0
    ledger = Ledger()
    if saving is not None and resume:
        tensors, facts = saving.checkpoints.load()
        game.restore(tensors)
        game.rate = facts["rate"]
        step = facts["step"]
        ledger = Ledger(facts["seconds"])
        if journal is not None:
            journal.rewind(step)

    def now() -> Moment:
        images = step * game.images_a_round(batches)
        return Moment(step, images, images / batches.n, ledger.seconds)

    def note(records: Iterable[Record]) -> None:
        noted = [found for record in records for found in (record, *watch(record))]
        if journal is not None:
            journal.append(noted)
        for record in noted:
            show(record)

    def save(moment: Moment) -> None:
        if saving is None:
            return
        note(ledger.drain())  # no state is saved before everything that led to it is known to be finite
        for name, player in game.players.items():
            if not all(bool(weight.isfinite().all()) for weight in player.net.state_dict().values()):
                raise NonFinite(f"weights/{name}", moment.step)
        facts = {"images": moment.images, "seconds": moment.seconds, "rate": game.rate}
        saving.checkpoints.save(moment.step, game.state(), facts)

    def interlude(before: Moment | None, moment: Moment, last: bool = False) -> None:
        for each in interludes:
            if before is None or last or int(moment.along(each.every)) > int(before.along(each.every)):
                note(ledger.drain())
                note(each.act(moment))

    moment = now()
    if step == 0:
        interlude(None, moment)
        save(moment)
    while moment.along(until) < 1 and not stop():
        values = game.round(step, batches, seed=seed, rank=rank)
        step += 1
        before, moment = moment, now()
        ledger.add(step, moment.images, values)
        note(ledger.arrived())
        ended = moment.along(until) >= 1
        interlude(before, moment, last=ended)
        if saving is not None and int(moment.along(saving.every)) > int(before.along(saving.every)):
            save(moment)
    note(ledger.drain())
    save(moment)
    return moment
