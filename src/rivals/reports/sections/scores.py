"""The results of ``rivals score``: values with their protocol, and the grid of nearest training images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Required, TypedDict

from rivals.base.run_folder import Record
from rivals.reports.formatting import MISSING, finite, format_number, format_setting
from rivals.reports.history import History
from rivals.reports.html import Html, join, run_link, table, tag
from rivals.reports.sections.common import EMPTY, settings_list
from rivals.reports.sections.neighbors import picture_figure

FILE = "scores.json"
# Each value has these for itself; all other entries are the protocol that several values share.
VALUE_KEYS = ("metric", "name", "description", "value", "error", "unit", "settings", "notes")
NEIGHBORS_NOTE = Html("""<b>Nearest training images.</b> Left: the first generated images of the seed, not selected.
Next to each: its nearest training images in feature space, the nearest first. A generated image that equals one of them
was memorized. No number detects that reliably, so look.""")
DURING_TRAINING_NOTE = Html("""<p>From few images, always of the same latents, so it is biased upward: it compares times
of this run, not this run with other runs or papers.</p>""")


class ScoreValue(TypedDict, total=False):
    """A score. All further entries are its protocol."""

    name: Required[str]
    description: str
    value: float | None
    error: float | None
    unit: str
    settings: dict[str, Any]
    notes: list[str]


class ScoresFile(TypedDict, total=False):
    """``scores.json``."""

    values: Required[list[ScoreValue]]
    missing: list[str]
    nearest_grid: str | None


def section(history: History) -> Html:
    """The scores of a run, the metrics that are missing, and the nearest training images; empty without scores."""
    content = history.read_json(FILE, ScoresFile)
    if content is None:
        return _protocol_during_training(history)
    values = [{**value} for value in content["values"]]
    parts: list[Html] = []
    for protocol in _distinct_protocols(values):
        rows = [_row(value) for value in values if _protocol(value) == protocol]
        parts.append(table(["metric", "value"], rows, "numbers"))
        parts.append(tag("details", tag("summary", "Protocol"), settings_list(protocol), open=""))
    if missing := content.get("missing", []):
        parts.append(tag("p", "Not available:", class_="muted"))
        parts.append(tag("ul", *(tag("li", line) for line in missing), class_="events"))
    note = _of_a_part(values[0]) if values else NEIGHBORS_NOTE
    figure = picture_figure(history.folder, content.get("nearest_grid"), note)
    return join(*parts, figure, _protocol_during_training(history))


def _of_a_part(value: Record) -> Html:
    """What the grid of neighbors shows, and of how many real images."""
    n, of = value.get("n_real"), value.get("real_of")
    if not (isinstance(n, int) and isinstance(of, int) and n < of):
        return NEIGHBORS_NOTE
    part = f" Here the neighbors are among {n:,} of {of:,} real images: copies of the others go unseen."
    return join(NEIGHBORS_NOTE, part)


def comparison(histories: Sequence[History], names: Sequence[str]) -> Html:
    """The scores of several runs side by side; empty if none has any."""
    files = [history.read_json(FILE, ScoresFile) for history in histories]
    found: list[list[Record]] = [[{**value} for value in file["values"]] if file else [] for file in files]
    metrics = sorted({value["name"] for values in found for value in values})
    if not metrics:
        return EMPTY
    rows: list[list[str]] = []
    for index, (name, values) in enumerate(zip(names, found, strict=True)):
        by_name = {value["name"]: value for value in values}
        cells = [_row(by_name[metric])[1] if metric in by_name else MISSING for metric in metrics]
        last = values[-1] if values else {}
        counts = f"{format_setting(last.get('n_fake', MISSING))} / {format_setting(last.get('n_real', MISSING))}"
        rows.append([run_link(name, index), *cells, counts, format_setting(last.get("extractor", MISSING))])
    return table(["run", *metrics, "generated / real", "extractor"], rows, "compare")


def _row(value: Record) -> list[str]:
    error = finite(value.get("error"))
    number = format_number(value.get("value")) + (f" ± {error:.2g}" if error is not None else "")
    settings = value.get("settings") or {}
    written = ", ".join(f"{k} {format_setting(v)}" for k, v in settings.items())
    notes = [note for note in (value.get("description"), written, *value.get("notes", [])) if note]
    unit = value.get("unit") or ""
    return [join(value["name"], *(tag("small", note) for note in notes)), f"{number} {unit}".strip()]


def _protocol(value: Record) -> Record:
    return {key: entry for key, entry in value.items() if key not in VALUE_KEYS}


def _distinct_protocols(values: Sequence[Record]) -> list[Record]:
    found: list[Record] = []
    for value in values:
        if (protocol := _protocol(value)) not in found:
            found.append(protocol)
    return found


def _protocol_during_training(history: History) -> Html:
    """The protocol of the scores taken during training."""
    protocol = history.section("score_protocol")
    if not protocol:
        return EMPTY
    return join(tag("p", tag("b", "Scores during training.")), DURING_TRAINING_NOTE, settings_list(protocol))
