"""What the sections of several kinds of runs share: the header, notices, and how the numbers were made."""

from __future__ import annotations

from collections.abc import Sequence

from rivals.base.run_folder import Record
from rivals.reports.formatting import (
    STATE_NOTES,
    format_count,
    format_duration,
    format_eps,
    format_setting,
    sentence,
)
from rivals.reports.history import History, get_object
from rivals.reports.html import Html, cards, definitions, join, tag
from rivals.reports.plots.style import CSS_COLORS, run_color

EMPTY = Html()
MAX_CLASSES = 200  # that are listed
Card = tuple[str, str, str]  # term, value, note


def header(history: History, title: str, subtitle: str, level: str, figures: Sequence[Card]) -> Html:
    """Title, when the run started, and its key figures as cards."""
    created = str(history.info.get("created", ""))[:16].replace("T", " ")
    line = tag("p", subtitle, f" · started {created}" if created else "", class_="muted")
    return join(tag(level, title), line, cards(figures))


def state_card(history: History) -> Card:
    """The state of the run, and what it means."""
    state = str(history.info.get("state", "unknown"))
    return "State", state.capitalize(), STATE_NOTES.get(state, "")


def model_cards(history: History) -> list[Card]:
    """The images, the model, the time and the state of an evaluation."""
    data, n = history.section("data"), history.section("results").get("n", history.section("data").get("n"))
    return [
        ("Images", format_count(n), f"of {format_count(data.get('of'))} of {data.get('name', '?')}"),
        ("Model", model_name(history), f"{format_count(history.section('model').get('parameters'))} parameters"),
        ("Time", format_duration(history.seconds), str(history.info.get("device", ""))),
        state_card(history),
    ]


def model_name(history: History) -> str:
    """The name of the evaluated model: of a path its folder."""
    name = str(history.section("model").get("name", "model"))
    *before, last = name.split("/")
    return before[-1] if before and last.startswith("classifier.") else last.removesuffix(".safetensors")


def notice(text: str, remedy: str = "", *, is_alarm: bool) -> Html:
    """A box: an alarm with its remedy, or that all is well."""
    fix = tag("p", tag("b", "What to do: "), remedy) if remedy else ""
    return tag("div", tag("p", tag("b", text) if is_alarm else text), fix, class_="alarm" if is_alarm else "ok")


def left_out(history: History) -> Html:
    """What the page lacks because files of the run are damaged; empty if nothing is."""
    return join(*(notice(sentence(f"Left out: {problem}"), is_alarm=True) for problem in history.problems))


def note_list(notes: Sequence[str]) -> Html:
    """Notes as a list of sentences."""
    return tag("ul", *(tag("li", sentence(note)) for note in notes), class_="events") if notes else EMPTY


def run_legend(names: Sequence[str]) -> list[tuple[str, str]]:
    """The entries of a legend: each name with the color of its place."""
    return [(CSS_COLORS[run_color(index)], name) for index, name in enumerate(names)]


def classes(history: History) -> Html:
    """The names of the classes with their indices, as labels, predictions and ``--label`` count them."""
    names = history.section("data").get("classes")
    if not isinstance(names, list) or not names:
        return EMPTY
    named = [f"{index}: {name}" for index, name in enumerate(names[:MAX_CLASSES])]
    more = f", and so on to {len(names) - 1}: {names[-1]}" if len(names) > MAX_CLASSES else ""
    return tag("p", ", ".join(named) + more)


def protocol(history: History) -> Html:
    """How the numbers of an evaluation were made: its configuration, and what was resolved on the way."""
    entries = {**history.section("config"), **get_object(history.section("results"), "protocol")}
    flat = {key: value for key, value in entries.items() if not isinstance(value, dict)}
    if isinstance(radii := flat.get("eps"), list):
        flat["eps"] = ", ".join(format_eps(eps) for eps in radii)
    return settings_list(flat)


def settings_list(entries: Record) -> Html:
    """Settings by their keys, and their values."""
    return definitions({key: format_setting(value) for key, value in entries.items()}, "settings") if entries else EMPTY
