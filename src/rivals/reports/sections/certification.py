"""The sections of ``rivals certify``: certified accuracy, and accuracy under attack as its upper bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypedDict

from rivals.base.run_folder import Record, Run
from rivals.base.typed_json import Between, conforms
from rivals.reports.formatting import (
    MISSING,
    finite,
    format_count,
    format_interval,
    format_number,
    format_percent,
    sentence,
)
from rivals.reports.history import History, get_object, get_objects
from rivals.reports.html import Html, color_legend, join, svg_figure, table, tag
from rivals.reports.plots.certified_accuracy import CertifiedCurves, certified_accuracy_svgs
from rivals.reports.plots.style import BLUE, CSS_COLORS, VERMILLION
from rivals.reports.sections import common
from rivals.reports.sections.common import EMPTY, Card, model_name, notice

LOWER, UPPER = "certified accuracy (lower bound)", "accuracy under attack (upper bound)"
LIMIT = "largest radius that these samples can certify"

EXPLANATION = Html("""<p><b>Randomized smoothing</b> (Cohen et al. 2019) classifies many copies of an image, each with
fresh Gaussian <b>noise</b>, and predicts the most frequent class: the <b>smoothed classifier</b>. From how often that
class is predicted follows a <b>certified radius</b>: no perturbation of smaller L2 norm, by whatever attack, changes
the prediction. (The L2 norm is the root of the sum of squares over all pixels, which run from 0 to 1.)</p>
<p><b>Certified accuracy</b> at a radius is the share of images that are classified correctly with at least that
certified radius: a lower bound of robust accuracy. The share that is still classified correctly under attack is an
upper bound. Robust accuracy lies <b>between the two</b>. More samples raise the lower bound, a stronger attack lowers
the upper one.</p>
<p>The smoothed classifier <b>abstains</b> if the samples do not single out a class. Certificates, and successes of the
attack, rest on random samples, so each may be wrong with the small probability alpha. The 95% intervals (Wilson) are
over the choice of images.</p>""")


class CertifiedImage(TypedDict):
    """The record of an image."""

    label: int
    prediction: int
    radius: Annotated[float, Between(0, 1e6)]
    adversarial_radius: Annotated[float, Between(0, 1e6)] | None


def is_certification(history: History) -> bool:
    """Whether the run is one of ``rivals certify`` by smoothing."""
    return history.info.get("command") == "certify" and history.section("config").get("method") in (None, "smoothing")


def heading(history: History) -> str:
    """The model and the noise."""
    return f"{model_name(history)}, smoothed with sigma {format_number(history.section('config').get('sigma'))}"


def key_figures(history: History) -> list[Card]:
    """Certified accuracy at radius 0 and at the largest radius, and what was certified."""
    results, config = history.section("results"), history.section("config")
    points = get_objects(results, "curve")
    figures = []
    for point in [*points[:1], *points[1:][-1:]]:
        lower, radius = get_object(point, "lower"), format_number(point.get("radius"))
        figures.append((f"Certified accuracy at {radius}", format_percent(lower), format_interval(lower)))
    if points and (upper := get_object(points[-1], "upper")):
        radius = format_number(points[-1].get("radius"))
        figures.append((f"Under attack at {radius}", format_percent(upper), format_interval(upper)))
    if results:
        largest = f"at most {format_number(results.get('max_radius'))}"
        radius = format_number(results.get("average_certified_radius"))
        figures.append(("Average certified radius", radius, largest))
        figures.append(("Abstained", format_percent(get_object(results, "abstained")), ""))
    samples = f"{format_count(config.get('samples'))} samples per image"
    figures.append(("Noise", f"sigma {format_number(config.get('sigma'))}", samples))
    return [*figures, *common.model_cards(history)]


def sections(history: History) -> list[tuple[str, Html]]:
    """The sections that only a certification has."""
    return [
        ("Notes", notes(history)),
        ("Certified accuracy", bounds(history)),
        ("Definitions", EXPLANATION),
        ("Protocol", common.protocol(history)),
    ]


def notes(history: History) -> Html:
    """What to know before the numbers."""
    results = history.section("results")
    if not results:
        return notice("The certification has not finished: there are no results yet.", is_alarm=False)
    return join(*(tag("div", tag("p", sentence(note)), class_="alarm") for note in results.get("notes", [])))


def bounds(history: History) -> Html:
    """The bounds of robust accuracy: a figure with two radii or more, and a table."""
    points = get_objects(history.section("results"), "curve")
    if not points:
        return EMPTY
    curves = _curves(history, points)
    figure = legend = EMPTY
    if curves.end > 0:
        figure = svg_figure(*certified_accuracy_svgs(curves))
        entries = [(CSS_COLORS[BLUE], LOWER)]
        entries += [(CSS_COLORS[VERMILLION], UPPER)] if curves.upper else []
        entries += [("currentColor; opacity: 0.5", LIMIT)] if curves.max_radius else []
        legend = color_legend(entries)
    rows, head = [], ["L2 radius", "certified", "95% interval"]
    if get_object(points[0], "upper"):  # both shares before both intervals, so that a narrow window shows the bounds
        head = ["L2 radius", "certified", "under attack", "certified, 95%", "under attack, 95%"]
    for point in points:
        sides = [share for side in ("lower", "upper") if (share := get_object(point, side))]
        rows.append([format_number(point.get("radius")), *map(format_percent, sides), *map(format_interval, sides)])
    return join(legend, figure, tag("p", _last_row_in_words(points[-1])), table(head, rows, "numbers all"))


def _last_row_in_words(point: Record) -> str:
    """The largest radius in a sentence, for somebody who has never read such a table."""
    lower, upper, radius = get_object(point, "lower"), get_object(point, "upper"), format_number(point.get("radius"))
    text = (
        f"The last row: of {format_count(lower.get('of'))} images, {format_count(lower.get('count'))} are classified "
        f"correctly under noise, and certified against every perturbation of L2 norm {radius} or less"
    )
    if not upper:
        return f"{text}; the others are undecided."
    undecided = (finite(upper.get("count")) or 0) - (finite(lower.get("count")) or 0)
    fooled = (finite(upper.get("of")) or 0) - (finite(upper.get("count")) or 0)
    return (
        f"{text}; {format_count(fooled)} are misclassified, with or without the attack; {format_count(undecided)} are "
        "undecided."
    )


def _curves(history: History, points: list[Record]) -> CertifiedCurves:
    """The lower bound has a step at the radius of each image; the upper bound at each radius that was attacked.

    Accuracy can only fall as the radius grows, so an upper bound at one radius holds at all larger ones.
    """
    radii = [finite(point.get("radius")) for point in points]
    end = max((radius for radius in radii if radius is not None), default=0.0)
    max_radius = finite(history.section("results").get("max_radius"))
    records = [record for record in Run(history.folder).records() if conforms(record, CertifiedImage)]
    certified = sorted(record["radius"] for record in records if record["prediction"] == record["label"])
    n = max(len(records), 1)
    lower = [(0.0, len(certified) / n)]
    lower += [(radius, (len(certified) - i - 1) / n) for i, radius in enumerate(certified) if radius < end]
    values = [finite(get_object(point, "upper").get("value")) for point in points]
    upper = [(r, value) for r, value in zip(radii, values, strict=True) if r is not None and value is not None]
    return CertifiedCurves(lower, upper, end, max_radius if max_radius is not None and max_radius < end else None)


def comparison(histories: Sequence[History], names: Sequence[str]) -> Html:
    """Certified models side by side; empty if none of the runs is a certification."""
    rows = []
    for history, name in zip(histories, names, strict=True):
        if not is_certification(history):
            continue
        results, config = history.section("results"), history.section("config")
        points = get_objects(results, "curve")
        first, last = (points[0], points[-1]) if points else ({}, {})
        ranges = [
            " to ".join(format_percent(share) for side in ("lower", "upper") if (share := get_object(point, side)))
            for point in (first, last)
        ]
        counts = [format_count(config.get("samples")), format_count(results.get("n"))]
        at_largest = f"{ranges[1] or MISSING} at {format_number(last.get('radius'))}"
        radius = format_number(results.get("average_certified_radius"))
        sigma = format_number(config.get("sigma"))
        rows.append([name, model_name(history), sigma, *counts, ranges[0] or MISSING, at_largest, radius])
    head = ["run", "model", "sigma", "samples", "images", "accuracy", "at the largest radius", "average radius"]
    return table(head, rows, "compare") if rows else EMPTY
