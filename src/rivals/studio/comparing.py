"""The tabs that explain and compare: the game against the draw, and two runs or generators side by side."""

from __future__ import annotations

from typing import Any

from rivals.reports import equilibrium as draw
from rivals.reports.history import History
from rivals.reports.markup import Html, join, table, tag
from rivals.reports.words import count, duration, setting, short, standing
from rivals.studio.pictures import calm, shown, spoken, uri
from rivals.studio.shelf import Shelf
from rivals.studio.watching import Figures, curves, sheet

WORDS = {
    "the draw": "The state in which no discriminator can do better than toss a coin: generated images are then "
    "distributed as real ones. In the minimax game the discriminator's loss is then 2 log 2 = 1.386.",
    "lead": "How far the discriminator's loss is below its value at the draw, as a share of it: 0 at the draw, "
    "100 % if it never errs, below 0 if it does worse than a coin.",
    "D(real), D(fake)": "The discriminator's mean answers to real and to generated images. At the draw both are 1/2.",
    "cross-entropy": "What it costs, on average, to describe answers by the probabilities somebody believes in: the "
    "loss that the discriminator lowers.",
    "entropy": "How uncertain, or varied, something is: 0 if always the same, largest if all is equally likely.",
    "JSD": "Jensen-Shannon divergence: how different two distributions are. 0 for the same, log 2 for nothing in "
    "common. What a discriminator's loss falls short of 2 log 2 by is at most twice this.",
    "mode collapse": "The generator draws few kinds of images, because those fool its rival well enough for now.",
}


@spoken
def equilibrium(shelf: Shelf, figures: Figures, name: str | None) -> Html:
    """The state of a run's game against the draw, in a figure and in words."""
    if not name:
        return calm("Choose a run of 'train', and its game is shown here against the draw.")
    history = shelf.history(name)
    mark = history.mark, _written(history)

    def figure() -> Html:
        return draw.section(history, "studio-")

    section = figures(("equilibrium", name), mark, figure)
    if not section:
        return join(calm("This run has no game of two players to measure, or has recorded nothing yet."), glossary())
    ahead = standing(history)
    more = tag(
        "p",
        "The diamonds and the table come from ",
        tag("code", f"rivals score {name} --equilibrium"),
        ", which measures a run that has ended.",
        class_="quiet",
    )
    return join(tag("p", tag("b", ahead)) if ahead else "", section, "" if draw.measured(history) else more, glossary())


def _written(history: History) -> float:
    try:
        return (history.folder / "equilibrium.json").stat().st_mtime
    except OSError:
        return 0.0


def glossary() -> Html:
    """The words that one needs."""
    entries = [tag("div", tag("dt", word), tag("dd", says)) for word, says in WORDS.items()]
    return join(tag("h4", "The words"), tag("dl", *entries, class_="words"))


@spoken
def runs(shelf: Shelf, figures: Figures, one: str | None, other: str | None) -> Html:
    """Two runs: what differs between them, their curves over each other, their newest sheets side by side."""
    if not one or not other:
        return calm("Choose two runs, and they are shown side by side.")
    both = [shelf.history(name) for name in (one, other)]
    facts = [_facts(history) for history in both]
    keys = [key for key in facts[0] if key in facts[1]]
    rows = [[key, *(fact[key] for fact in facts)] for key in keys if facts[0][key] != facts[1][key]]
    lone = len(facts[0]) + len(facts[1]) - 2 * len(keys)
    rest = f"{len(keys) - len(rows)} other values and settings are the same, and {lone} only one of the two has."
    sheets = [tag("section", tag("h4", name), sheet(shelf, name, 1.0)) for name in (one, other)]
    return join(
        curves(shelf, figures, list(dict.fromkeys((one, other))), "compare"),
        tag("div", *sheets, class_="abreast"),
        tag("h4", "What differs"),
        table(["", one, other], rows, "numbers") if rows else "",
        tag("p", rest, class_="quiet"),
    )


def _facts(history: History) -> dict[str, str]:
    """What is told of a run in words: where it came to, its last values and its settings."""
    about: dict[str, Any] = history.about
    facts = {
        "made by": setting(about.get("verb") or "–"),
        "state": setting(about.get("state") or "–"),
        "data": setting(history.part("data").get("name") or "–"),
        "recipe": setting(about.get("recipe") or "–"),
        "seed": setting(about.get("seed")),
        "images seen": count(history.images),
        "time": duration(history.seconds),
    }
    for key in history.keys:
        last = history.last(key)
        if last is not None and key not in ("test_n", "images_per_second"):
            facts[f"{key}, last 5 %"] = short(last[0])
    return facts | {f"--{key.replace('_', '-')}": setting(value) for key, value in history.part("config").items()}


@spoken
def generators(shelf: Shelf, one: str | None, other: str | None, seed: float) -> Html:
    """What two generators draw from the same seed."""
    if not one or not other:
        return calm("Choose two finished generators, and what they draw from one seed is shown side by side.")
    from rivals.reports import sheet as sheets

    parts = []
    for name in (one, other):
        images = shelf.network(name, "generator").sample(16, seed=int(seed or 0)).numpy()
        picture = shown(
            uri(sheets.grid(images, columns=4)), f"images of {name}", f"16 images of seed {int(seed or 0)}."
        )
        parts.append(tag("section", tag("h4", name), picture))
    return tag("div", *parts, class_="abreast")
