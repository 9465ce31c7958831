"""How far a game is from its equilibrium, and which player is ahead: a figure, a summary, and every estimate."""

from __future__ import annotations

from typing import Required, TypedDict

from rivals.base.run_folder import Record
from rivals.base.run_schema import Count, Finite
from rivals.reports.formatting import MISSING, finite, format_count, format_number, format_setting
from rivals.reports.history import History, get_objects
from rivals.reports.html import Html, join, svg_figure, table, tag
from rivals.reports.plots.equilibrium import FRESH, equilibrium_svgs, find_estimate, find_interval, panels
from rivals.reports.sections.common import EMPTY

FILE = "equilibrium.json"
CALIBRATED = "as trained, calibrated by logistic regression"  # a discriminator of equilibrium.json

EXPLANATION = Html("""<p><b>Who is ahead.</b> The discriminator’s loss on its training batches, relative to its loss at
the equilibrium. Blue: the discriminator leads; at 100% it never errs. Red: the generator leads; the discriminator does
worse than chance.</p>
<p><b>Divergence.</b> On held-out real images and generated ones, the discriminator’s accuracy gives a lower bound of
the total variation (TV), and its loss one of the Jensen-Shannon divergence (JSD, in units of log 2). 0: no difference
was found, as at the equilibrium; 1: nothing in common. A weak discriminator finds no difference either, so the
<b>diamond</b>, if there is one, counts more: a fresh discriminator, trained only to tell the finished generator’s
images from real ones.</p>
<p><b>Entropy.</b> The variety of the generated images: of their pixel values and, with a classifier, of their classes;
dashed: that of real images. Class entropy below the dashed line is a sign of missing modes.</p>""")


class Estimate(TypedDict, total=False):
    """A value with its interval, if it has one, and how it was made."""

    name: Required[str]
    value: Required[Finite]
    low: Required[Finite | None]
    high: Required[Finite | None]
    equilibrium: Finite | None
    unit: str
    discriminator: str | None
    generator: str | None
    budget: str | None


class ClassEntropies(TypedDict):
    """Entropies of the classes of a sample grid, in nats: of all its images, and the mean of a single one."""

    images: Count
    class_entropy: Finite
    class_entropy_image: Finite


class EquilibriumFile(TypedDict, total=False):
    """``equilibrium.json``."""

    values: Required[list[Estimate]]
    images: Count
    history: list[ClassEntropies]


def read_estimates(history: History) -> Record:
    """The content of ``equilibrium.json``, written by ``rivals score --equilibrium``; empty if there is none."""
    return {**(history.read_json(FILE, EquilibriumFile) or {})}


def section(history: History, prefix: str = "") -> Html:
    """Summary, figure, explanation and table.

    Args:
        history: The run.
        prefix: Of the ids in its figure, so that they differ from those of other runs on the page.
    """
    measured = read_estimates(history)
    found = panels(history, measured)
    if not found:
        return EMPTY
    sentences = [tag("p", sentence) for sentence in summary(history, measured)]
    figure = svg_figure(*equilibrium_svgs(found, history, prefix))
    return join(*sentences, figure, tag("div", EXPLANATION, class_="notes"), estimates_table(measured))


def summary(history: History, measured: Record) -> list[str]:
    """Who is ahead, and how far the equilibrium is, in a few sentences; none if the run has no estimates."""
    calibrated = find_estimate(measured, "accuracy", CALIBRATED)
    last = history.last("equilibrium/accuracy", share=0.2)
    accuracy = calibrated["value"] if calibrated else last[0] if last else None
    found = (
        _held_out_sentence(accuracy),
        _fresh_discriminator_sentence(find_interval(measured, "accuracy", FRESH), accuracy),
        _duality_gap_sentence(find_interval(measured, "duality gap")),
        _overfitting_sentence(find_interval(measured, "r_v")),
    )
    return [sentence for sentence in found if sentence]


def _held_out_sentence(accuracy: float | None) -> str:
    if accuracy is None:
        return ""
    if accuracy > 0.9:
        verdict = "It is far ahead: generated images are easily told from real ones."
    elif accuracy > 0.6:
        verdict = "It is ahead: the game is not at its equilibrium."
    else:
        verdict = "It hardly tells them apart."
    return f"On held-out images, the discriminator’s accuracy is {100 * accuracy:.0f}%; chance is 50%. {verdict}"


def _fresh_discriminator_sentence(fresh: Record | None, accuracy: float | None) -> str:
    if fresh is None:
        return ""
    low, high = fresh["low"], fresh["high"]
    if accuracy is not None and accuracy <= 0.6 and low > 0.6:
        verdict = "So this is not an equilibrium: the run’s discriminator is too weak to see the difference."
    elif low > 0.5:
        verdict = "So there is a difference."
    else:
        verdict = "It finds no difference either: within this budget, the game is at its equilibrium."
    return (
        f"A fresh discriminator, trained for {fresh.get('budget')}, reaches {100 * fresh['value']:.0f}% "
        f"({100 * low:.0f} to {100 * high:.0f}%). {verdict}"
    )


def _duality_gap_sentence(gap: Record | None) -> str:
    if gap is None:
        return ""
    return (
        f"Duality gap: training each player alone against the other, unchanged, gains at least {gap['value']:.3g} "
        f"({gap['low']:.3g} to {gap['high']:.3g}) in {gap.get('unit')}; at the equilibrium 0."
    )


def _overfitting_sentence(r_v: Record | None) -> str:
    if r_v is None or not r_v["low"] > 0.5:
        return ""
    return (
        "The discriminator has memorized its training images: it takes held-out real images for generated ones. More "
        "images, or augmentation, would help."
    )


def estimates_table(measured: Record) -> Html:
    """Every estimate with its interval, its value at the equilibrium, and how it was made."""
    rows = []
    for record in get_objects(measured, "values"):
        low, high = record.get("low"), record.get("high")
        interval = MISSING if finite(low) is None else f"{format_number(low)} to {format_number(high)}"
        numbers = [format_number(record.get("value")), interval, format_number(record.get("equilibrium"))]
        players = [format_setting(record.get(key) or MISSING) for key in ("discriminator", "generator")]
        images = f"{format_count(record.get('n_real'))} real, {format_count(record.get('n_fake'))} generated"
        protocol = [record.get("budget") or "none", images, format_setting(record.get("split"))]
        unit = str(record.get("unit") or MISSING)
        rows.append([str(record.get("name")), *numbers, unit, *players, *protocol, format_number(record.get("seed"))])
    head = ["estimate", "value", "95%", "at equilibrium", "unit", "discriminator", "generator"]
    head += ["budget", "images", "split", "seed"]
    return table(head, rows, "numbers all") if rows else EMPTY
