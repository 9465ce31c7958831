"""The curves of a game: losses, the discriminator's answers and gradient norms over the images seen.

The figures are drawn through matplotlib's objects, never through pyplot, whose state belongs to the user.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rivals.base.files import write_atomically
from rivals.reports.history import Curve, History
from rivals.reports.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, legible to the colour-blind. Rivals keep their colours through all panels: what the
# discriminator does and what it sees of the real is blue, what the generator does is vermillion.
BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#e69f00",
    "#56b4e9",
    "#cc79a7",
)
ROLES = {"discriminator": BLUE, "generator": VERMILLION, "d_real": BLUE, "d_fake": VERMILLION}
ROLES |= {"held": BLUE, "pgd": VERMILLION}  # what counts of a classifier that is hardened
OTHERS = (GREEN, ORANGE, SKY)
RUNS = (BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE)
ALARM, ALARM_STYLE = PURPLE, (0, (2, 1.2))
INK = "#010203"  # stands for the page's own ink in an SVG, and is black to the eye in a PNG
STYLES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)))

ABREAST = 3  # names in a row of a narrow legend
POINTS = 300  # on a line, which is already smooth; more would be noise to the eye and weight to the page

NAMES = {
    "d_real": "on real images",
    "d_fake": "on generated images",
    "accuracy": "on the batch",
    "accuracy/test": "on test images",
    "accuracy/held": "kept aside",
    "accuracy/pgd": "under PGD",
    "accuracy/fgsm": "one step",
    "accuracy/attacked": "in training",
}
VARIABLES = {
    INK: "currentColor",
    BLUE: "var(--blue)",
    VERMILLION: "var(--vermillion)",
    GREEN: "var(--green)",
    ORANGE: "var(--orange)",
    SKY: "var(--sky)",
    PURPLE: "var(--purple)",
}


@dataclass
class Panel:
    """One of the stacked plots: which recorded numbers, of which runs, on what axis."""

    title: str
    label: str
    keys: list[str]
    histories: list[tuple[int, History]]  # with each run's place among those compared
    alone: bool  # whether one run is drawn, in full, or several are laid over each other
    log: bool = False
    bounds: tuple[float, float] | None = None
    draws: dict[str, list[float]] = field(default_factory=dict)  # key -> its values at the draw


@dataclass(frozen=True)
class Layout:
    """Sizes in points, which are CSS pixels where an SVG is shown at its full width."""

    width: int
    panel: int
    left: int
    right: int
    font: float
    between: int  # room above each panel, for its title and legend
    wide: bool  # whether the legend fits beside the title, and labels in the right margin
    bottom: int = 44


WIDE = Layout(width=1000, panel=190, left=66, right=124, font=12, between=46, wide=True)
NARROW = Layout(width=358, panel=170, left=50, right=56, font=11, between=62, wide=False)


def draw_curves(run: Run) -> Path | None:
    """Draw a run's curves into ``curves.png`` in its folder.

    Returns:
        The picture's path, or None when the run has recorded nothing that could be drawn.

    Raises:
        UserError: the picture cannot be written.
    """
    content = _render([History(run)], WIDE, "png")
    if content is None:
        return None
    path = run.folder / "curves.png"
    write_atomically(path, content)
    return path


def curves_svg(histories: Sequence[History], layout: Layout = WIDE, prefix: str = "wide") -> str | None:
    """The curves as an SVG element to stand inside a page, several runs overlaid; None if there are none.

    Ink is ``currentColor`` and the others are CSS variables (``--blue``, ``--green``, ...), so that the page
    decides for light and dark. It refers to nothing outside itself; its ids start with ``prefix``.
    """
    content = _render(histories, layout, "svg")
    return None if content is None else inline(content.decode(), prefix)


def panels(histories: Sequence[History]) -> list[Panel]:
    """The panels for which there is something to draw: losses, answers (one panel a unit), gradients."""
    numbered = list(enumerate(histories))
    alone = len(numbered) == 1
    units: dict[str, list[tuple[int, History]]] = {}
    for place, history in numbered:
        units.setdefault(str(history.about.get("d_unit", "probability")), []).append((place, history))

    found = [Panel("Losses", "loss", [], numbered, alone)]
    for unit, members in units.items():
        bounds = (-0.03, 1.03) if unit == "probability" else None
        found.append(Panel("The discriminator's answers", f"mean {unit}", [], members, alone, bounds=bounds))
    found.append(Panel("Accuracy", "share of images", [], numbered, alone, bounds=(-0.03, 1.03)))
    found.append(Panel("Distance to the data", "distance", [], numbered, alone, log=True))
    found.append(Panel("Gradient norms", "norm", [], numbered, alone, log=True))

    patterns = [r"loss/[^/]+", *[r"d_(real|fake)"] * len(units), r"accuracy(/.+)?", r"score/.+", r"grad_norm/[^/]+"]
    for panel, pattern in zip(found, patterns, strict=True):
        keys = {key for _, history in panel.histories for key in history.keys if re.fullmatch(pattern, key)}
        panel.keys = sorted(keys, key=lambda key: (*_role(key)[:1], key))
        for key in panel.keys:
            draw = "d" if key.startswith("d_") else key
            values = {history.equilibrium(draw) for _, history in panel.histories}
            panel.draws[draw] = sorted(value for value in values if value is not None)
    return [panel for panel in found if panel.keys]


def closed_form(value: float) -> str:
    """A value at the draw as one writes it on paper: ``2 log 2 = 1.386``, ``log 2 = 0.693``, ``the draw: 2``."""
    times = value / math.log(2)
    if value and abs(times - round(times)) < 2e-3:
        return f"{f'{round(times)} ' if round(times) != 1 else ''}log 2 = {value:.3f}"
    return f"the draw: {value:.4g}"


def _role(key: str) -> tuple[int, str | None]:
    """The rank of a recorded number among its like, and the colour kept for it, if there is one."""
    name = key.rpartition("/")[2]
    return (list(ROLES).index(name), ROLES[name]) if name in ROLES else (len(ROLES), None)


def _render(histories: Sequence[History], layout: Layout, kind: str) -> bytes | None:
    found = panels(histories)
    if not found:
        return None
    return saved(lambda: _figure(found, layout), layout, kind)


def element(make: Callable[[], Figure], layout: Layout, prefix: str) -> str:
    """A figure as an SVG element to stand inside a page, in the page's colours; its ids start with ``prefix``."""
    return inline(saved(make, layout, "svg").decode(), prefix)


