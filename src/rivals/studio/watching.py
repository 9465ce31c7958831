"""The tab of runs: how they come along, their curves over each other, sample sheets and alarms."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence

from rivals.base.errors import UserError
from rivals.base.spans import Span
from rivals.reports import sections
from rivals.reports.curves import NARROW, RUNS, VARIABLES, WIDE, curves_svg
from rivals.reports.history import History, number
from rivals.reports.markup import Html, join, tag
from rivals.reports.timeline import frame, thin
from rivals.reports.words import STATES, count, duration
from rivals.studio.children import Children
from rivals.studio.pictures import alarm, calm, shown, spoken
from rivals.studio.shelf import Shelf

SHEETS = 60  # on the timeline, at most
MOST = len(RUNS)  # runs over each other: one colour each
QUIET = 120.0  # seconds without a record, after which a run is asked about
SHARE = 20  # a figure that took t seconds to draw is kept for this many t: so a page costs a core 5 % at most
FIGURES = 32  # kept

EMPTY = calm(
    "There is no run here yet. Begin one below: mnist5k needs no download, and the first picture comes in seconds."
)


class Figures:
    """Figures drawn once for all who look, and anew only when there is something new and the last one has paid off."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Hashable, float, Html]] = {}
        self._lock = threading.Lock()

    def __call__(self, what: Hashable, mark: Hashable, draw: Callable[[], Html]) -> Html:
        """The figure called ``what``; ``mark`` changes when it would be another."""
        with self._lock:
            kept = self._kept.get(what)
            if kept is not None and (kept[0] == mark or time.monotonic() < kept[1]):
                return kept[2]
            began = time.monotonic()
            figure = draw()
            ended = time.monotonic()
            while len(self._kept) >= FIGURES:
                self._kept.pop(next(iter(self._kept)))
            self._kept[what] = mark, ended + SHARE * (ended - began), figure
            return figure


def progress(history: History) -> float | None:
    """The share of its length that a run has come, or None if it does not tell."""
    until, n = history.part("config").get("until"), number(history.part("data").get("n"))
    if not isinstance(until, str):
        return None
    try:
        along = Span.parse(until).progress(
            images=history.images,
            epochs=history.images / n if n else 0.0,
            steps=history.step,
            seconds=history.seconds,
        )
    except UserError:
        return None
    return min(along, 1.0)


def state(history: History, children: Children) -> str:
    """How a run stands, in a few words."""
    told = str(history.about.get("state", "unknown"))
    if children.running(history.folder):
        return "running" if told == "running" else "starting"
    if told != "running":
        return told
    try:
        silent = time.time() - (history.folder / "metrics.jsonl").stat().st_mtime
    except OSError:
        silent = 0.0
    return f"no word for {duration(silent)}" if silent > QUIET else "running"


def listing(shelf: Shelf, children: Children) -> Html:
    """All runs with their progress; what cannot be read is told in its place."""
    names = shelf.names()
    known = {shelf.folder(name) for name in names}
    rows = [_row(shelf, children, name) for name in names]
    for folder in children.alive():
        if folder not in known:
            rows.insert(0, tag("li", tag("b", folder.name), tag("span", "reading its images", class_="quiet")))
    told = [alarm(tag("b", folder.name), ": ", says) for folder, says in children.failures().items()]
    if not rows:
        return join(*told, EMPTY)
    return join(*told, tag("ul", *rows, class_="runs"))


def _row(shelf: Shelf, children: Children, name: str) -> Html:
    try:
        history = shelf.history(name)
    except UserError as error:
        return tag("li", tag("b", name), tag("span", str(error), class_="wrong"))
    done, how = progress(history), state(history, children)
    left = ""
    if how == "running" and done and history.seconds:
        left = f", {duration(history.seconds / done * (1 - done))} left"
    speed = history.last("images_per_second")
    pace = f", {count(speed[0])} images/s" if speed and how == "running" else ""
    share = f"{100 * done:.0f} %, " if done is not None else ""
    raised = {str(event["alarm"]): bool(event.get("raised")) for event in history.alarms}
    troubled = sum(raised.values())
    note = tag("span", f"{troubled} alarm{'s' if troubled > 1 else ''}", class_="wrong") if troubled else ""
    bar = (
        tag("progress", value=f"{done:.3f}", max=1, aria_label=f"progress of {name}")
        if done is not None
        else tag("span")
    )
    line = f"{how}: {share}{count(history.images)} images in {duration(history.seconds)}{pace}{left}"
    return tag("li", tag("b", name), bar, tag("span", line, class_="quiet"), note)


@spoken
def curves(shelf: Shelf, figures: Figures, names: Sequence[str], tab: str = "runs") -> Html:
    """The curves of one run in full, or of several over each other."""
    if not names:
        return calm("Choose one run or several, and their curves are drawn here.")
    if len(names) > MOST:
        raise UserError(f"{len(names)} runs over each other cannot be told apart: choose {MOST} or fewer")
    histories = [shelf.history(name) for name in names]

    def draw() -> Html:
        drawn = []
        for layout, kind in ((WIDE, "wide"), (NARROW, "narrow")):
            svg = curves_svg(histories, layout, f"{tab}-{kind}")
            if svg is None:
                return calm("Nothing has been recorded yet: the curves begin with the first step.")
            drawn.append(tag("div", Html(svg), class_=kind))
        return join(_legend(names), tag("figure", *drawn, class_="curves"))

    return figures((tab, *names), tuple(history.mark for history in histories), draw)


def _legend(names: Sequence[str]) -> Html:
    if len(names) == 1:
        return Html()
    entries = [
        tag("span", tag("i", style=f"background: {VARIABLES[colour]}"), name)
        for name, colour in zip(names, RUNS, strict=False)
    ]
    return tag("p", *entries, class_="legend")


def sheets(shelf: Shelf, name: str) -> int:
    """How many sheets the timeline of a run has."""
    try:
        return len(thin(shelf.history(name).sheets, SHEETS))
    except UserError:
        return 0


@spoken
def sheet(shelf: Shelf, name: str, share: float) -> Html:
    """The sample sheet at a share of a run's timeline: 0 for the first, 1 for the newest."""
    if not name:
        return calm("Choose a run, and its sample sheets are shown here.")
    history = shelf.history(name)
    chosen = thin(history.sheets, SHEETS)
    if not chosen:
        return calm("This run has drawn no sheet: only runs of 'train' do, the first as they begin.")
    record = chosen[round(min(max(share, 0.0), 1.0) * (len(chosen) - 1))]
    found = frame(history, record)
    if found is None:
        raise UserError(f"the sheet '{record['sheet']}' of '{name}' is missing or cannot be read")
    varied = "" if found.diversity is None else f", diversity {found.diversity:.2f} (real images have 1)"
    place = f"{name}: {count(found.images)} images seen, {duration(found.seconds)}{varied}."
    return shown(found.uri, f"samples of {name} after {count(found.images)} images", place)


@spoken
def health(shelf: Shelf, names: Sequence[str]) -> Html:
    """What each run says of its health, with what to do about it."""
    parts = []
    for name in names:
        history = shelf.history(name)
        told = str(history.about.get("state", "unknown"))
        parts += [tag("h4", name), sections.health(history)]
        if STATES.get(told):
            parts.append(tag("p", f"{told.capitalize()}: {STATES[told]}.", class_="quiet"))
    return join(*parts) if parts else calm("Choose a run, and its alarms stand here.")
