"""How far a game is from the draw, and which player is ahead: one figure, and what it says in words."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rivals.reports.curves import (
    BLUE,
    GREEN,
    INK,
    NARROW,
    ORANGE,
    VERMILLION,
    WIDE,
    Layout,
    closed_form,
    dress,
    element,
)
from rivals.reports.history import Array, History, number
from rivals.reports.markup import Html, join, table, tag
from rivals.reports.run import Record
from rivals.reports.words import count, setting, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTHING = Html()
FRESH, PLAYED, READ = "fresh", "as it plays", "as it plays, read out by logistic regression"
POINTS = 300
DASHED: Any = (0, (5, 3))

WHAT = Html("""<p><b>Who is ahead.</b> The discriminator’s loss on the batches it learns from, against its loss at the
draw. In the blue the discriminator leads: at the top it never errs. In the red the generator leads: its rival does
worse than a coin.</p>
<p><b>How different the images still are.</b> On real images that nobody learns from, the discriminator tells some of
the generated ones from the real ones. What it can tell apart <i>is</i> different: so both lines are bounds from below.
0: no difference was found, as at the draw. 1: nothing in common. (TV is the total variation, JSD the Jensen-Shannon
divergence in units of log 2.) A discriminator that plays badly finds no difference either. So the <b>diamond</b>, where
there is one, counts more: a fresh discriminator, which has no other task than to tell the finished generator’s images
from real ones.</p>
<p><b>Entropy.</b> How varied what is drawn is: the values of its pixels and, if a classifier was asked, its classes;
dashed, the data’s own. A generator that begins as noise comes towards the data’s lines; one that repeats itself falls
below that of classes.</p>""")


@dataclass
class Line:
    """Values over the images seen, with a name, a colour, what the data or the draw have, and single marks."""

    name: str
    colour: str
    images: Array
    values: Array
    aim: float | None = None
    marks: list[tuple[float, float, float, float]] = field(default_factory=list)  # images, value, low, high
    dots: bool = False


@dataclass
class Panel:
    """One plot of the figure."""

    title: str
    label: str
    lines: list[Line]
    bounds: tuple[float, float] | None
    draw: str = ""  # what is written at 0
    sides: bool = False  # whether above 0 is the discriminator's side, and below it the generator's


def measured(history: History) -> Record:
    """What ``rivals score --equilibrium`` left in the run; empty if nothing, or nothing that can be read."""
    try:
        found = json.loads((history.folder / "equilibrium.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("values"), list) else {}


def section(history: History, prefix: str = "") -> Html:
    """The figure, what it means, who is ahead, and every measured value with its protocol."""
    found = measured(history)
    drawn = panels(history, found)
    if not drawn:
        return NOTHING
    shapes = ((WIDE, "wide"), (NARROW, "narrow"))
    svgs = [tag("div", Html(svg(drawn, history, layout, prefix + kind)), class_=kind) for layout, kind in shapes]
    told = [tag("p", sentence) for sentence in verdict(history, found)]
    return join(*told, tag("figure", *svgs, class_="curves"), tag("div", WHAT, class_="notes"), values(found))


def panels(history: History, found: Record) -> list[Panel]:
    """The plots for which there is something to draw: the lead, the bounds, the entropy."""
    made = []
    curve, draw = history.curve("loss/discriminator"), history.equilibrium("loss/discriminator")
    if curve is not None and draw:
        lead = Line("the discriminator's lead", INK, curve.images, 1 - curve.smooth / draw)
        value = closed_form(draw).removeprefix("the draw: ")
        low = min(-0.4, float(np.quantile(lead.values, 0.01)) * 1.1)
        made.append(Panel("Who is ahead", "lead", [lead], (max(low, -1.05), 1.05), f"the draw:\n{value}", sides=True))

    at = float(found.get("images") or history.images)
    bounds = []
    for key, name, colour, slope, shift in (
        ("equilibrium/accuracy", "TV", BLUE, 2.0, -1.0),
        ("equilibrium/jsd_bound", "JSD", GREEN, 1 / math.log(2), 0.0),
    ):
        looks = history.curve(key)
        empty = np.array([])
        line = Line(name, colour, empty, empty, dots=True)
        if looks is not None:
            line.images, line.values = looks.images, np.maximum(slope * looks.mean + shift, 0)
        fresh = _value(found, "accuracy" if name == "TV" else "JSD bound", FRESH)
        if fresh is not None:
            value, low, high = (max(0.0, slope * fresh[end] + shift) for end in ("value", "low", "high"))
            line.marks.append((at, value, low, high))
        if looks is not None or line.marks:
            bounds.append(line)
    if bounds:
        title = "How different the images still are, at least"
        made.append(Panel(title, "share", bounds, (-0.04, 1.04), "the draw:\nD = 1/2"))

    entropies = []
    pixels = history.curve("entropy/pixels")
    if pixels is not None:
        aim = number(history.about.get("data_entropy"))
        entropies.append(Line("pixel values", ORANGE, pixels.images, pixels.mean, aim, dots=True))
    along = [record for record in found.get("along", []) if number(record.get("class_entropy")) is not None]
    images = np.array([float(record["images"]) for record in along])
    for key, name, label, colour in (
        ("class_entropy", "class entropy of the data", "classes", BLUE),
        ("class_entropy_image", "class entropy of a real image", "class of an image", VERMILLION),
    ):
        if along:
            bits = np.array([float(record[key]) for record in along]) / math.log(2)
            own = _value(found, name)
            aim = own["value"] / math.log(2) if own else None
            entropies.append(Line(label, colour, images, bits, aim, dots=True))
    if entropies:
        made.append(Panel("Entropy of what is drawn", "bits", entropies, None))
    return made


def _value(found: Record, name: str, discriminator: str | None = None) -> Record | None:
    """A measured value by its name and, where there are several, by whose discriminator it is of."""
    for record in found.get("values", []):
        same = discriminator is None or record.get("discriminator") == discriminator
        if record.get("name") == name and same and number(record.get("value")) is not None:
            return {**record, **{end: record[end] for end in ("low", "high") if number(record.get(end)) is not None}}
    return None


def verdict(history: History, found: Record) -> list[str]:
    """Who is ahead and how far the draw is, in a few sentences; none where the run does not tell."""
    told = []
    played = _value(found, "accuracy", READ)
    last = history.last("equilibrium/accuracy", share=0.2)
    share = played["value"] if played else last[0] if last else None
    if share is not None:
        said = f"On images that it has not learnt from, the discriminator is right {100 * share:.0f} % of the time"
        if share > 0.9:
            judged = "It is far ahead: the generator’s images are easily told from real ones."
        elif share > 0.6:
            judged = "It is ahead: the game is not at the draw."
        else:
            judged = "It hardly tells the two apart."
        told.append(f"{said}, where a coin is right 50 %. {judged}")
    fresh = _value(found, "accuracy", FRESH)
    if fresh is not None:
        told.append(
            f"A fresh discriminator that learns for {fresh.get('budget')} reaches {100 * fresh['value']:.0f} % "
            f"({100 * fresh['low']:.0f} to {100 * fresh['high']:.0f} %). "
            + (
                "So the balance is none: the one that plays is too weak to see a difference that is there."
                if share is not None and share <= 0.6 and fresh["low"] > 0.6
                else "So the difference is there."
                if fresh["low"] > 0.5
                else "It finds no difference either: within this budget, this is a draw."
            )
        )
    gap = _value(found, "duality gap")
    if gap is not None:
        told.append(
            f"If each player learnt on alone against the other as it is, the two together would gain at least "
            f"{gap['value']:.3g} ({gap['low']:.3g} to {gap['high']:.3g}) in {gap.get('unit')}: at a draw, nothing."
        )
    overfitting = _value(found, "r_v")
    if overfitting is not None and overfitting["low"] > 0.5:
        told.append(
            "The discriminator has learnt its images by heart: it takes real images that it does not know for "
            "generated ones. More images, or changes to them while learning, would help."
        )
    return told


def values(found: Record) -> Html:
    """Every measured value with its interval, what it would be at the draw, and how it was measured."""
    rows = []
    for record in found.get("values", []):
        interval = "–" if number(record.get("low")) is None else f"{short(record['low'])} to {short(record['high'])}"
        budget = record.get("budget") or "none"
        images = f"{count(record.get('n_real'))} real, {count(record.get('n_fake'))} generated"
        cells = [short(record.get("value")), interval, short(record.get("draw")), str(record.get("unit") or "–")]
        who = [setting(record.get(key) or "–") for key in ("discriminator", "generator")]
        place = [budget, images, setting(record.get("split")), short(record.get("seed"))]
        rows.append([str(record.get("name")), *cells, *who, *place])
    head = [
        "value",
        "",
        "95 %",
        "at the draw",
        "unit",
        "discriminator",
        "generator",
        "budget",
        "images",
        "split",
        "seed",
    ]
    return table(head, rows, "numbers all") if rows else NOTHING


def svg(drawn: Sequence[Panel], history: History, layout: Layout, prefix: str) -> str:
    """The figure as an SVG element to stand inside a page, in the page's colours; its ids start with ``prefix``."""
    return element(lambda: _figure(drawn, max(history.images, 1), layout), layout, f"draw-{prefix}")


