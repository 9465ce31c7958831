"""The sections of ``rivals attack --attack corruptions``."""

from __future__ import annotations

from rivals.reports.formatting import MISSING, finite, format_interval, format_percent
from rivals.reports.history import History, get_object, get_objects
from rivals.reports.html import Html, join, svg_figure, table, tag
from rivals.reports.plots.corruptions import corruption_svgs
from rivals.reports.sections import common
from rivals.reports.sections.common import EMPTY, Card, note_list, notice

FIGURE_NOTE = "A dot for each severity, the larger the stronger; dashed: clean accuracy."
EXPLANATION = Html("""<p><b>Common corruptions</b> (Hendrycks &amp; Dietterich 2019) are not adversarial: 15 kinds of
noise, blur, weather and compression, in 5 severities. The <b>mean corruption error</b> (mCE) is the mean over kinds of
the mean error over severities; for models of ImageNet's 1,000 classes each kind is first divided by AlexNet's
error.</p>""")


def is_corruptions(history: History) -> bool:
    """Whether the run is an evaluation under corruptions."""
    return history.info.get("command") == "attack" and history.section("config").get("attack") == "corruptions"


def key_figures(history: History) -> list[Card]:
    """Clean accuracy, the mean under corruptions, and what was evaluated."""
    results = history.section("results")
    cards: list[Card] = []
    if clean := get_object(results, "clean"):
        cards.append(("Clean accuracy", format_percent(clean), format_interval(clean)))
    for name, key, note in (
        ("Corrupted accuracy", "accuracy", "mean over kinds and severities"),
        ("mCE", "mce", "relative to AlexNet" if results.get("mce_relative_to_alexnet") else "mean corruption error"),
    ):
        value = finite(results.get(key))
        cards.append((name, MISSING if value is None else f"{100 * value:.1f}%", note))
    return [*cards, *common.model_cards(history)]


def sections(history: History) -> list[tuple[str, Html]]:
    """The accuracies as a figure and a table, notes and the protocol."""
    results = history.section("results")
    if not results:
        return [("Accuracy under corruptions", notice("There are no results yet.", is_alarm=False))]
    rows, values = [], {}
    for entry in get_objects(results, "corruptions"):
        name, found = str(entry.get("corruption", "")), get_objects(entry, "severities")
        numbers = [value for each in found if (value := finite(each.get("value"))) is not None]
        if numbers:
            values[name] = numbers
            rows.append(
                [name.replace("_", " "), *map(format_percent, found), f"{100 * sum(numbers) / len(numbers):.1f}%"]
            )
    figure = EMPTY
    if values:
        clean = finite(get_object(results, "clean").get("value"))
        figure = join(tag("p", FIGURE_NOTE, class_="muted"), svg_figure(*corruption_svgs(values, clean)))
    head = ["corruption", "severity 1", "2", "3", "4", "5", "mean"]
    return [
        (
            "Accuracy under corruptions",
            join(note_list(results.get("notes", [])), figure, table(head, rows, "numbers all")),
        ),
        ("Definitions", EXPLANATION),
        ("Protocol", common.protocol(history)),
    ]
