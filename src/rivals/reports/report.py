"""The report: one self-contained HTML file that loads nothing from the network."""

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
from rivals.base.files import stat_key, write_atomically
from rivals.base.run_folder import WAITING, Run
from rivals.reports.formatting import MISSING, format_count, format_duration, format_number, format_setting
from rivals.reports.history import History
from rivals.reports.html import Html, join, run_id, run_link, table, tag
from rivals.reports.sample_timeline import pack_frames
from rivals.reports.sections import (
    attack,
    before_after,
    bracket,
    certification,
    common,
    corruptions,
    equilibrium,
    image_agnostic,
    neighbors,
    scores,
    training,
    translation,
)

GRID_BYTES = 6_000_000  # for all sample grids of a page, which is to stay below 8 MB

Section = tuple[str, Html]  # title, content

# The final metrics in a comparison of runs: heading and key.
FINAL_METRICS = {
    "D’s loss": "loss/discriminator",
    "G’s loss": "loss/generator",
    "D(real)": "d_real",
    "D(fake)": "d_fake",
    "diversity": "diversity",
    "images/s": "images_per_second",
}
# The introduction to each part of a demo, by the command of its run.
DEMO_INTRODUCTIONS = {
    "train": Html("""Two networks play against each other: a generator learns to make images of digits, a discriminator
to tell them from real ones. Drag the slider to see the generated images improve."""),
    "harden": Html("""A classifier has learned to recognize digits. An attack changes each image so little that it looks
the same, and the classifier is fooled. Then it is trained on such adversarial examples, and attacked again."""),
}


def write_waiting_report(dest: Path, title: str, text: str, reload: int) -> None:
    """Write a page that stands where the report of a run will be, until that run has begun.

    Args:
        dest: The file to write.
        title: Its heading.
        text: What is awaited.
        reload: Seconds after which a browser loads it again.

    Raises:
        UserError: the file cannot be written.
    """
    _write_page(dest, title, [tag("h1", title), tag("p", text), _reload_note(reload)], reload, Html(f"{WAITING}\n"))


def write_report(runs: Sequence[Run], dest: Path) -> Path:
    """Write the report of one run, or a comparison of several, to one HTML file.

    Args:
        runs: The runs; sections for which their records have nothing are left out.
        dest: The file to write.

    Returns:
        ``dest``.

    Raises:
        UserError: there are no runs, or the file cannot be written.
    """
    if not runs:
        raise UserError("there is no run to report on: name one or more run folders")
    histories = [History(run) for run in runs]
    if len(histories) > 1:
        title, body = _comparison_page(histories)
    elif sub_runs := _sub_runs(histories[0]):
        title, body = _demo_page([histories[0], *sub_runs])
    else:
        title, body = _run_page(histories[0])
    reload = histories[0].info.get("reload") if len(histories) == 1 else None
    if reload:
        body.insert(1, _reload_note(reload))
    body.append(tag("footer", "Made by Rivals. This page is self-contained: it can be saved, mailed and printed."))
    _write_page(dest, title, body, reload)
    return dest


def _reload_note(seconds: int) -> Html:
    return tag("p", f"The run goes on: this page reloads itself every {seconds} seconds.", class_="muted")


def _write_page(dest: Path, title: str, body: Sequence[Html], reload: int | None, head: str = "") -> None:
    """Write a page that loads nothing from the network.

    Args:
        dest: The file.
        title: Of the window.
        body: What it shows.
        reload: Seconds after which a browser loads it again; None for never.
        head: Further elements of its head.
    """
    templates = files("rivals.reports")
    script = (templates / "report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = Template((templates / "report.html").read_text("utf-8")).substitute(
        title=escape(title),
        head=(f'<meta http-equiv="refresh" content="{reload}">\n' if reload else "") + head,
        style=(templates / "report.css").read_text("utf-8"),
        script=script,
        digest=f"sha256-{digest}",
        body=join(*body),
    )
    write_atomically(dest, page.encode("utf-8", "replace"))


