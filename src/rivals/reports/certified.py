"""The sections of a certificate's report: the bracket in which the truth lies, drawn, in figures and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rivals.reports.curves import BLUE, INK, NARROW, VARIABLES, VERMILLION, WIDE, Layout, element
from rivals.reports.history import History, number
from rivals.reports.markup import Html, join, pairs, table, tag
from rivals.reports.robustness import entry, interval, listed, model_name, percent
from rivals.reports.run import Record, Run
from rivals.reports.words import STATES, count, duration, setting, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTHING = Html()
HEIGHT = 300  # of the panel, in points
LOWER, UPPER = "certified: proven to stand", "not felled by the attack"
LIMIT = "the most these samples can prove"

WHAT = Html("""<p>Here the classifier is not asked once about an image, but again and again, each time with fresh
<b>noise</b> on it. Its answer is what it says most often: that is the <b>smoothed</b> classifier. A small change to the
image can hardly change what is said of thousands of noisy copies, and by how much at most can be worked out. So how
often it gives its answer <b>proves</b> a radius: no change of that length or less, by whatever attack, alters the
answer. (The length of a change is its L2 norm: the root of the sum of squares over all pixels, which run from 0 to 1.)
</p>
<p>The <b>lower curve</b> is the share of images that are right and proven to stay so. The truth cannot be below it.
The <b>upper curve</b> is the share that an attack failed to break. It cannot be below the truth, since each break is a
fact. So the truth lies <b>between the two</b>. A wide band means that we do not know: more samples raise the lower
curve, a stronger attack presses down the upper one.</p>
<p>An image <b>abstains</b> if the counts do not tell which answer is the most frequent. Proof and break rest on counts
of random draws, so each may be wrong with the small probability alpha. The 95 % intervals (Wilson) say something else:
where the shares would lie if other images of the same kind were taken.</p>""")


@dataclass(frozen=True)
class Bounds:
    """The bracket as it is drawn: rising radii, and shares from 0 to 1 that hold from there to the next radius.

    Attributes:
        proven: The lower curve.
        standing: The upper curve, empty if no attack was tried.
        most: Where the axis ends.
        largest: What so many samples can prove at most, if that is before ``most``.
    """

    proven: list[tuple[float, float]]
    standing: list[tuple[float, float]]
    most: float
    largest: float | None


def is_certificate(history: History) -> bool:
    """Whether the run is one of ``rivals certify``."""
    return history.about.get("verb") == "certify"


def heading(history: History) -> str:
    """What was certified, under what noise."""
    return f"{model_name(history)} under noise of sigma {short(history.part('config').get('sigma'))}"


def header(history: History, title: str, subtitle: str, level: str) -> Html:
    """Title, and the numbers that matter as cards."""
    about, results, data = history.about, history.part("results"), history.part("data")
    config, curve = history.part("config"), listed(results, "curve")
    begun = str(about.get("created", ""))[:16].replace("T", " ")
    line = tag("p", subtitle, f" · begun {begun}" if begun else "", class_="quiet")
    cards = []
    for point in [*curve[:1], *curve[1:][-1:]]:
        share = entry(point, "lower")
        at = short(point.get("radius"))
        name = "Certified" if point is curve[0] else f"Certified at {at}"
        cards.append((name, percent(share), interval(share)))
    if curve and (share := entry(curve[-1], "upper")):
        cards.append((f"Stands at {short(curve[-1].get('radius'))}", percent(share), interval(share)))
    if results:
        largest = f"at most {short(results.get('largest'))} can be had"
        cards.append(("Mean radius", short(results.get("mean_radius")), largest))
        cards.append(("Abstained", percent(entry(results, "abstained")), ""))
    cards.append(("Noise", f"sigma {short(config.get('sigma'))}", f"{count(config.get('samples'))} samples an image"))
    of = f"of {count(data.get('of'))} of {data.get('name', '?')}"
    cards.append(("Images", count(results.get("n", data.get("n"))), of))
    cards.append(("Model", model_name(history), f"{count(history.part('model').get('parameters'))} parameters"))
    cards.append(("Time", duration(history.seconds), str(about.get("device", ""))))
    state = str(about.get("state", "unknown"))
    cards.append(("State", state.capitalize(), STATES.get(state, "")))
    facts = {term: join(value, tag("small", more) if more else "") for term, value, more in cards}
    return join(tag(level, title), line, pairs(dict(facts), "facts"))


def sections(history: History) -> list[tuple[str, Html]]:
    """The sections that only a certificate has."""
    return [
        ("Notes", notes(history)),
        ("Where the truth lies", curve(history)),
        ("How to read this", WHAT),
        ("Protocol", protocol(history)),
    ]


def notes(history: History) -> Html:
    """What the reader should know first."""
    found = history.part("results").get("notes", [])
    boxes = [tag("div", tag("p", f"{str(note)[:1].upper()}{str(note)[1:]}."), class_="alarm") for note in found]
    if not history.part("results"):
        boxes = [tag("div", tag("p", "The certification has not come to an end: there are no results yet."))]
    return join(*boxes)


def curve(history: History) -> Html:
    """The bracket: drawn where there are two radii or more, and as a table."""
    points = listed(history.part("results"), "curve")
    if not points:
        return NOTHING
    bounds = _bounds(history, points)
    figure = legend = NOTHING
    if bounds.most > 0:
        svgs = (("wide", bracket_svg(bounds, WIDE, "wide")), ("narrow", bracket_svg(bounds, NARROW, "narrow")))
        figure = tag("figure", *(tag("div", Html(svg), class_=kind) for kind, svg in svgs), class_="curves bracket")
        told = [(VARIABLES[BLUE], LOWER), *([(VARIABLES[VERMILLION], UPPER)] if bounds.standing else [])]
        told += [("currentColor; opacity: 0.5", LIMIT)] if bounds.largest else []
        swatches = [tag("li", tag("i", style=f"background: {colour}"), name) for colour, name in told]
        legend = tag("ul", *swatches, class_="swatches")
    rows, head = [], ["L2 radius", "certified", "95 % interval"]
    if entry(points[0], "upper"):  # both shares before both intervals, so that a narrow window shows the bracket
        head = ["L2 radius", "certified", "stands under attack", "certified, 95 %", "stands, 95 %"]
    for point in points:
        sides = [share for side in ("lower", "upper") if (share := entry(point, side))]
        rows.append([short(point.get("radius")), *map(percent, sides), *map(interval, sides)])
    return join(legend, figure, tag("p", _sentence(points)), table(head, rows, "numbers all"))


def _sentence(points: list[Record]) -> str:
    """The widest radius in one sentence, for somebody who has never read such a table."""
    last = points[-1]
    lower, upper = entry(last, "lower"), entry(last, "upper")
    told = (
        f"Read the last row of the table so: of {count(lower.get('of'))} images, {count(lower.get('count'))} are "
        "classified rightly under noise, and provably stay so whatever change of length "
        f"{short(last.get('radius'))} or less is made"
    )
    if not upper:
        return f"{told}; of the others nothing is known."
    open_ = (number(upper.get("count")) or 0) - (number(lower.get("count")) or 0)
    broken = (number(upper.get("of")) or 0) - (number(upper.get("count")) or 0)
    return f"{told}; {count(broken)} are wrong or were broken; of the {count(open_)} between, nobody knows."


def protocol(history: History) -> Html:
    """How the numbers were made: what was asked, and what came of it."""
    entries = {**history.part("config"), **entry(history.part("results"), "protocol")}
    told = {key: value for key, value in entries.items() if not isinstance(value, dict)}
    return pairs({key: setting(value) for key, value in told.items()}, "pairs") if told else NOTHING


def compared(histories: Sequence[History], names: Sequence[str]) -> Html:
    """Certified models side by side; empty where none of the runs is a certificate."""
    rows = []
    for history, name in zip(histories, names, strict=True):
        if not is_certificate(history):
            continue
        results, config = history.part("results"), history.part("config")
        points = listed(results, "curve")
        ends = [points[0], points[-1]] if points else [{}, {}]
        shares = [
            " to ".join(percent(share) for side in ("lower", "upper") if (share := entry(end, side))) for end in ends
        ]
        at = short(ends[1].get("radius"))
        facts = (model_name(history), short(config.get("sigma")), count(config.get("samples")), count(results.get("n")))
        rows.append([name, *facts, shares[0] or "–", f"{shares[1] or '–'} at {at}", short(results.get("mean_radius"))])
    head = ["run", "model", "sigma", "samples", "images", "stands as it is", "stands at the widest", "mean radius"]
    return table(head, rows, "compare") if rows else NOTHING


def _bounds(history: History, points: list[Record]) -> Bounds:
    """The lower bound at every radius, since each image has its own; the upper one as it was found, to the next radius.

    Accuracy can only fall as the radius grows. So what holds from above at one radius holds at all larger ones.
    """
    found = [(number(point.get("radius")), number(entry(point, "upper").get("value"))) for point in points]
    most = max((radius for radius, _ in found if radius is not None), default=0.0)
    largest = number(history.part("results").get("largest"))
    records = [record for record in Run(history.folder).records() if "truth" in record]
    right = sorted(record["radius"] for record in records if record["label"] == record["truth"])
    n = max(len(records), 1)
    proven = [(0.0, len(right) / n)]
    proven += [(reach, (len(right) - place - 1) / n) for place, reach in enumerate(right) if reach < most]
    standing = [(radius, share) for radius, share in found if radius is not None and share is not None]
    return Bounds(proven, standing, most, largest if largest is not None and largest < most else None)


def bracket_svg(bounds: Bounds, layout: Layout, prefix: str) -> str:
    """The bracket as an SVG element to stand inside a page.

    Args:
        bounds: What to draw.
        layout: For a wide or a narrow window.
        prefix: What its ids start with.
    """
    return element(lambda: _figure(bounds, layout), layout, f"bracket-{prefix}")


def _figure(bounds: Bounds, layout: Layout) -> Figure:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    panel = HEIGHT if layout.wide else 220
    right, top = 24, 14
    height = panel + layout.bottom + top
    figure = Figure(figsize=(layout.width / 72, height / 72))
    FigureCanvasAgg(figure)
    width = layout.width - layout.left - right
    axes = figure.add_axes((layout.left / layout.width, layout.bottom / height, width / layout.width, panel / height))
    grid = np.array(sorted({0.0, bounds.most, *(radius for radius, _ in [*bounds.proven, *bounds.standing])}))

    def held(steps: list[tuple[float, float]]) -> Any:
        """In percents, what holds from each radius of the grid to the next."""
        starts, values = np.array(steps).T
        return 100 * values[np.searchsorted(starts, grid, side="right") - 1]

    lower = held(bounds.proven)
    if bounds.standing:
        upper = held(bounds.standing)
        axes.fill_between(grid, lower, upper, step="post", color=BLUE, alpha=0.13, linewidth=0)
        axes.step(grid, upper, where="post", color=VERMILLION, linewidth=1.8)
        axes.plot(*np.array(bounds.standing).T * [[1], [100]], color=VERMILLION, linestyle="", marker="v", markersize=6)
    if bounds.largest is not None:
        axes.axvline(bounds.largest, color=INK, alpha=0.5, linewidth=1, linestyle=(0, (2, 2)))
    axes.step(grid, lower, where="post", color=BLUE, linewidth=1.8)
    axes.set_xlim(-0.02 * bounds.most, 1.02 * bounds.most)
    axes.set_ylim(-2, 102)
    ticks = [radius for radius, _ in bounds.standing]
    if len(ticks) < 2 or min(b - a for a, b in pairwise(ticks)) < bounds.most / (14 if layout.wide else 5):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8 if layout.wide else 4))
    else:
        axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.4g}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlabel("radius (L2 norm, images in [0, 1])", color=INK)
    axes.set_ylabel("images, %", color=INK)
    axes.set_facecolor("none")
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, colors=INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=INK, alpha=0.4)
    return figure
