"""The best state of a game so far, by a score that is measured now and then."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from rivals.game.checkpoint import Checkpoints
from rivals.game.game import Game
from rivals.game.health import Health
from rivals.game.play import Moment

Record = dict[str, Any]


class Best:
    """Keeps the state with the lowest score. A run's ``watch``, which passes every record on to another one.

    Args:
        game: Whose state is kept.
        checkpoints: Where.
        key: Under which the records have the score.
        watch: Sees every record too, and raises the alarms.
    """

    def __init__(self, game: Game, checkpoints: Checkpoints, key: str, watch: Health) -> None:
        self.game = game
        self.checkpoints = checkpoints
        self.key = key
        self.watch = watch
        self.score = math.inf
        self.step = -1

    @property
    def active(self) -> dict[str, Record]:
        """The alarms that stand."""
        return self.watch.active

    def see(self, score: float, moment: Moment) -> None:
        """Take a score measured at a moment, before its record is noted; keep a better state."""
        if moment.step and score < self.score:
            facts = {"moment": asdict(moment), "rate": self.game.rate}
            self.checkpoints.save(moment.step, self.game.state(), facts)

    def __call__(self, record: Record) -> Iterator[Record]:
        """Take a record; give what the other watch answers."""
        self._take(record)
        yield from self.watch(record)

    def recall(self, past: Iterable[Record]) -> None:
        """Forget what was seen, and take the past of a run; states of later steps will come again."""
        self.score, self.step = math.inf, -1
        self.watch.recall(self._through(past))
        self.checkpoints.drop_after(self.step)

    def _through(self, past: Iterable[Record]) -> Iterator[Record]:
        for record in past:
            self._take(record)
            yield record

    def _take(self, record: Record) -> None:
        # Untrained, a generator draws grey, which may well be nearer to the data than its first tries.
        if self.key in record and record["step"] and record[self.key] < self.score:
            self.score, self.step = record[self.key], record["step"]
