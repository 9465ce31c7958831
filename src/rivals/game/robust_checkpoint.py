"""The most robust checkpoint so far, and alarms for robust and catastrophic overfitting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rivals.base.duration import Duration
from rivals.base.run_folder import Record
from rivals.game.callbacks import Callback, Progress
from rivals.game.checkpoint import Checkpoints
from rivals.game.game import Game
from rivals.game.metric_buffer import TrainingFailure

PGD, FGSM = "accuracy/pgd", "accuracy/fgsm"
ROBUST_OVERFITTING, FGSM_OVERFITTING = "robust-overfitting", "one-step-overfitting"

# Levels of accuracy under PGD:
COLLAPSE = 0.5  # below this fraction of the best, and of accuracy under FGSM, it has collapsed
NO_ROBUSTNESS = 0.1  # below this fraction of accuracy under FGSM there is no robustness
DROP = 0.03  # this far below the best is robust overfitting
LEARNED = 1.5  # times the accuracy of guessing; below, the classifier has not learned anything that could be lost


class CatastrophicOverfitting(TrainingFailure):
    """The classifier is robust to its training attack and no longer to PGD (Wong et al. 2020, sec. 5.4)."""


class RobustCheckpoint(Callback):
    """Saves the state with the highest accuracy under PGD, and raises alarms when it drops.

    In many runs robust accuracy on held-out images falls late, while the training loss still decreases (robust
    overfitting, Rice et al. 2020). So a run ends with its most robust state, not with its last.

    Args:
        game: Its state is saved.
        checkpoints: Where.
        classes: Number of classes.
        eps_warmup: Images or minutes until eps has its full value, None for the start. Before, accuracy under PGD at
            the full eps may well be zero.
    """

    def __init__(self, game: Game, checkpoints: Checkpoints, classes: int, eps_warmup: Duration | None = None) -> None:
        self.game = game
        self.checkpoints = checkpoints
        self.classes = classes
        self.eps_warmup = eps_warmup
        self.best = 0.0
        self.step = 0
        self.active: dict[str, Record] = {}

    def on_record(self, record: Record, progress: Progress) -> Iterator[Record]:
        """Take a record with ``accuracy/pgd`` and ``accuracy/fgsm``; save the state if it is the most robust.

        Returns:
            Records of alarms that are raised or cleared.

        Raises:
            CatastrophicOverfitting: accuracy under PGD has collapsed, that under FGSM has not.
        """
        if PGD not in record:
            return
        yield from self._alarms(record)
        pgd, fgsm = record[PGD], record.get(FGSM, 0.0)
        if self._learned(pgd) >= self.best:  # the alarms have just taken this record into the best
            self.checkpoints.save_game(self.game, progress)
        elif pgd < COLLAPSE * min(self.best, fgsm) and fgsm >= COLLAPSE * self.best:
            raise CatastrophicOverfitting(
                f"catastrophic overfitting: robust accuracy fell from {self.best:.1%} to {pgd:.1%} under PGD, while it "
                f"is {fgsm:.1%} under FGSM",
                self.checkpoints,
            )

    def on_restore(self, past: Iterable[Record], progress: Progress) -> None:
        """Find best and alarms of the past; remove the checkpoints of later steps, which will be reached again."""
        self.best, self.step = 0.0, 0
        self.active.clear()
        for record in past:
            if PGD in record:
                list(self._alarms(record))
        self.checkpoints.drop_after(self.step)

    def _alarms(self, record: Record) -> Iterator[Record]:
        """Update the best accuracy; the records of alarms that are raised or cleared."""
        pgd, fgsm = record[PGD], record.get(FGSM, 0.0)
        if self._learned(pgd) >= self.best:
            self.best, self.step = self._learned(pgd), record["step"]
        yield from self._set(
            ROBUST_OVERFITTING,
            pgd < self.best - DROP,
            f"Robust overfitting: accuracy under PGD on held-out images is {pgd:.1%}, down from {self.best:.1%} at "
            f"step {self.step:,}.",
            "The run ends with its most robust state. A shorter run, an EMA of the weights (--ema), --awp 0.005 or "
            "more images delay the drop.",
            record,
        )
        # If the run began so, there is no better state to return to: only an alarm can be raised.
        yield from self._set(
            FGSM_OVERFITTING,
            self._full_eps(record) and pgd < NO_ROBUSTNESS * fgsm and fgsm >= max(COLLAPSE, LEARNED / self.classes),
            f"Overfitted to one-step attacks: accuracy on held-out images is {fgsm:.1%} under FGSM and {pgd:.1%} under "
            "PGD.",
            "Use an attack of several steps (--method pgd) or N-FGSM (--method fgsm --start nfgsm --step-size 1), or "
            "let eps grow more slowly (--eps-warmup 0.5).",
            record,
        )

    def _full_eps(self, record: Record) -> bool:
        return self.eps_warmup is None or self.eps_warmup.share(record["images"], record["seconds"]) >= 1

    def _set(self, name: str, raised: bool, message: str, remedy: str, record: Record) -> Iterator[Record]:
        """The record of the alarm, if it is raised or cleared here."""
        if raised == (name in self.active):
            return
        alarm = {key: record[key] for key in ("images", "step", "seconds")} | {"alarm": name, "raised": raised}
        if raised:
            self.active[name] = alarm = alarm | {"message": message, "remedy": remedy}
        else:
            del self.active[name]
            alarm |= {"message": f"The alarm '{name}' is over.", "remedy": ""}
        yield alarm

    def _learned(self, pgd: float) -> float:
        """Robust accuracy, or 0 if it is about that of guessing: an untrained network must not count as the best."""
        return pgd if pgd * self.classes > LEARNED else 0.0