def _run_page(history: History) -> tuple[str, list[Html]]:
    title = _heading(history)
    header = _header(history, title, f"run {_names([history])[0]}", "h1")
    return title, [header, _run_sections(history, 0, GRID_BYTES, "h2", is_compared=False)]


def _demo_page(histories: Sequence[History]) -> tuple[str, list[Html]]:
    """A demo and the runs inside its folder, one after the other."""
    title = f"Demo in {len(histories)} parts"
    names = [f"Part {number}: {_heading(history)}" for number, history in enumerate(histories, 1)]
    links = [tag("li", run_link(name, index)) for index, name in enumerate(names)]
    body = [tag("h1", title), tag("ul", *links, class_="events")]
    for index, (history, name) in enumerate(zip(histories, names, strict=True)):
        introduction = DEMO_INTRODUCTIONS.get(str(history.info.get("command")))
        content = (
            _header(history, name, f"run {history.folder.name}", "h2"),
            tag("p", introduction) if introduction else "",
            _run_sections(history, index, GRID_BYTES, "h3", is_compared=False),
        )
        body.append(tag("section", *content, class_="run", id=run_id(index)))
    return title, body


def _comparison_page(histories: Sequence[History]) -> tuple[str, list[Html]]:
    title, names = f"{len(histories)} runs compared", _names(histories)
    body = [tag("h1", title), _comparison(histories, names)]
    for index, (history, name) in enumerate(zip(histories, names, strict=True)):
        header = _header(history, name, _heading(history), "h2")
        content = _run_sections(history, index, GRID_BYTES // len(histories), "h3", is_compared=True)
        body.append(tag("section", header, content, class_="run", id=run_id(index)))
    return title, body


def _names(histories: Sequence[History]) -> list[str]:
    """The names of the run folders, or their paths if two have the same name."""
    names = [history.folder.resolve().name for history in histories]
    return [n if names.count(n) == 1 else str(h.folder) for n, h in zip(names, histories, strict=True)]


def _sub_runs(history: History) -> list[History]:
    """The runs inside the folder of a demo that its page shows."""
    # Nothing outside of the folder is read, whatever run.json says.
    names = [name for name in history.info.get("sub_runs", ()) if Path(name).name == name != ".."]
    found = [history.read_part(name, _open_sub_run) for name in names]
    return [sub_run for sub_run in found if sub_run is not None]


def _open_sub_run(folder: Path) -> History:
    """A run inside another.

    Raises:
        FileNotFoundError: there is none, as it has not begun.
        UserError: it is damaged.
    """
    if not stat_key(folder / "run.json")[1]:
        raise FileNotFoundError
    return History(Run.open(folder))


def _heading(history: History) -> str:
    if bracket.is_bracket(history):
        return bracket.heading(history)
    if certification.is_certification(history):
        return certification.heading(history)
    if image_agnostic.is_image_agnostic(history):
        return f"{common.model_name(history)} under {history.section('config').get('attack')}"
    if corruptions.is_corruptions(history):
        return f"{common.model_name(history)} under common corruptions"
    return attack.heading(history) if attack.is_attack(history) else training.heading(history)


def _header(history: History, title: str, subtitle: str, level: str) -> Html:
    if bracket.is_bracket(history):
        figures = bracket.key_figures(history)
    elif certification.is_certification(history):
        figures = certification.key_figures(history)
    elif image_agnostic.is_image_agnostic(history):
        figures = image_agnostic.key_figures(history)
    elif corruptions.is_corruptions(history):
        figures = corruptions.key_figures(history)
    elif attack.is_attack(history):
        figures = attack.key_figures(history)
    else:
        figures = training.key_figures(history)
    return common.header(history, title, subtitle, level, figures)


def _run_sections(history: History, index: int, grid_bytes: int, level: str, *, is_compared: bool) -> Html:
    """All sections of a run. Runs that are compared share one figure of curves, which is not repeated here."""
    if attack.is_attack(history):
        found = attack.sections(history)
    elif image_agnostic.is_image_agnostic(history):
        found = image_agnostic.sections(history)
    elif corruptions.is_corruptions(history):
        found = corruptions.sections(history)
    elif bracket.is_bracket(history):
        found = bracket.sections(history)
    elif certification.is_certification(history):
        found = certification.sections(history)
    else:
        prefix = f"{run_id(index)}-" if index else ""
        frames = pack_frames(history, grid_bytes)
        found = [
            ("Health", training.health(history)),
            *before_after.sections(history, prefix),
            ("Held-out images", translation.section(history)),
            ("Samples", training.timeline(frames, index, _grid_note(history))),
            ("Nearest training images", neighbors.section(history)),
            ("How far from the equilibrium", Html() if is_compared else equilibrium.section(history, prefix)),
            ("Scores", scores.section(history)),
            ("Training curves", Html() if is_compared else training.curves([history], prefix=prefix)),
            ("The GAN game", Html() if is_compared else training.game([history])),
            ("Final metrics", training.final_metrics(history)),
            ("Configuration", training.configuration(history.info)),
        ]
    found.append(("Indices of the classes", common.classes(history)))
    found.insert(0, ("Damaged files", common.left_out(history)))  # known now that all others were made
    found.append(("Environment", training.environment(history.info)))
    found.append(("Command line", training.command_line(history.info)))
    return _join_sections(found, level)


def _grid_note(history: History) -> Html:
    """What each place of a sample grid shows."""
    return translation.GRID_NOTE if translation.is_translation(history) else training.GRID_NOTE


def _join_sections(found: Sequence[Section], level: str) -> Html:
    """Sections under headings of a level, without those that are empty."""
    filled = [(title, content) for title, content in found if content]
    return join(*(tag("section", tag(level, title), content, class_="part") for title, content in filled))


def _comparison(histories: Sequence[History], names: Sequence[str]) -> Html:
    """Final metrics side by side, settings that differ, and curves over each other."""
    found = [
        ("Robust accuracy", attack.comparison(histories, names)),
        ("Certified accuracy", certification.comparison(histories, names)),
        ("Certified, broken, open", bracket.comparison(histories, names)),
        ("Scores", scores.comparison(histories, names)),
        ("Summary", _summary_table(histories, names)),
        ("Settings that differ", _differing_settings(histories, names)),
        ("Training curves", training.curves(histories, names)),
        ("The GAN game", training.game(histories)),
    ]
    return _join_sections(found, "h2")


def _summary_table(histories: Sequence[History], names: Sequence[str]) -> Html:
    keys = {key for history in histories for key in history.keys}
    metrics = {name: key for name, key in FINAL_METRICS.items() if key in keys}
    rows: list[list[str]] = []
    for index, (history, name) in enumerate(zip(histories, names, strict=True)):
        facts = (history.info.get("state"), history.info.get("recipe"), history.section("data").get("name"))
        last = [history.last(key) for key in metrics.values()]
        length = [format_count(history.images), format_duration(history.seconds)]
        values = [format_number(value[0]) if value else MISSING for value in last]
        rows.append([run_link(name, index), *(str(fact or MISSING) for fact in facts), *length, *values])
    return table(["run", "state", "recipe", "data", "images", "time", *metrics], rows, "compare")


def _differing_settings(histories: Sequence[History], names: Sequence[str]) -> Html:
    configs = [history.section("config") for history in histories]
    settings = {
        key: [format_setting(config.get(key, MISSING)) for config in configs] for key in sorted({*chain(*configs)})
    }
    differing = {key: values for key, values in settings.items() if len(set(values)) > 1}
    links = [run_link(name, index) for index, name in enumerate(names)]
    rows = [list(row) for row in zip(links, *differing.values(), strict=True)]
    return table(["run", *differing], rows, "compare") if differing else Html()
