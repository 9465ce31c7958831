"""The tab of runs: their progress, training curves, sample grids and alarms."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.reports.formatting import STATE_NOTES, finite, format_count, format_duration
from rivals.reports.history import History
from rivals.reports.html import Html, color_legend, join, svg_figure, tag
from rivals.reports.plots.style import NARROW, RUN_COLORS, WIDE
from rivals.reports.plots.training import curves_svg
from rivals.reports.sample_timeline import read_frame, thin
from rivals.reports.sections import training
from rivals.reports.sections.common import left_out, run_legend
from rivals.studio.figure_cache import FigureCache
from rivals.studio.html_parts import alarm, errors_as_notices, notice, open_uri, picture_figure, ungrown
from rivals.studio.processes import RunProcesses
from rivals.studio.run_store import RunStore

MAX_GRIDS = 60  # on the timeline
MAX_RUNS = len(RUN_COLORS)  # compared: one color each
STALE_SECONDS = 120.0  # without a record, after which a run may have been killed

NO_RUNS = notice(
    "There are no runs yet. What is started here goes on when this page is closed; the first samples take seconds."
)


def run_progress(history: History) -> float | None:
    """How much of its planned length a run has done, from 0 to 1; None if it is not known."""
    until, n = history.section("config").get("until"), finite(history.section("data").get("n_train"))
    if not isinstance(until, str):
        return None
    try:
        progress = Duration.parse(until).progress(
            images=history.images,
            epochs=history.images / n if n else 0.0,
            steps=history.step,
            seconds=history.seconds,
        )
    except UserError:
        return None
    return min(progress, 1.0)


def run_state(history: History, processes: RunProcesses) -> str:
    """The state of a run; one that has been killed is only known by its silence."""
    state = str(history.info.get("state", "unknown"))
    if processes.is_running(history.folder):
        return "running" if state == "running" else "starting"
    if state != "running":
        return state
    try:
        silence = time.time() - (history.folder / "metrics.jsonl").stat().st_mtime
    except OSError:
        silence = 0.0
    return f"no records for {format_duration(silence)}" if silence > STALE_SECONDS else "running"


def run_list(store: RunStore, processes: RunProcesses) -> Html:
    """All runs with their progress, or why they cannot be read."""
    names = store.names()
    known = {store.folder(name) for name in names}
    rows = [_row(store, processes, name) for name in names]
    for folder in processes.alive():
        if folder not in known:
            rows.insert(
                0, tag("li", tag("b", folder.name), tag("span"), tag("span", "reading its images", class_="muted"))
            )
    failures = [alarm(tag("b", folder.name), ": ", message) for folder, message in processes.failures().items()]
    return join(*failures, tag("ul", *rows, class_="runs") if rows else NO_RUNS)


def _row(store: RunStore, processes: RunProcesses, name: str) -> Html:
    try:
        history = store.history(name)
    except UserError as error:
        return tag("li", tag("b", name), tag("span"), tag("span", str(error), class_="wrong"))
    progress, state = run_progress(history), run_state(history, processes)
    left = speed = ""
    if state == "running":
        if progress and history.seconds:
            left = f", {format_duration(history.seconds / progress * (1 - progress))} left"
        if last := history.last("images_per_second"):
            speed = f", {format_count(last[0])} images/s"
    percent = bar = ""
    if progress is not None:
        percent = f"{100 * progress:.0f}%, "
        bar = tag("progress", value=f"{progress:.3f}", max=1, aria_label=f"progress of {name}")
    raised = {str(event["alarm"]): bool(event.get("raised")) for event in history.alarms}
    n = sum(raised.values())
    alarms = tag("span", f"{n} alarm{'s' if n > 1 else ''}", class_="wrong") if n else ""
    done = f"{format_count(history.images)} images in {format_duration(history.seconds)}"
    text = tag("span", f"{state}: {percent}{done}{speed}{left}", class_="muted")
    return tag("li", tag("b", name), bar or tag("span"), text, alarms)


@errors_as_notices
def curves(store: RunStore, figures: FigureCache, names: Sequence[str], tab: str = "runs") -> Html:
    """The training curves of one run, or of several over each other."""
    if not names:
        return notice("Choose one or more runs to see their training curves.")
    if len(names) > MAX_RUNS:
        raise UserError(f"{len(names)} runs are too many for one figure: choose {MAX_RUNS} or fewer")
    histories = [store.history(name) for name in names]

    def make() -> Html:
        wide = curves_svg(histories, WIDE, f"{tab}-wide")
        narrow = curves_svg(histories, NARROW, f"{tab}-narrow")
        if wide is None or narrow is None:
            return notice("There are no training curves: nothing has been recorded yet, or the run does not train.")
        return join(color_legend(run_legend(names)) if len(names) > 1 else "", svg_figure(wide, narrow))

    return figures((tab, *names), tuple(history.version for history in histories), make)


def count_grids(store: RunStore, name: str) -> int:
    """The number of sample grids on the timeline of a run."""
    try:
        return len(thin(store.history(name).sample_grids, MAX_GRIDS))
    except UserError:
        return 0


@errors_as_notices
def sample_grid(store: RunStore, name: str, position: float) -> Html:
    """A sample grid of a run: position 0 is the first, 1 the newest."""
    if not name:
        return notice("Choose a run to see its sample grids.")
    history = store.history(name)
    records = thin(history.sample_grids, MAX_GRIDS)
    if not records:
        return notice("This run has no sample grids: only runs of 'train' make them, the first at the start.")
    record = records[round(min(max(position, 0.0), 1.0) * (len(records) - 1))]
    frame = read_frame(history, record)
    picture = open_uri(frame.uri) if frame else None
    if frame is None or picture is None:
        raise UserError(f"the sample grid '{record['sample_grid']}' of '{name}' is missing or cannot be read")
    diversity = "" if frame.diversity is None else f", diversity {frame.diversity:.2f} (real images: 1)"
    caption = f"{name}: {format_count(frame.images)} images seen, {format_duration(frame.seconds)}{diversity}."
    return picture_figure(
        ungrown(picture, history.info), f"samples of {name} after {format_count(frame.images)} images", caption
    )


@errors_as_notices
def health(store: RunStore, names: Sequence[str]) -> Html:
    """The alarms of each run, with what to do about them."""
    parts = []
    for name in names:
        history = store.history(name)
        state = str(history.info.get("state", "unknown"))
        parts += [tag("h4", name), left_out(history), training.health(history)]
        if STATE_NOTES.get(state):
            parts.append(tag("p", f"{state.capitalize()}: {STATE_NOTES[state]}.", class_="muted"))
    return join(*parts) if parts else notice("Choose a run to see its alarms.")
