"""The sections of ``rivals certify`` by bounds: how many images are certified, broken and open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from rivals.base.run_folder import Record, Run
from rivals.base.typed_json import conforms
from rivals.reports.formatting import (
    MISSING,
    finite,
    format_count,
    format_interval,
    format_number,
    format_percent,
)
from rivals.reports.history import History, get_object
from rivals.reports.html import Html, color_legend, join, svg_figure, table, tag
from rivals.reports.plots.bracket import PARTS, BracketBar, bracket_svgs
from rivals.reports.plots.style import CSS_COLORS
from rivals.reports.sections import common
from rivals.reports.sections.certification import notes
from rivals.reports.sections.common import EMPTY, Card, model_name

MAX_CLASSES = 20  # with a bar of their own
METHODS = {
    "ibp": "IBP",
    "crown-ibp": "CROWN-IBP",
    "crown": "CROWN",
    "alpha-crown": "alpha-CROWN",
    "beta-crown": "beta-CROWN",
}

EXPLANATION = Html("""
<p><b>Bounds</b> of the logits over the whole ball around an image prove that no perturbation in it changes the
prediction: the image is <b>certified</b>. IBP (Gowal et al. 2018) propagates an interval for each unit; CROWN
(Zhang et al. 2018) bounds the logits by linear functions of the image, CROWN-IBP (Zhang et al. 2020) only for the
last step from the intervals of IBP; alpha-CROWN (Xu et al. 2021) optimizes them, and beta-CROWN (Wang et al. 2021)
splits the ball into cases besides. The margins account for all rounding, so a certificate holds for the network as it
is computed.</p>
<p>Images that are classified correctly and not certified are attacked. One for which a misclassified point of
the ball is found is <b>broken</b>, as are those misclassified without an attack. The others are <b>open</b>:
better bounds may certify them, a better attack may break them. <b>Robust accuracy lies between</b> the
certified share and the share that is not broken. The 95% intervals (Wilson) are over the choice of images.</p>""")


class BracketedImage(TypedDict):
    """The record of an image."""

    label: int
    prediction: int
    certified: bool
    margin: float
    broken: bool
    broken_by: str | None


def is_bracket(history: History) -> bool:
    """Whether the run is one of ``rivals certify`` by bounds."""
    return history.info.get("command") == "certify" and history.section("config").get("method") in METHODS


def heading(history: History) -> str:
    """The model and the ball."""
    config = history.section("config")
    return (
        f"{model_name(history)}, certified by {METHODS[config['method']]} in {config.get('norm')} {config.get('eps')}"
    )


def key_figures(history: History) -> list[Card]:
    """The bracket, and what was certified."""
    results = history.section("results")
    titles = {"clean": "Clean accuracy", "certified": "Certified accuracy", "unbroken": "Not broken", "open": "Open"}
    shares = {title: get_object(results, key) for key, title in titles.items()}
    cards = [(title, format_percent(share), format_interval(share)) for title, share in shares.items() if share]
    return [*cards, *common.model_cards(history)]


def sections(history: History) -> list[tuple[str, Html]]:
    """The sections that only a certification by bounds has."""
    return [
        ("Notes", notes(history)),
        ("Certified, broken, open", bounds(history)),
        ("Definitions", EXPLANATION),
        ("Protocol", common.protocol(history)),
    ]


def bounds(history: History) -> Html:
    """The shares in words, as bars, and in a table."""
    results = history.section("results")
    shares = [get_object(results, key) for key in ("certified", "open", "unbroken")]
    counts = [finite(share.get("count")) for share in shares]
    n = finite(results.get("n"))
    if not n or None in counts:
        return EMPTY
    certified, still_open, unbroken = (count or 0 for count in counts)
    names = {"clean": "classified correctly", "certified": "certified", "open": "open", "unbroken": "not broken"}
    rows = []
    for key, name in names.items():
        share = get_object(results, key)
        rows.append([name, format_count(share.get("count")), format_percent(share), format_interval(share)])
    attack = history.section("results").get("protocol", {}).get("attack")
    says = (
        f"Of {format_count(n)} images {format_count(certified)} are certified; of the others "
        f"{format_count(n - unbroken)} are broken" + (f" by {attack} or without it" if attack else " without an attack")
    )
    text = f"{says}, and {format_count(still_open)} are open."
    return join(
        _figure(_bars(history)),
        tag("p", text),
        table(["images", "count", "share", "95% interval"], rows, "numbers all"),
    )


def _bars(history: History) -> list[BracketBar]:
    """A bar for all images, and one for each class if they are few."""
    records = _records(history)
    names = history.section("data").get("classes") or []
    labels = sorted({record["label"] for record in records})
    bars = [_bar("all images", records)]
    if 1 < len(labels) <= MAX_CLASSES:
        for label in labels:
            name = str(names[label]) if label < len(names) else str(label)
            bars.append(_bar(name, [record for record in records if record["label"] == label]))
    return bars


def _records(history: History) -> list[Record]:
    return [record for record in Run(history.folder).records() if conforms(record, BracketedImage)]


def _bar(name: str, records: Sequence[Record]) -> BracketBar:
    wrong = sum(record["prediction"] != record["label"] for record in records)
    certified = sum(record["certified"] for record in records)
    broken = sum(record["broken"] for record in records) - wrong
    return BracketBar(name, (certified, len(records) - certified - broken - wrong, broken, wrong))


def _figure(bars: Sequence[BracketBar]) -> Html:
    """The bars with their legend; empty if there are no images."""
    svgs = bracket_svgs(bars)
    if svgs is None:
        return EMPTY
    return join(color_legend([(CSS_COLORS[color], part) for part, color in PARTS.items()]), svg_figure(*svgs))


def comparison(histories: Sequence[History], names: Sequence[str]) -> Html:
    """Models certified by bounds side by side; empty if none of the runs is one."""
    rows, bars = [], []
    for history, name in zip(histories, names, strict=True):
        if is_bracket(history):
            results, config = history.section("results"), history.section("config")
            shares = [get_object(results, key) for key in ("clean", "certified", "unbroken")]
            ball = f"{config.get('norm')} {config.get('eps')}"
            values = [format_percent(share) if share else MISSING for share in shares]
            rows.append([name, model_name(history), METHODS[config["method"]], ball, format_number(results.get("n"))])
            rows[-1] += values
            bars.append(_bar(name, _records(history)))
    head = ["run", "model", "method", "ball", "images", "clean", "certified", "not broken"]
    return join(_figure(bars), table(head, rows, "compare")) if rows else EMPTY
