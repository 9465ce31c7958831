"""The tabs that explain and compare: a game and its equilibrium, and two runs or generators side by side."""

from __future__ import annotations

from rivals.reports.formatting import MISSING, format_count, format_duration, format_number, format_setting
from rivals.reports.history import History
from rivals.reports.html import Html, definitions, join, table, tag
from rivals.reports.sections import equilibrium as equilibrium_section
from rivals.reports.sections import training
from rivals.reports.sections.common import left_out
from rivals.studio.figure_cache import FigureCache
from rivals.studio.html_parts import errors_as_notices, notice, picture_figure
from rivals.studio.run_store import RunStore
from rivals.studio.tab_runs import curves, sample_grid

N_SAMPLES = 16
GLOSSARY = {
    "equilibrium": "The state in which no discriminator does better than chance: generated images are distributed as "
    "the real ones. In the minimax game the discriminator's loss is then 2 log 2 = 1.386.",
    "lead": "How far the discriminator's loss is below its value at the equilibrium, relative to that value: 0 at the "
    "equilibrium, 100% if it never errs, below 0 if it does worse than chance.",
    "D(real), D(fake)": "The discriminator's mean output on real and on generated images. At the equilibrium of the "
    "minimax game both are 1/2.",
    "cross-entropy": "The mean of -log of the probability given to the right answer: the loss that the discriminator "
    "minimizes.",
    "entropy": "How varied a distribution is: 0 for a single value, largest if all values are equally likely.",
    "JSD": "Jensen-Shannon divergence: how different two distributions are, 0 if they are equal, log 2 if they have "
    "nothing in common. The discriminator's loss is at least 2 log 2 - 2 JSD.",
    "mode collapse": "The generator produces few kinds of images, because those fool the discriminator for now.",
}


@errors_as_notices
def equilibrium(store: RunStore, figures: FigureCache, name: str | None) -> Html:
    """How far a run is from its equilibrium, in a figure and in words."""
    if not name:
        return notice("Choose a run of 'train' to see how far it is from its equilibrium.")
    history = store.history(name)
    version = history.version, _modified(history)
    section = figures(("equilibrium", name), version, lambda: equilibrium_section.section(history, "studio-"))
    if not section:
        return join(notice("This run has no game of two players to measure, or has recorded nothing yet."), glossary())
    balance = training.balance(history)
    hint = tag(
        "p",
        "The diamonds and the table come from ",
        tag("code", f"rivals score {name} --equilibrium"),
        ", which measures a run that has ended.",
        class_="muted",
    )
    is_measured = bool(equilibrium_section.read_estimates(history))
    balance_line = tag("p", tag("b", balance)) if balance else ""
    return join(left_out(history), balance_line, section, "" if is_measured else hint, glossary())


def _modified(history: History) -> float:
    """When the estimates of the equilibrium were written."""
    try:
        return (history.folder / equilibrium_section.FILE).stat().st_mtime
    except OSError:
        return 0.0


def glossary() -> Html:
    """The terms of the figure."""
    return join(tag("h4", "Glossary"), definitions(GLOSSARY, "glossary"))


@errors_as_notices
def runs(store: RunStore, figures: FigureCache, one: str | None, other: str | None) -> Html:
    """Two runs: their curves over each other, their newest sample grids, and what differs."""
    if not one or not other:
        return notice("Choose two runs to compare them.")
    first, second = (_facts(store.history(name)) for name in (one, other))
    shared = [key for key in first if key in second]
    rows = [[key, first[key], second[key]] for key in shared if first[key] != second[key]]
    unshared = len(first) + len(second) - 2 * len(shared)
    rest = f"{len(shared) - len(rows)} other metrics and settings are equal, and {unshared} are in one run only."
    grids = [tag("section", tag("h4", name), sample_grid(store, name, 1.0)) for name in (one, other)]
    return join(
        curves(store, figures, list(dict.fromkeys((one, other))), "compare"),
        tag("div", *grids, class_="columns"),
        tag("h4", "Differences"),
        table(["", one, other], rows, "numbers") if rows else "",
        tag("p", rest, class_="muted"),
    )


def _facts(history: History) -> dict[str, str]:
    """A run's length, final metrics and settings."""
    info = history.info
    facts = {
        "command": format_setting(info.get("command") or MISSING),
        "state": format_setting(info.get("state") or MISSING),
        "data": format_setting(history.section("data").get("name") or MISSING),
        "recipe": format_setting(info.get("recipe") or MISSING),
        "seed": format_setting(info.get("seed")),
        "images seen": format_count(history.images),
        "time": format_duration(history.seconds),
    }
    for key in history.keys:
        last = history.last(key)
        if last is not None and key not in ("n_test", "images_per_second"):
            facts[f"{key}, last 5%"] = format_number(last[0])
    config = history.section("config")
    return facts | {f"--{key.replace('_', '-')}": format_setting(value) for key, value in config.items()}


@errors_as_notices
def generators(store: RunStore, one: str | None, other: str | None, seed: float) -> Html:
    """Samples of two generators from the same seed."""
    if not one or not other:
        return notice("Choose two finished generators to compare their samples from one seed.")
    from rivals.reports import image_grid

    parts = []
    for name in (one, other):
        images = store.network(name, "generator").sample(N_SAMPLES, seed=int(seed or 0)).numpy()
        grid = image_grid.make_grid(images, columns=4, gap=1, scale=1)
        caption = f"{N_SAMPLES} samples of seed {int(seed or 0)}."
        parts.append(tag("section", tag("h4", name), picture_figure(grid, f"samples of {name}", caption)))
    return tag("div", *parts, class_="columns")
