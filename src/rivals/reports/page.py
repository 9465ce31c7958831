"""The report: one HTML file that holds everything it shows and asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from itertools import chain
from pathlib import Path
from string import Template

from rivals.base.errors import UserError
from rivals.base.files import write_atomically
from rivals.reports import certified, comparison, equilibrium, neighbours, robustness, scores, sections
from rivals.reports.history import History
from rivals.reports.markup import Html, join, table, tag
from rivals.reports.run import Run
from rivals.reports.timeline import frames
from rivals.reports.words import count, duration, setting, short

BUDGET = 6_000_000  # bytes for all sheets of a page, which is to stay below 8 MB

# What a comparison says of how each run ended: a heading and the number whose last twentieth is averaged.
ENDINGS = {
    "D’s loss": "loss/discriminator",
    "G’s loss": "loss/generator",
    "D(real)": "d_real",
    "D(fake)": "d_fake",
    "diversity": "diversity",
    "images/s": "images_per_second",
}
# What happens in an act of a demo, by the verb that played it.
ACTS = {
    "train": Html("""Two networks play against each other: one learns to draw, the other to tell what is drawn from what
is real. Drag the slider to see the drawings come along."""),
    "harden": Html("""A classifier has learnt to tell images apart. An attack changes each so little that to the eye it
stays what it is, and the classifier is fooled. Then it learns from such images, an attack solved afresh for each, and
is attacked again."""),
}


def write_report(runs: Sequence[Run], dest: Path) -> Path:
    """Write the report of one run, or of several compared, to one self-contained HTML file.

    Args:
        runs: the runs; what their records lack is left out of the page.
        dest: the file to write.

    Returns:
        ``dest``.

    Raises:
        UserError: no runs, or the file cannot be written.
    """
    if not runs:
        raise UserError("there is no run to report on: name one or more run folders")
    histories = [History(run) for run in runs]
    names = _names(histories)
    share = BUDGET // len(runs)
    later = _acts(histories[0]) if len(runs) == 1 else []
    if later:
        title = f"A play in {1 + len(later)} acts"
        acts = [
            (history, f"Act {place}: {_heading(history)}") for place, history in enumerate([histories[0], *later], 1)
        ]
        links = [tag("li", tag("a", name, href=f"#run-{place}")) for place, (_, name) in enumerate(acts)]
        body = [tag("h1", title), tag("ul", *links, class_="past")]
        for place, (history, name) in enumerate(acts):
            told = tag("p", ACTS[verb]) if (verb := history.about.get("verb")) in ACTS else ""
            top = _header(history, name, f"run {history.folder.name}", "h2")
            inside = [top, told, _run(history, place, share, "h3", alone=True)]
            body.append(tag("section", *inside, class_="run", id=f"run-{place}"))
    elif len(runs) == 1:
        title = _heading(histories[0])
        body = [_header(histories[0], title, f"run {names[0]}", "h1"), _run(histories[0], 0, share, "h2", alone=True)]
    else:
        title = f"{len(runs)} runs compared"
        body = [tag("h1", title), _comparison(histories, names)]
        for place, (history, name) in enumerate(zip(histories, names, strict=True)):
            top = _header(history, name, _heading(history), "h2")
            inside = [top, _run(history, place, share, "h3", alone=False)]
            body.append(tag("section", *inside, class_="run", id=f"run-{place}"))
    body.append(tag("footer", "Made by Rivals. This page is complete in itself: keep it, mail it, print it."))

    room = files("rivals.reports")
    script = (room / "report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = Template((room / "report.html").read_text("utf-8")).substitute(
        title=escape(title),
        style=(room / "report.css").read_text("utf-8"),
        script=script,
        digest=f"sha256-{digest}",
        body=join(*body),
    )
    write_atomically(dest, page.encode("utf-8", "replace"))
    return dest


def _names(histories: Sequence[History]) -> list[str]:
    """The runs' folder names, or their whole paths where two are called the same."""
    names = [history.folder.resolve().name for history in histories]
    return [n if names.count(n) == 1 else str(h.folder) for n, h in zip(names, histories, strict=True)]


