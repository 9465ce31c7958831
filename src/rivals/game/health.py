"""A run that watches itself: alarms in plain words, with what to do.

All levels are relative to the draw between the players: ``L_D*`` and ``L_G*``, the losses at the equilibrium of the
game that is played (for binary cross-entropy 2 log 2 and log 2). Losses without such a level, as the Wasserstein
distance, have no alarm for the balance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from statistics import fmean
from typing import Any

Record = dict[str, Any]

WINDOW = 200  # batches over which the losses are averaged
LONG = 1000  # batches over which changes of the lead are counted
STRIDE = 20  # batches averaged before a lead is read
SWINGS = 4  # changes of the lead within LONG that make an oscillation
D_WINS, D_HOLDS = 0.05, 0.15  # L_D / L_D*: below the first D has won, above the second it has not
G_WINS = 1.25  # L_D / L_D*: above, D does worse than if it always answered the same
LEAD_D, LEAD_G = 0.6, 1.2  # L_D / L_D*: below the first D leads, above the second G does
COLLAPSE, VARIED = 0.35, 0.5  # diversity: below the first collapsed, above the second not
OVERFITS, FITS = 0.5, 0.35  # r_v: above the first D overfits, below the second it does not
ROW = 3  # sheets in a row that make a collapse, or looks that make overfitting
YOUNG = 300  # batches before which every generator draws much the same for everyone

ADVICE: dict[str, tuple[str, str]] = {
    "discriminator-wins": (
        "The discriminator wins: it tells real from generated almost without error (L_D = {loss_d:.3g}, the draw is "
        "{draw_d:.3g}; L_G = {loss_g:.3g}), and a generator that is always caught learns little.",
        "Make the game closer: add a gradient penalty (--r1 0.1 --r2 0.1), lower --discriminator-lr, blur both sides "
        "with --instance-noise 0.2, or take the relativistic loss (--loss relativistic).",
    ),
    "generator-wins": (
        "The generator wins: the discriminator does worse than one that always gives the same answer (L_D = "
        "{loss_d:.3g}, the draw is {draw_d:.3g}), so it has nothing to teach.",
        "Strengthen the discriminator: raise --discriminator-lr, give it more turns (--discriminator-turns 2) or more "
        "width, or weaken its penalties (--r1, --r2) and --instance-noise.",
    ),
    "oscillation": (
        "The game goes in circles: the lead has changed hands {swings} times in the last {long} batches.",
        "Damp it: add R1 (--r1 0.1), lower both learning rates, set --beta1 0, and judge by the averaged generator "
        "(--ema 10k).",
    ),
    "mode-collapse": (
        "Mode collapse: the generator repeats itself. The sample sheet is {diversity:.0%} as varied as real images.",
        "Keep the game from running away: --loss relativistic, a gradient penalty (--r1 0.1 --r2 0.1), a lower "
        "--generator-lr, a larger --batch.",
    ),
    "discriminator-overfits": (
        "The discriminator overfits: to it, real images that it has not learnt from are nearer to generated ones than "
        "to those it knows (r_v = {r_v:.2f}; 0 is none of it, 1 all), so the generator is taught to copy.",
        "Show it changed images (--augment diff), or more of them; the best state so far is kept with --score-every.",
    ),
}


class Health:
    """Sees every record of a run and says when something is wrong, and when it is over.

    Args:
        equilibrium: ``loss/discriminator`` and ``loss/generator`` at the draw; None where it leaves them open.
    """

    def __init__(self, equilibrium: Mapping[str, float | None]) -> None:
        self._draw_d = equilibrium.get("loss/discriminator")
        self._draw_g = equilibrium.get("loss/generator")
        self._losses: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._stride: list[float] = []
        self._leads: deque[int] = deque(maxlen=LONG // STRIDE)
        self._sheets: deque[float] = deque(maxlen=ROW)
        self._overfitting: deque[float] = deque(maxlen=ROW)
        self.active: dict[str, Record] = {}

    def __call__(self, record: Record) -> Iterator[Record]:
        """Take a record; give an alarm's record when one is raised or cleared."""
        if record.get("diversity") is not None:
            yield from self._see_sheet(record)
        elif "equilibrium/r_v" in record:
            yield from self._see_look(record)
        elif "loss/discriminator" in record and "loss/generator" in record and self._draw_d:
            yield from self._see_losses(record, self._draw_d)

    def recall(self, past: Iterable[Record]) -> None:
        """Forget what was seen, and take the past of a run, in whose journal the alarms already stand."""
        for window in (self._losses, self._stride, self._leads, self._sheets, self._overfitting, self.active):
            window.clear()
        for record in past:
            if "alarm" in record:
                self._hold(record)
            else:
                list(self(record))

    def _hold(self, record: Record) -> None:
        if record["raised"]:
            self.active[record["alarm"]] = record
        else:
            self.active.pop(record["alarm"], None)

    def _set(self, alarm: str, record: Record, raised: bool, **facts: float) -> Iterator[Record]:
        if not raised and alarm not in self.active:
            return
        says, remedy = ADVICE[alarm]
        found = {key: record[key] for key in ("images", "step", "seconds")}
        found |= {"alarm": alarm, "raised": raised, "says": says.format(**facts), "remedy": remedy}
        if not raised:
            found |= {"says": f"The alarm '{alarm}' is over.", "remedy": ""}
        news = raised != (alarm in self.active)
        self._hold(found)  # an old alarm's figures are kept fresh, but it is not raised again
        if news:
            yield found

    def _see_losses(self, record: Record, draw: float) -> Iterator[Record]:
        self._losses.append((record["loss/discriminator"], record["loss/generator"]))
        self._stride.append(record["loss/discriminator"])
        if len(self._stride) == STRIDE:
            level = fmean(self._stride) / draw
            lead = 1 if level < LEAD_D else -1 if level > LEAD_G else 0
            self._leads.append(lead)
            self._stride.clear()
        if len(self._losses) < WINDOW:
            return
        loss_d, loss_g = (fmean(column) for column in zip(*self._losses, strict=True))
        level = loss_d / draw
        facts = {"loss_d": loss_d, "loss_g": loss_g, "draw_d": draw}

        def verdict(alarm: str, on: bool, off: bool) -> bool:
            return on or (alarm in self.active and not off)

        d_wins = verdict("discriminator-wins", level < D_WINS, level > D_HOLDS)
        g_behind = self._draw_g is None or loss_g < self._draw_g
        g_wins = verdict("generator-wins", level > G_WINS and g_behind, level < 1.1)
        swings = self._swings()
        circles = verdict("oscillation", swings >= SWINGS, swings < SWINGS - 1)
        yield from self._set("discriminator-wins", record, d_wins, **facts)
        yield from self._set("generator-wins", record, g_wins, **facts)
        yield from self._set("oscillation", record, circles, swings=swings, long=LONG)

    def _swings(self) -> int:
        """How often the lead changed hands; a lead lasts until the other side has one."""
        held = [lead for lead in self._leads if lead]
        return sum(a != b for a, b in pairwise(held))

    def _see_sheet(self, record: Record) -> Iterator[Record]:
        if record["step"] < YOUNG:
            return
        self._sheets.append(record["diversity"])
        worst, best = min(self._sheets), max(self._sheets)
        # A young generator that grows more varied from sheet to sheet is on its way, not collapsed.
        grows = self._sheets[-1] > max(0.1, 1.2 * self._sheets[0])
        on = len(self._sheets) == ROW and best < COLLAPSE and not grows
        still = "mode-collapse" in self.active and not worst > VARIED
        yield from self._set("mode-collapse", record, on or still, diversity=record["diversity"])

    def _see_look(self, record: Record) -> Iterator[Record]:
        self._overfitting.append(record["equilibrium/r_v"])
        on = len(self._overfitting) == ROW and min(self._overfitting) > OVERFITS
        still = "discriminator-overfits" in self.active and not max(self._overfitting) < FITS
        yield from self._set("discriminator-overfits", record, on or still, r_v=record["equilibrium/r_v"])