def _figure(drawn: Sequence[Panel], end: float, layout: Layout) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    step = layout.panel + layout.between
    height = len(drawn) * step + layout.bottom
    figure = Figure(figsize=(layout.width / 72, height / 72))
    FigureCanvasAgg(figure)
    width = layout.width - layout.left - layout.right
    for row, panel in enumerate(drawn):
        bottom = height - (row + 1) * step
        box = (layout.left / layout.width, bottom / height, width / layout.width, layout.panel / height)
        axes = figure.add_axes(box)
        axes.set_xlim(-0.01 * end, 1.02 * end)
        if panel.bounds is not None:
            axes.set_ylim(panel.bounds)
        _draw(axes, panel, layout)
        _dress(axes, panel, layout, end, lowest=row == len(drawn) - 1)
    return figure


def _draw(axes: Axes, panel: Panel, layout: Layout) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for line in panel.lines:
        starts = np.arange(0, len(line.images), len(line.images) // POINTS + 1)
        images, values_ = line.images[starts], line.values[starts]
        marker = "o" if line.dots else ""
        style: Any = {"color": line.colour, "linewidth": 1.8, "marker": marker, "markersize": 3.5}
        axes.plot(images, values_, **style)
        if panel.sides:
            axes.fill_between(images, 0, values_, where=values_ > 0, color=BLUE, alpha=0.22, linewidth=0)
            axes.fill_between(images, 0, values_, where=values_ < 0, color=VERMILLION, alpha=0.3, linewidth=0)
        else:
            handles.append(Line2D([], [], **style, label=line.name))
        for at, value, low, high in line.marks:
            reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.errorbar([at], [value], reach, color=line.colour, marker="D", markersize=7, capsize=4, clip_on=False)
        if line.aim is not None:
            axes.axhline(line.aim, color=line.colour, linewidth=1.1, linestyle=DASHED)
    if any(line.marks for line in panel.lines):
        handles.append(Line2D([], [], color=INK, linestyle="", marker="D", label="fresh D"))
    if panel.draw:
        axes.axhline(0, color=INK, linewidth=1.1, linestyle=DASHED)
        text = panel.draw if layout.wide else re.sub(r"(log 2) = ", r"\1\n= ", panel.draw)
        _note(axes, text, 0, layout, INK)
    if panel.sides:
        low, high = axes.get_ylim()
        between = 1.2 * (layout.font + 4) / layout.panel * (high - low)
        for text, at, colour in (("D ahead", 1 - between, BLUE), ("G ahead", low + between / 2, VERMILLION)):
            _note(axes, text, at, layout, colour)
    for line in panel.lines:
        if line.aim is not None:
            _note(axes, "the data" if layout.wide else "data", line.aim, layout, line.colour)
    if handles:
        axes.legend(
            handles=handles,
            loc="lower right" if layout.wide else "lower left",
            bbox_to_anchor=(1, 1) if layout.wide else (0, 1),
            ncols=len(handles),
            frameon=False,
            borderaxespad=0.2 if layout.wide else 0,
            borderpad=0.2,
            handlelength=1.6,
            columnspacing=1.2,
            labelcolor=INK,
            fontsize=layout.font * (0.95 if layout.wide else 0.9),
        )


def _note(axes: Axes, text: str, height: float, layout: Layout, colour: str) -> None:
    """A label in the right margin."""
    axes.annotate(
        text,
        xy=(1, height),
        xycoords=axes.get_yaxis_transform(),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        ha="left",
        color=colour,
        fontsize=layout.font * 0.92,
        annotation_clip=False,
    )


def _dress(axes: Axes, panel: Panel, layout: Layout, end: float, *, lowest: bool) -> None:
    """The panel's own ticks, and what all panels over the images seen have."""
    from matplotlib.ticker import FuncFormatter

    if panel.sides:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f} %"))
    dress(axes, layout, panel.title, panel.label, end, pad=8 if layout.wide else 26, lowest=lowest)