def _acts(history: History) -> list[History]:
    """The runs inside a run's folder that are told on its page, after it: the further acts of a demo."""
    names = history.about.get("acts")
    folders = [history.folder / str(name) for name in names] if isinstance(names, list) else []
    inside = [folder for folder in folders if folder.resolve().parent == history.folder.resolve()]
    return [History(Run.open(folder)) for folder in inside if (folder / "run.json").exists()]


def _heading(history: History) -> str:
    if certified.is_certificate(history):
        return certified.heading(history)
    return robustness.heading(history) if robustness.is_attack(history) else sections.heading(history)


def _header(history: History, title: str, subtitle: str, level: str) -> Html:
    if certified.is_certificate(history):
        return certified.header(history, title, subtitle, level)
    made = robustness.header if robustness.is_attack(history) else sections.header
    return made(history, title, subtitle, level)


def _run(history: History, place: int, budget: int, level: str, *, alone: bool) -> Html:
    """All sections of one run below its title. Runs that are compared, not ``alone``, share one figure of curves."""
    last = [("Environment", sections.environment(history.about)), ("Do it again", sections.command(history.about))]
    if robustness.is_attack(history):
        return _parts([*robustness.sections(history), ("Protocol", robustness.protocol(history)), *last], level)
    if certified.is_certificate(history):
        return _parts([*certified.sections(history), *last], level)
    prefix = f"run-{place}-" if place else ""
    parts = [
        ("Health", sections.health(history)),
        *comparison.sections(history, prefix),
        ("Samples", sections.timeline(frames(history, budget), place)),
        ("Closest training images", neighbours.section(history)),
        ("How far from the draw", equilibrium.section(history, prefix) if alone else Html()),
        ("Scores", scores.section(history)),
        ("Curves", sections.curves([history], prefix=prefix) if alone else Html()),
        ("The game", sections.game([history]) if alone else Html()),
        ("At the end", sections.numbers(history)),
        ("Configuration", sections.configuration(history.about)),
        *last,
    ]
    return _parts(parts, level)


def _parts(parts: Sequence[tuple[str, Html]], level: str) -> Html:
    """Sections under headings of a level, without those that are empty."""
    filled = [(title, inside) for title, inside in parts if inside]
    return join(*(tag("section", tag(level, title), inside, class_="part") for title, inside in filled))


def _comparison(histories: Sequence[History], names: Sequence[str]) -> Html:
    """The runs side by side: how they ended, which settings differ, and their curves over each other."""
    links = [tag("a", name, href=f"#run-{place}") for place, name in enumerate(names)]
    keys = {key for history in histories for key in history.keys}
    endings = {name: key for name, key in ENDINGS.items() if key in keys}
    ends: list[list[str]] = []
    for link, history in zip(links, histories, strict=True):
        about = history.about
        last = [history.last(key) for key in endings.values()]
        ends.append(
            [
                link,
                *(
                    str(word or "–")
                    for word in (about.get("state"), about.get("recipe"), history.part("data").get("name"))
                ),
                count(history.images),
                duration(history.seconds),
                *(short(value[0]) if value else "–" for value in last),
            ]
        )

    configs = [history.part("config") for history in histories]
    settings = {key: [setting(config.get(key, "–")) for config in configs] for key in sorted({*chain(*configs)})}
    differing = {key: values for key, values in settings.items() if len(set(values)) > 1}
    rows = [list(row) for row in zip(links, *differing.values(), strict=True)]
    parts = [
        ("Under attack", robustness.compared(histories, names)),
        ("Certified", certified.compared(histories, names)),
        ("Scores", scores.compared(histories, names)),
        ("Summary", table(["run", "state", "recipe", "data", "images", "time", *endings], ends, "compare")),
        ("Settings that differ", table(["run", *differing], rows, "compare") if differing else Html()),
        ("Curves", sections.curves(histories, names)),
        ("The game", sections.game(histories)),
    ]
    return _parts(parts, "h2")
