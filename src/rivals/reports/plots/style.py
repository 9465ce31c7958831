"""What all figures share: colors, layouts for wide and narrow windows, the style of axes, and rendering.

Figures are made through matplotlib's objects, never through pyplot, whose state belongs to the user.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Okabe and Ito's palette, which is legible to the color-blind.
BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#cc79a7"
RUN_COLORS = (BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE)
INK = "#010203"  # replaced by the page's text color in an SVG, and black to the eye in a PNG
CSS_COLORS = {
    INK: "currentColor",
    BLUE: "var(--blue)",
    VERMILLION: "var(--vermillion)",
    GREEN: "var(--green)",
    ORANGE: "var(--orange)",
    SKY: "var(--sky)",
    PURPLE: "var(--purple)",
}
LINE_STYLES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)))
DASHED: Any = (0, (5, 3))
LINE_WIDTH = 1.8
BAND_ALPHA = 0.18
MAX_POINTS = 300  # on a line; more would add noise to the eye and weight to the page
POINTS_PER_INCH = 72


@dataclass(frozen=True)
class Layout:
    """Sizes in points, which are CSS pixels where an SVG is shown at its full width.

    Attributes:
        width: Of the figure.
        panel: Height of one of several stacked panels.
        single: Height of the panel of a figure that has only one.
        left: Left margin.
        right: Right margin of stacked panels, which holds the labels of horizontal lines.
        font: Font size.
        between: Space above each panel, for its title and legend.
        wide: Whether the legend fits next to the title, and long labels into the right margin.
        bottom: Bottom margin.
    """

    width: int
    panel: int
    single: int
    left: int
    right: int
    font: float
    between: int
    wide: bool
    bottom: int = 44


WIDE = Layout(width=1000, panel=190, single=300, left=66, right=124, font=12, between=46, wide=True)
NARROW = Layout(width=358, panel=170, single=220, left=50, right=56, font=11, between=62, wide=False)


def run_color(index: int) -> str:
    """The color of a run among those compared."""
    return RUN_COLORS[index % len(RUN_COLORS)]


def stacked_axes(n: int, layout: Layout) -> tuple[Figure, list[Axes]]:
    """A figure of ``n`` panels, one above the other, and their axes from the top down."""
    step = layout.panel + layout.between
    height = n * step + layout.bottom
    figure = _figure(layout.width, height)
    width = layout.width - layout.left - layout.right
    bottoms = [height - (row + 1) * step for row in range(n)]
    return figure, [_add_axes(figure, layout.left, bottom, width, layout.panel) for bottom in bottoms]


def single_axes(layout: Layout) -> tuple[Figure, Axes]:
    """A figure of one panel without a title."""
    right, top = 24, 14
    figure = _figure(layout.width, layout.single + layout.bottom + top)
    width = layout.width - layout.left - right
    return figure, _add_axes(figure, layout.left, layout.bottom, width, layout.single)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH))
    FigureCanvasAgg(figure)
    return figure


def _add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a position in points."""
    total_width, total_height = (POINTS_PER_INCH * inches for inches in figure.get_size_inches())
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def style_axes(axes: Axes) -> None:
    """No background, no frame but the bottom line, faint horizontal grid lines, everything in the text color."""
    axes.set_facecolor("none")
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, colors=INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=INK, alpha=0.4)


def style_panel(axes: Axes, layout: Layout, title: str, label: str, end: float, *, pad: float, is_last: bool) -> None:
    """Style one of several stacked panels whose horizontal axis is the number of images seen.

    Args:
        axes: The panel's.
        layout: Of the figure.
        title: Of the panel.
        label: Of its vertical axis.
        end: Images at its right end.
        pad: Points between the panel and its title; a narrow layout has its legend there.
        is_last: Whether it is the lowest panel, which labels the horizontal axis for all.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    # A fixed height: to find a free one, every tick would be laid out.
    axes.set_title(title, loc="left", y=1, color=INK, fontsize=layout.font * 1.1, fontweight="bold", pad=pad)
    axes.set_ylabel(label, color=INK)
    axes.yaxis.set_label_coords((1.4 * layout.font - layout.left) / (layout.width - layout.left - layout.right), 0.5)
    style_axes(axes)
    if not is_last:
        axes.xaxis.set_major_locator(NullLocator())
        return
    unit, name = (1e6, "millions") if end >= 2e6 else (1e3, "thousands") if end >= 2e3 else (1, "")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10 if layout.wide else 5, integer=end >= 10))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / unit:g}"))
    axes.set_xlabel(f"images seen, {name}" if name else "images seen", color=INK)


def style_percent_by_radius(axes: Axes, largest: float, xlabel: str, ylabel: str) -> None:
    """Style a panel of percentages over the radius of the perturbation."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(-0.02 * largest, 1.02 * largest)
    axes.set_ylim(-2, 102)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    style_axes(axes)


def labels_fit(ticks: Sequence[float], largest: float, layout: Layout) -> bool:
    """Whether the labels of rising ticks do not overlap on an axis that ends at ``largest``."""
    return min(after - before for before, after in pairwise(ticks)) >= largest / (14 if layout.wide else 5)


def add_legend(axes: Axes, layout: Layout, handles: Sequence[Line2D], columns: int) -> None:
    """A legend above the panel: on the right of the title, or below it in a narrow layout."""
    axes.legend(
        handles=handles,
        loc="lower right" if layout.wide else "lower left",
        bbox_to_anchor=(1, 1) if layout.wide else (0, 1),
        ncols=columns,
        frameon=False,
        borderaxespad=0.2 if layout.wide else 0,
        borderpad=0.2,
        handlelength=1.6,
        columnspacing=1.2,
        labelcolor=INK,
        fontsize=layout.font * (0.95 if layout.wide else 0.9),
    )


def add_margin_label(axes: Axes, layout: Layout, text: str, y: float, color: str) -> None:
    """A label in the right margin, at the height ``y`` of the data."""
    axes.annotate(
        text,
        xy=(1, y),
        xycoords=axes.get_yaxis_transform(),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        ha="left",
        color=color,
        fontsize=layout.font * 0.92,
        annotation_clip=False,
    )


def render(make: Callable[[], Figure], layout: Layout, kind: str) -> bytes:
    """A figure as the content of a file: the same bytes for the same figure, whatever matplotlib's settings.

    Args:
        make: Makes the figure.
        layout: For its font size.
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
        metadata = {"Software": None} if kind == "png" else {"Date": None}
        background = "white" if kind == "png" else "none"
        make().savefig(file, format=kind, dpi=144, facecolor=background, metadata=metadata)
    return file.getvalue()


def svg_element(make: Callable[[], Figure], layout: Layout, prefix: str) -> str:
    """A figure as an SVG element inside a page, in the page's colors; its ids start with ``prefix``."""
    return inline_svg(render(make, layout, "svg").decode(), prefix)


def inline_svg(svg: str, prefix: str) -> str:
    """A matplotlib SVG as an element of a page: no prolog, addresses or fixed size, in the page's colors."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', svg, count=1)
    svg = svg.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", svg)
    # One decimal of a point is enough for the eye, and halves the size of the page.
    svg = re.sub(r" d=\"[^\"]*\"", lambda m: re.sub(r"(\.\d)\d+", r"\1", m[0]), svg)
    for color, css in CSS_COLORS.items():
        svg = svg.replace(color, css)
    return svg.strip()
