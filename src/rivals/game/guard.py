"""The best of a classifier so far, and the collapse that one-step adversarial training falls into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from rivals.game.checkpoint import Checkpoints
from rivals.game.game import Game
from rivals.game.ledger import Setback
from rivals.game.play import Moment

Record = dict[str, Any]
ROBUST, ONE_STEP = "accuracy/pgd", "accuracy/fgsm"
LOST = 0.5  # robust accuracy below this share of the best and of what survives one step: overfitted to one step
NOTHING = 0.1  # robust accuracy below this share of what survives one step is none
FALLEN = 0.03  # robust accuracy this far below the best is an alarm
OVERFITTING, ONE_STEP_ONLY = "robust-overfitting", "one-step-overfitting"
LEARNT = 1.5  # times the accuracy of guessing: below, nothing has been learnt that could be lost


class Relapse(Setback):
    """The classifier has overfitted to its own attack (catastrophic overfitting, Wong et al. 2020, sec. 5.4)."""


class Guard:
    """Sees every look at the classifier under attack; keeps the most robust state, and says when it is lost.

    Robust accuracy falls in the later part of many runs while the loss on training images still sinks (robust
    overfitting, Rice et al. 2020), so what a run ends with is the best state and not the last. A run's ``watch``.

    Args:
        game: Whose state is kept.
        checkpoints: Where.
        classes: How many classes there are; guessing is right in one of so many.
        whole: Images from which on the attack in training has its whole radius. Before, many steps at the whole radius
            fell everything in the best of runs.
    """

    def __init__(self, game: Game, checkpoints: Checkpoints, classes: int, whole: float = 0) -> None:
        self.game = game
        self.checkpoints = checkpoints
        self.classes = classes
        self.whole = whole
        self.best = 0.0
        self.step = 0
        self.active: dict[str, Record] = {}

    def see(self, record: Record, moment: Moment) -> None:
        """Take a look's record with ``accuracy/pgd`` and ``accuracy/fgsm``, measured at a moment; keep a better state.

        Raises:
            Relapse: the attack in many steps fells far more than it did, and the attack in one step does not.
        """
        robust, one_step = record[ROBUST], record[ONE_STEP]
        if self._learnt(robust) >= self.best:
            facts = {"moment": asdict(moment), "rate": self.game.rate}
            self.checkpoints.save(moment.step, self.game.state(), facts)
        elif robust < LOST * min(self.best, one_step) and one_step >= LOST * self.best:
            raise Relapse(
                f"overfitted to its own attack: robust accuracy fell from {self.best:.1%} to {robust:.1%} under PGD "
                f"while {one_step:.1%} survive one step",
                self.checkpoints,
            )

    def __call__(self, record: Record) -> Iterator[Record]:
        """Take a record; give an alarm's record when robust overfitting, or standing against one step alone, begins
        and when it is over."""
        if ROBUST not in record:
            return
        robust, one_step = record[ROBUST], record.get(ONE_STEP, 0.0)
        if self._learnt(robust) >= self.best:
            self.best, self.step = self._learnt(robust), record["step"]
        yield from self._turn(
            OVERFITTING,
            robust < self.best - FALLEN,
            f"Robust overfitting: under PGD {robust:.1%} of the images kept aside stand, {self.best:.1%} did at step "
            f"{self.step:,}.",
            "The best state is kept, and is what the run ends with. A shorter run, weight averaging (--ema), --awp "
            "0.005 or more images put it off.",
            record,
        )
        # Overfitted from the start, there is no better state to go back to: it can only be told.
        yield from self._turn(
            ONE_STEP_ONLY,
            record["images"] >= self.whole
            and robust < NOTHING * one_step
            and one_step >= max(LOST, LEARNT / self.classes),
            f"Overfitted to one step: {one_step:.1%} of the images kept aside stand against it, and under PGD "
            f"{robust:.1%}, next to nothing.",
            "Take an attack of several steps (--method pgd), or N-FGSM (--method fgsm --start beyond --step 1), or let "
            "eps grow more slowly (--ramp 0.5).",
            record,
        )

    def _turn(self, name: str, raised: bool, says: str, remedy: str, record: Record) -> Iterator[Record]:
        """The alarm's record if it begins or ends here."""
        if raised == (name in self.active):
            return
        alarm = {key: record[key] for key in ("images", "step", "seconds")} | {"alarm": name, "raised": raised}
        if raised:
            self.active[name] = alarm = alarm | {"says": says, "remedy": remedy}
        else:
            del self.active[name]
            alarm |= {"says": f"The alarm '{name}' is over.", "remedy": ""}
        yield alarm

    def _learnt(self, robust: float) -> float:
        """Robust accuracy, if it is more than guessing gives: else a net that knows nothing would be the best."""
        return robust if robust * self.classes > LEARNT else 0.0

    def recall(self, past: Iterable[Record]) -> None:
        """Forget what was seen, and take the past of a run; states of later steps will come again."""
        self.best, self.step = 0.0, 0
        self.active.clear()
        for record in past:
            list(self(record))
        self.checkpoints.drop_after(self.step)
