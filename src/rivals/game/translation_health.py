"""Alarms of image translation: those of a GAN in a translator's terms, copies of the input, exploding losses."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from statistics import fmean

from rivals.base.run_folder import Record
from rivals.game.callbacks import Progress
from rivals.game.health_monitor import IN_A_ROW, WINDOW, YOUNG, HealthMonitor

COPIES, CHANGES = 0.03, 0.06  # change of the inputs: below the first the output is a copy, above the second no longer
EXPLODES, SETTLES = 1.0, 0.7  # of the limit of a term: above the first it explodes, below the second no longer
RISE = 3.0  # times its lowest value, and above where it began: the limit of a term of the translator's loss
RISE_D = 10.0  # times L_D*: the limit of the discriminator's loss, which is 1 for one that guesses
LEAST = 1e-3  # of a term, below which it counts for nothing

ADVICE: dict[str, tuple[str, str]] = {
    "discriminator-wins": (
        "The discriminator wins: it tells targets from translated images almost without error (L_D = {loss_d:.3g}, at "
        "the equilibrium {equilibrium_d:.3g}), so the translator learns little from it.",
        "Balance the game: add a gradient penalty (--r1 0.1), lower --discriminator-lr, take narrower "
        "--discriminator-widths, or use the relativistic loss (--loss relativistic).",
    ),
    "generator-wins": (
        "The translator wins: the discriminator is worse than a constant one (L_D = {loss_d:.3g}, at the equilibrium "
        "{equilibrium_d:.3g}), so the translator learns nothing from it.",
        "Strengthen the discriminator: raise --discriminator-lr, take wider --discriminator-widths, or weaken --r1.",
    ),
    "oscillation": (
        "The game oscillates: the lead has changed {swings} times in the last {long} steps.",
        "Damp it: add R1 (--r1 0.1), lower --generator-lr and --discriminator-lr, or set --beta1 0.",
    ),
    "mode-collapse": (
        "The output hardly depends on the input: translated images are {diversity:.0%} as diverse as targets.",
        "Hold it to the input: raise --l1-weight with pairs, without them --nce-weight (of --method cyclegan "
        "--cycle-weight); or lower --gan-weight, or --generator-lr.",
    ),
    "copies-input": (
        "The translator copies its input: what it changes is {change:.1%} of the difference between inputs and "
        "targets.",
        "Let it change more: raise --gan-weight, or lower what holds it to the input: --identity-weight, and "
        "--nce-weight (of --method cyclegan --cycle-weight).",
    ),
    "loss-explodes": (
        "A loss explodes: {term} is {value:.3g}, and {limit:.3g} is the most that can be normal.",
        "Lower --generator-lr and, with a discriminator, --discriminator-lr, or add R1 (--r1 0.1).",
    ),
}


class TranslationMonitor(HealthMonitor):
    """Raises the alarms of a run of ``rivals translate``, and clears them when they are over.

    The translator's loss has further terms beside the adversarial one, and thus no level at the equilibrium. Who leads
    is told by the discriminator's loss and its outputs.

    Args:
        equilibrium_d: ``loss/discriminator`` at the equilibrium; None where it has no fixed level.
    """

    def __init__(self, equilibrium_d: float | None) -> None:
        super().__init__({"loss/discriminator": equilibrium_d}, ADVICE)
        self._level_d = equilibrium_d
        self._change: deque[float] = deque(maxlen=IN_A_ROW)
        self._terms: dict[str, _Term] = {}

    def on_record(self, record: Record, progress: Progress | None = None) -> Iterator[Record]:
        """Take a record; returns the records of alarms that are raised or cleared."""
        yield from super().on_record(record, progress)
        if record.get("change") is not None and record["step"] >= YOUNG:
            yield from self._on_change(record)
        if "loss/generator" in record:
            yield from self._on_terms(record)

    def _forget(self) -> None:
        super()._forget()
        self._change.clear()
        self._terms.clear()

    def _on_change(self, record: Record) -> Iterator[Record]:
        self._change.append(record["change"])
        on = len(self._change) == IN_A_ROW and max(self._change) < COPIES
        raised = self._hysteresis("copies-input", on, min(self._change) > CHANGES)
        yield from self._set("copies-input", record, raised, change=record["change"])

    def _on_terms(self, record: Record) -> Iterator[Record]:
        """How far the terms of the losses are from what can be normal.

        Adversarial terms of the translator are left out: they rise where the discriminator wins, which has its alarm.
        """
        values: dict[str, float] = {
            key: value
            for key, value in record.items()
            if (key.startswith("loss/generator/") and key != "loss/generator/gan")
            or (key == "loss/discriminator" and self._level_d)
        }
        if not values and "loss/discriminator" not in record:  # a single term goes by the name of the loss
            values["loss/generator"] = record["loss/generator"]
        for key, value in values.items():
            fixed = RISE_D * self._level_d if key == "loss/discriminator" and self._level_d else None
            self._terms.setdefault(key, _Term(fixed)).add(value)
        name, worst = max(self._terms.items(), key=lambda item: item[1].level, default=("", None))
        if worst is None:
            return
        raised = self._hysteresis("loss-explodes", worst.level > EXPLODES, worst.level < SETTLES)
        yield from self._set("loss-explodes", record, raised, term=name, value=worst.mean, limit=worst.limit)


class _Term:
    """The mean of a loss over the last steps, and the most that can be normal.

    Args:
        fixed: The limit, if it is known; else it follows from the first mean and the lowest.
    """

    def __init__(self, fixed: float | None) -> None:
        self.values: deque[float] = deque(maxlen=WINDOW)
        self.fixed, self.first, self.lowest = fixed, 0.0, 0.0
        self.mean, self.limit, self.level = 0.0, 0.0, 0.0

    def add(self, value: float) -> None:
        """Take the value of a step."""
        self.values.append(value)
        if len(self.values) < WINDOW:
            return
        self.mean = fmean(self.values)
        if not self.limit:
            self.first = self.lowest = self.mean
        self.lowest = min(self.lowest, self.mean)
        self.limit = self.fixed or max(self.first, RISE * self.lowest, LEAST)
        self.level = self.mean / self.limit
