"""The sections of ``rivals attack --attack patch`` and ``--attack universal``."""

from __future__ import annotations

from rivals.reports.formatting import format_count, format_interval, format_percent
from rivals.reports.history import History, get_object
from rivals.reports.html import Html, join, table
from rivals.reports.sections import common
from rivals.reports.sections.common import Card, note_list, notice

EXPLANATION = Html("""<p>A <b>universal perturbation</b> is one change, within eps, that is added to all images; an
<b>adversarial patch</b> is a picture that is put on them at random places, sizes and rotations. Either is learned on
one
half of the images and evaluated on the other. The <b>control</b> is a random one in its place.</p>""")
ROWS = (
    ("clean", "clean accuracy"),
    ("control", "accuracy with a random one"),
    ("attacked", "accuracy under attack"),
    ("reached", "seen as the target"),
)


def is_image_agnostic(history: History) -> bool:
    """Whether the run is one of a patch or a universal perturbation."""
    attack = str(history.section("config").get("attack", "")).strip()
    return history.info.get("command") == "attack" and attack.partition("(")[0].strip() in ("patch", "universal")


def key_figures(history: History) -> list[Card]:
    """The accuracies, and what was evaluated."""
    results = history.section("results")
    cards = [
        (name.capitalize(), format_percent(found), format_interval(found))
        for key, name in ROWS
        if (found := get_object(results, key))
    ]
    return [*cards, *common.model_cards(history)]


def sections(history: History) -> list[tuple[str, Html]]:
    """The accuracies as a table, where the picture is, and the protocol."""
    results = history.section("results")
    if not results:
        return [("Accuracy", notice("There are no results yet.", is_alarm=False))]
    rows = [
        [name, format_percent(found), format_interval(found), format_count(found.get("of"))]
        for key, name in ROWS
        if (found := get_object(results, key))
    ]
    where = [*results.get("notes", []), f"the picture is in {results.get('picture')}"]
    return [
        ("Accuracy", join(note_list(where), table(["", "share", "95% interval", "images"], rows, "numbers all"))),
        ("Definitions", EXPLANATION),
        ("Protocol", common.protocol(history)),
    ]
