"""The checkpoint with the best score so far."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rivals.base.run_folder import Record
from rivals.game.callbacks import Callback, Progress
from rivals.game.checkpoint import Checkpoints
from rivals.game.game import Game


class BestCheckpoint(Callback):
    """Saves the state of the game whenever a record has a better score than all before.

    Args:
        game: Its state is saved.
        checkpoints: Where.
        key: The score in the records.
        above: None where a lower score is better; else the score above which a state is kept, and higher is better.
    """

    def __init__(self, game: Game, checkpoints: Checkpoints, key: str, above: float | None = None) -> None:
        self.game = game
        self.checkpoints = checkpoints
        self.key = key
        self.sign = 1 if above is None else -1
        self.worst = math.inf if above is None else -above
        self.score = self.worst
        self.step = -1

    def on_record(self, record: Record, progress: Progress) -> Iterable[Record]:
        """Save the state if this record has the best score."""
        if self._is_best(record):
            self.checkpoints.save_game(self.game, progress)
        return ()

    def on_restore(self, past: Iterable[Record], progress: Progress) -> None:
        """Find the best score of the past; remove the checkpoints of later steps, which will be reached again."""
        self.score, self.step = self.worst, -1
        for record in past:
            self._is_best(record)
        self.checkpoints.drop_after(self.step)

    def _is_best(self, record: Record) -> bool:
        # Not at step 0: the gray images of an untrained generator may score better than its first attempts.
        if self.key not in record or not record["step"] or self.sign * record[self.key] >= self.score:
            return False
        self.score, self.step = self.sign * record[self.key], record["step"]
        return True
