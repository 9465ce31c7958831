"""Alarms of GAN training: who wins, oscillation, mode collapse, an overfitting discriminator; each with a remedy.

Levels of the losses are relative to ``L_D*`` and ``L_G*``, the losses at the equilibrium of the game that is played
(2 log 2 and log 2 for binary cross-entropy), and that of the discriminator also to the least that it can be. Losses
without such a level, as the Wasserstein distance, have no alarm for the balance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from statistics import fmean

from rivals.base.run_folder import Record
from rivals.game.callbacks import Callback, Progress

WINDOW = 200  # steps over which the losses are averaged
LONG = 1000  # steps over which changes of the lead are counted
STRIDE = 20  # steps averaged to decide who leads
SWINGS = 4  # changes of the lead within LONG that make an oscillation
# Levels of D: (L_D - least) / (L_D* - least), 0 where it tells all images apart, 1 at the equilibrium.
D_WINS, D_FAIR = 0.05, 0.15  # below the first D has won, above the second it no longer has
G_WINS, G_FAIR = 1.25, 1.1  # above the first D is worse than a constant one, below the second no longer
LEAD_D, LEAD_G = 0.6, 1.2  # below the first D leads, above the second G leads
COLLAPSED, DIVERSE = 0.35, 0.5  # diversity: below the first collapsed, above the second no longer
OVERFITS, FITS = 0.5, 0.35  # r_v: above the first D overfits, below the second no longer
IN_A_ROW = 3  # sample grids that make a collapse, or evaluations that make overfitting
YOUNG = 300  # steps before which the samples of any generator are alike

ADVICE: dict[str, tuple[str, str]] = {
    "discriminator-wins": (
        "The discriminator wins: it tells real from generated images almost without error (L_D = {loss_d:.3g}, at the "
        "equilibrium {equilibrium_d:.3g}; L_G = {loss_g:.3g}), so the generator learns little.",
        "Balance the game: add a gradient penalty (--r1 0.1 --r2 0.1), lower --discriminator-lr, add --instance-noise "
        "0.2, or use the relativistic loss (--loss relativistic).",
    ),
    "generator-wins": (
        "The generator wins: the discriminator is worse than a constant one (L_D = {loss_d:.3g}, at the equilibrium "
        "{equilibrium_d:.3g}), so the generator learns nothing from it.",
        "Strengthen the discriminator: raise --discriminator-lr, give it more turns (--discriminator-turns 2) or more "
        "width, or weaken its penalties (--r1, --r2) and --instance-noise.",
    ),
    "oscillation": (
        "The game oscillates: the lead has changed {swings} times in the last {long} steps.",
        "Damp it: add R1 (--r1 0.1), lower both learning rates, set --beta1 0, and evaluate the EMA of the generator "
        "(--ema 10k).",
    ),
    "mode-collapse": (
        "Mode collapse: the sample grid is {diversity:.0%} as diverse as real images.",
        "Stabilize the game: --loss relativistic, a gradient penalty (--r1 0.1 --r2 0.1), a lower --generator-lr, a "
        "larger --batch-size.",
    ),
    "discriminator-overfits": (
        "The discriminator overfits: it scores held-out real images more like generated ones than like its training "
        "images (r_v = {r_v:.2f}; 0 is no overfitting, 1 is complete), so the generator is taught to memorize.",
        "Use augmentation (--augment diff) or more images; --score-every saves the best state so far.",
    ),
}


class HealthMonitor(Callback):
    """Raises alarms, and clears them when they are over.

    Args:
        equilibrium: ``loss/discriminator`` and ``loss/generator`` at the equilibrium; None where it has no fixed level.
        advice: What to say of each alarm: message and remedy.
        least: The least that ``loss/discriminator`` can be, as of :class:`~rivals.losses.gan.GanLoss`.
    """

    def __init__(
        self,
        equilibrium: Mapping[str, float | None],
        advice: Mapping[str, tuple[str, str]] = ADVICE,
        *,
        least: float = 0.0,
    ) -> None:
        self._advice, self._least = advice, least
        self._equilibrium_d = equilibrium.get("loss/discriminator")
        self._equilibrium_g = equilibrium.get("loss/generator")
        self._losses: deque[tuple[float, float, float]] = deque(maxlen=WINDOW)
        self._stride: list[float] = []
        self._leads: deque[int] = deque(maxlen=LONG // STRIDE)
        self._diversity: deque[float] = deque(maxlen=IN_A_ROW)
        self._r_v: deque[float] = deque(maxlen=IN_A_ROW)
        self.active: dict[str, Record] = {}

    def on_record(self, record: Record, progress: Progress | None = None) -> Iterator[Record]:
        """Take a record; returns the records of alarms that are raised or cleared."""
        if record.get("diversity") is not None:
            yield from self._on_diversity(record)
        elif "equilibrium/r_v" in record:
            yield from self._on_overfitting(record)
        elif "loss/discriminator" in record and "loss/generator" in record and self._equilibrium_d:
            yield from self._on_losses(record, self._equilibrium_d)

    def on_restore(self, past: Iterable[Record], progress: Progress) -> None:
        """Take the records of the past, which hold the alarms already."""
        self._forget()
        for record in past:
            if "alarm" in record:
                self._update_active(record)
            else:
                list(self.on_record(record))

    def _forget(self) -> None:
        """Forget all records."""
        for window in (self._losses, self._stride, self._leads, self._diversity, self._r_v, self.active):
            window.clear()

    def _update_active(self, alarm: Record) -> None:
        if alarm["raised"]:
            self.active[alarm["alarm"]] = alarm
        else:
            self.active.pop(alarm["alarm"], None)

    def _set(self, name: str, record: Record, raised: bool, **values: float | str) -> Iterator[Record]:
        """The record of the alarm, if it is raised or cleared here."""
        if not raised and name not in self.active:
            return
        message, remedy = self._advice[name]
        alarm = {key: record[key] for key in ("images", "step", "seconds")}
        alarm |= {"alarm": name, "raised": raised, "message": message.format(**values), "remedy": remedy}
        if not raised:
            alarm |= {"message": f"The alarm '{name}' is over.", "remedy": ""}
        changed = raised != (name in self.active)
        self._update_active(alarm)  # also keeps the values of an old alarm up to date
        if changed:
            yield alarm

    def _hysteresis(self, name: str, on: bool, off: bool) -> bool:
        """Whether an alarm is raised: it has another level to be raised at than to be cleared at."""
        return on or (name in self.active and not off)

    def _on_losses(self, record: Record, equilibrium_d: float) -> Iterator[Record]:
        # The term of the classes, as in Rob-GAN, is none of the game's.
        now_d, now_g = (
            record[name] - record.get(f"{name}/class", 0.0) for name in ("loss/discriminator", "loss/generator")
        )
        # How far G is behind. Where its loss has no level, as with hinge, real images must outscore generated ones.
        if self._equilibrium_g is not None:
            behind = now_g - self._equilibrium_g
        else:
            behind = record.get("d_real", 0.0) - record.get("d_fake", 0.0)
        self._losses.append((now_d, now_g, behind))
        self._stride.append(now_d)
        if len(self._stride) == STRIDE:
            level = self._level(fmean(self._stride), equilibrium_d)
            lead = 1 if level < LEAD_D else -1 if level > LEAD_G else 0
            self._leads.append(lead)
            self._stride.clear()
        if len(self._losses) < WINDOW:
            return
        loss_d, loss_g, behind = (fmean(column) for column in zip(*self._losses, strict=True))
        level = self._level(loss_d, equilibrium_d)
        values = {"loss_d": loss_d, "loss_g": loss_g, "equilibrium_d": equilibrium_d}
        d_wins = self._hysteresis("discriminator-wins", level < D_WINS, level > D_FAIR)
        # A D that is worse than a constant one is no win of G if G is no better than at the equilibrium.
        g_wins = self._hysteresis("generator-wins", level > G_WINS and behind < 0, level < G_FAIR)
        swings = self._swings()
        oscillates = self._hysteresis("oscillation", swings >= SWINGS, swings < SWINGS - 1)
        yield from self._set("discriminator-wins", record, d_wins, **values)
        yield from self._set("generator-wins", record, g_wins, **values)
        yield from self._set("oscillation", record, oscillates, swings=swings, long=LONG)

    def _level(self, loss_d: float, equilibrium_d: float) -> float:
        return (loss_d - self._least) / (equilibrium_d - self._least)

    def _swings(self) -> int:
        """How often the lead changed; a lead lasts until the other player has one."""
        leads = [lead for lead in self._leads if lead]
        return sum(a != b for a, b in pairwise(leads))

    def _on_diversity(self, record: Record) -> Iterator[Record]:
        if record["step"] < YOUNG:
            return
        self._diversity.append(record["diversity"])
        lowest, highest = min(self._diversity), max(self._diversity)
        # A young generator whose samples grow more diverse from grid to grid has not collapsed.
        grows = self._diversity[-1] > max(0.1, 1.2 * self._diversity[0])
        on = len(self._diversity) == IN_A_ROW and highest < COLLAPSED and not grows
        raised = self._hysteresis("mode-collapse", on, lowest > DIVERSE)
        yield from self._set("mode-collapse", record, raised, diversity=record["diversity"])

    def _on_overfitting(self, record: Record) -> Iterator[Record]:
        self._r_v.append(record["equilibrium/r_v"])
        on = len(self._r_v) == IN_A_ROW and min(self._r_v) > OVERFITS
        raised = self._hysteresis("discriminator-overfits", on, max(self._r_v) < FITS)
        yield from self._set("discriminator-overfits", record, raised, r_v=record["equilibrium/r_v"])