def saved(make: Callable[[], Figure], layout: Layout, kind: str) -> bytes:
    """A figure as a file of a kind, svg or png: the same bytes for the same figure, whatever matplotlib is set to.

    Args:
        make: Draws it.
        layout: For its letters' size.
        kind: svg, or png on white.
    """
    import matplotlib

    file = io.BytesIO()
    settings: Any = {
        "text.usetex": False,
        "text.parse_math": False,
        "font.family": ["DejaVu Sans"],
        "font.size": layout.font,
        "svg.fonttype": "none",
        "svg.hashsalt": "rivals",
        "agg.path.chunksize": 0,
    }
    with matplotlib.rc_context(settings):
        plain = {"Software": None} if kind == "png" else {"Date": None}
        make().savefig(file, format=kind, dpi=144, facecolor="white" if kind == "png" else "none", metadata=plain)
    return file.getvalue()


def _figure(found: list[Panel], layout: Layout) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = len(found) * (layout.panel + layout.between) + layout.bottom
    figure = Figure(figsize=(layout.width / 72, height / 72))
    FigureCanvasAgg(figure)
    end = max(history.images for panel in found for _, history in panel.histories) or 1
    for row, panel in enumerate(found):
        bottom = height - (row + 1) * (layout.panel + layout.between)
        axes = figure.add_axes(
            (
                layout.left / layout.width,
                bottom / height,
                (layout.width - layout.left - layout.right) / layout.width,
                layout.panel / height,
            )
        )
        axes.set_xlim(0, end)
        named = _draw(axes, panel, layout)
        _frame(axes, panel, layout, end, named, lowest=row == len(found) - 1)
    return figure


