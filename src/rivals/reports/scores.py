"""What ``rivals score`` found of a run: values with all that they depend on, and the sheet of nearest neighbours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rivals.reports.history import History, number
from rivals.reports.markup import Html, join, pairs, table, tag
from rivals.reports.neighbours import figure
from rivals.reports.words import setting, short

NUMBERS = "scores.json"
# What is told of each value in its own row; all the rest is the protocol.
OWN = ("metric", "name", "says", "value", "error", "unit", "settings", "notes")
SHEET = Html("""<b>Nearest neighbours.</b> On the left what the generator drew, the first ones of its seed, unchosen;
beside each the training images that lie closest to it, the closest first. A drawn image that is the same as one of
them was learnt by heart. No number detects that reliably, so look.""")
LIVE = Html("""<p>Of few images, always of the same latents, so it is too large: it compares moments of this run, and is
not to be compared with the values of other runs or papers.</p>""")


def section(history: History) -> Html:
    """The scores of a finished run, those that could not be had, and the sheet; empty if it was never scored."""
    found = _read(history)
    values = [value for value in found.get("values", []) if isinstance(value, dict) and "name" in value]
    parts: list[Html] = []
    for protocol in _protocols(values):
        rows = [_row(value) for value in values if _protocol(value) == protocol]
        parts.append(table(["metric", "value"], rows, "numbers"))
        entries = {str(key).replace("_", " "): setting(entry) for key, entry in protocol.items()}
        parts.append(tag("details", tag("summary", "Protocol"), pairs(entries, "pairs"), open=""))
    missing = [str(line) for line in found.get("missing", [])]
    if missing:
        parts.append(tag("p", "Could not be had:", class_="quiet"))
        parts.append(tag("ul", *(tag("li", line) for line in missing), class_="past"))
    return join(*parts, figure(history.folder, found.get("sheet"), SHEET), _live(history))


def _row(value: dict[str, Any]) -> list[str]:
    error = number(value.get("error"))
    told = short(value.get("value")) + (f" ± {error:.2g}" if error is not None else "")
    settings = value.get("settings")
    kept = ", ".join(f"{key} {setting(entry)}" for key, entry in settings.items()) if isinstance(settings, dict) else ""
    words = [str(word) for word in (value.get("says"), kept, *value.get("notes", [])) if word]
    unit = str(value.get("unit") or "")
    return [join(str(value["name"]), *(tag("small", word) for word in words)), f"{told} {unit}".strip()]


def _protocol(value: dict[str, Any]) -> dict[str, Any]:
    return {key: entry for key, entry in value.items() if key not in OWN}


def _protocols(values: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for value in values:
        if (protocol := _protocol(value)) not in found:
            found.append(protocol)
    return found


def _live(history: History) -> Html:
    """By what protocol the run was scored while it was trained."""
    protocol = history.part("score")
    if not protocol:
        return Html()
    entries = {str(key).replace("_", " "): setting(entry) for key, entry in protocol.items()}
    return join(tag("p", tag("b", "On the way.")), LIVE, pairs(entries, "pairs"))


def compared(histories: Sequence[History], names: Sequence[str]) -> Html:
    """The values of several runs side by side, with what makes them comparable; empty if none was scored."""
    tables = [[value for value in _read(history).get("values", []) if isinstance(value, dict)] for history in histories]
    heads = sorted({str(value.get("name")) for values in tables for value in values})
    if not heads:
        return Html()
    rows: list[list[str]] = []
    for place, (name, values) in enumerate(zip(names, tables, strict=True)):
        by_name = {str(value.get("name")): value for value in values}
        told = [_row(by_name[head])[1] if head in by_name else "–" for head in heads]
        last = values[-1] if values else {}
        counts = f"{setting(last.get('n_fake', '–'))} / {setting(last.get('n_real', '–'))}"
        rows.append([tag("a", name, href=f"#run-{place}"), *told, counts, setting(last.get("extractor", "–"))])
    return table(["run", *heads, "generated / real", "extractor"], rows, "compare")


def _read(history: History) -> dict[str, Any]:
    try:
        found = json.loads((history.folder / NUMBERS).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