def _draw(axes: Axes, panel: Panel, layout: Layout) -> int:
    """Bands, lines and markers of one panel, its limits and its legend, of so many names."""
    from matplotlib.lines import Line2D

    alone = panel.alone
    extent: list[float] = []
    handles: list[Line2D] = []
    spare = iter(OTHERS * len(panel.keys))
    for rank, key in enumerate(panel.keys):
        style = STYLES[0 if alone else rank % len(STYLES)]
        role = _role(key)[1] or next(spare)
        label = NAMES.get(key, key.rpartition("/")[2])
        handles.append(Line2D([], [], color=role if alone else INK, linestyle=style, linewidth=1.8, label=label))
        for place, history in panel.histories:
            curve = history.curve(key)
            if curve is None:
                continue
            colour = role if alone else RUNS[place % len(RUNS)]
            starts = np.arange(0, len(curve.images), len(curve.images) // POINTS + 1)
            images = curve.images[starts]
            if alone:
                low, high = np.minimum.reduceat(curve.low, starts), np.maximum.reduceat(curve.high, starts)
                axes.fill_between(images, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(images, curve.smooth[starts], color=colour, linestyle=style, linewidth=1.8)
            extent += _extent(curve, alone)
    for value in (value for values in panel.draws.values() for value in values):
        extent.append(value)

    positive = [value for value in extent if value > 0]
    log = panel.log and bool(positive)
    if log:
        axes.set_yscale("log")
    axes.set_ylim(panel.bounds or _limits(positive if log else extent, log))

    if alone:
        raised = sorted({alarm["images"] for alarm in panel.histories[0][1].alarms if alarm.get("raised")})
        for images in raised[:: len(raised) // 100 + 1]:
            axes.axvline(images, color=ALARM, linewidth=1.6, linestyle=ALARM_STYLE)
        if raised:
            handles.append(Line2D([], [], color=ALARM, linewidth=1.6, linestyle=ALARM_STYLE, label="alarm"))
    _draw_lines(axes, panel, layout)
    axes.legend(
        handles=handles,
        loc="lower right" if layout.wide else "lower left",
        bbox_to_anchor=(1, 1) if layout.wide else (0, 1),
        ncols=len(handles) if layout.wide else min(len(handles), ABREAST),
        frameon=False,
        borderaxespad=0.2 if layout.wide else 0,
        borderpad=0.2,
        handlelength=1.6,
        columnspacing=1.2,
        labelcolor=INK,
        fontsize=layout.font * (0.95 if layout.wide else 0.9),
    )
    return len(handles)


def _draw_lines(axes: Axes, panel: Panel, layout: Layout) -> None:
    """The values at the draw, dashed and labelled in the right margin."""
    low, high = axes.get_ylim()
    owners: dict[float, list[str]] = {}
    for key, values in panel.draws.items():
        for value in values:
            owners.setdefault(value, []).append(key)
    lines = 1 if layout.wide else 2
    lowest = low
    for value, keys in sorted(owners.items()):
        own = _role(keys[0])[1] if panel.alone and len(keys) == 1 else None
        axes.axhline(value, color=own or INK, linewidth=1.1, linestyle=(0, (5, 3)), alpha=0.9)
        text = closed_form(value)
        # Two labels of neighbouring lines must not lie on each other.
        height = max(value, lowest)
        lowest = height + (high - low) * lines * (layout.font + 2) / layout.panel
        axes.annotate(
            text if layout.wide else text.replace(": ", "\n").replace(" = ", "\n= "),
            xy=(1, height),
            xycoords=axes.get_yaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            ha="left",
            color=own or INK,
            fontsize=layout.font * 0.92,
            annotation_clip=False,
        )


def _frame(axes: Axes, panel: Panel, layout: Layout, end: int, named: int, *, lowest: bool) -> None:
    """The ticks of a log axis, and what :func:`dress` does."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    if axes.get_yscale() == "log":
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 500 * low else (1.0,), numticks=8))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    pad = 8 if layout.wide else 12 + 14 * math.ceil(named / ABREAST)
    dress(axes, layout, panel.title, panel.label, end, pad=pad, lowest=lowest)


def dress(axes: Axes, layout: Layout, title: str, label: str, end: float, *, pad: float, lowest: bool) -> None:
    """Title, ticks, grid and the names of the axes of a panel over the images seen.

    Args:
        axes: The panel's.
        layout: Of the figure.
        title: Above it.
        label: Of its upright axis.
        end: Images at its right end.
        pad: Between the panel and its title, in points; a narrow one has its legend there.
        lowest: Whether it is the last one, which names the images for all.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    unit, name = (1e6, "millions") if end >= 2e6 else (1e3, "thousands") if end >= 2e3 else (1, "")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10 if layout.wide else 5, integer=end >= 10))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / unit:g}"))
    axes.set_title(title, loc="left", color=INK, fontsize=layout.font * 1.1, fontweight="bold", pad=pad)
    axes.set_ylabel(label, color=INK)
    axes.yaxis.set_label_coords((1.4 * layout.font - layout.left) / (layout.width - layout.left - layout.right), 0.5)
    axes.set_facecolor("none")
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, colors=INK, labelbottom=lowest)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=INK, alpha=0.4)
    if lowest:
        axes.set_xlabel(f"images seen, {name}" if name else "images seen", color=INK)


def _extent(curve: Curve, band: bool) -> list[float]:
    """What the axis must show: all values but the outermost hundredth, and where the curve ends."""
    values = np.concatenate([curve.smooth, curve.low, curve.high] if band else [curve.smooth])
    return [*np.quantile(values, [0.01, 0.99]).tolist(), float(curve.smooth[-1])]


def _limits(values: list[float], log: bool) -> tuple[float, float]:
    """The ends of an axis with some air around its values, also where all of them are equal."""
    low, high = min(values), max(values)
    if log:
        return low / 1.5, high * 1.5
    air = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - air, high + air


def inline(svg: str, prefix: str) -> str:
    """A matplotlib SVG as an element of a page: no prolog, addresses or fixed size, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', svg, count=1)
    svg = svg.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", svg)
    svg = re.sub(r" d=\"[^\"]*\"", lambda m: re.sub(r"(\.\d)\d+", r"\1", m[0]), svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg.strip()
