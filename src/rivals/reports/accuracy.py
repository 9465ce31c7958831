"""Accuracy against eps: what share of images stands as the ball grows, with the 95 % interval as a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from rivals.reports.curves import INK, NARROW, RUNS, STYLES, WIDE, Layout, element

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BYTE = 255
HEIGHT = 300  # of the panel, in points


@dataclass(frozen=True)
class Line:
    """The accuracy of one run: its name, its norm, and (eps, share, low, high) in rising order of eps."""

    name: str
    norm: str
    points: Sequence[tuple[float, float, float, float]]


def accuracy_svg(lines: Sequence[Line], layout: Layout = WIDE, prefix: str = "wide") -> str | None:
    """The lines as an SVG element to stand inside a page; None if there are too few points to show a course.

    Args:
        lines: Runs of one norm, laid over each other in the colours of their places.
        layout: For a wide or a narrow window.
        prefix: What its ids start with.
    """
    if not lines or max(len(line.points) for line in lines) < 3:
        return None
    return element(lambda: _figure(lines, layout), layout, f"accuracy-{prefix}")


def in_bytes(eps: float) -> bool:
    """Whether a radius is best told in steps of a byte, as 8/255: a whole number, or of small ones of quarters."""
    steps = eps * BYTE * (4 if eps * BYTE < 4 else 1)  # not all: 0.05 would be 12.75/255
    # 0 is told either way, and 0.2, which happens to be 51/255, by two decimals.
    short = eps > 0 and abs(100 * eps - round(100 * eps)) < 1e-9
    return abs(steps - round(steps)) < 1e-5 and not short


def both_svgs(lines: Sequence[Line], prefix: str = "") -> tuple[str, str] | None:
    """For wide and for narrow windows; ``prefix`` sets their ids apart from those of other figures."""
    wide = accuracy_svg(lines, WIDE, f"{prefix}wide")
    narrow = accuracy_svg(lines, NARROW, f"{prefix}narrow")
    return None if wide is None or narrow is None else (wide, narrow)


def _figure(lines: Sequence[Line], layout: Layout) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panel = HEIGHT if layout.wide else 220
    right, top = 24, 14
    height = panel + layout.bottom + top
    figure = Figure(figsize=(layout.width / 72, height / 72))
    FigureCanvasAgg(figure)
    place = (layout.left, layout.bottom, layout.width - layout.left - right, panel)
    axes = figure.add_axes(
        (place[0] / layout.width, place[1] / height, place[2] / layout.width, place[3] / height),
    )
    for rank, line in enumerate(lines):
        colour, style = RUNS[rank % len(RUNS)], STYLES[rank // len(RUNS) % len(STYLES)]
        eps, share, low, high = (
            [100 * value if column else value for value in values]
            for column, values in enumerate(zip(*line.points, strict=True))
        )
        axes.fill_between(eps, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(eps, share, color=colour, linestyle=style, linewidth=1.8, marker="o", markersize=5)
    _frame(axes, lines, layout)
    return figure


def _frame(axes: Axes, lines: Sequence[Line], layout: Layout) -> None:
    """Limits, ticks and the names of the axes; eps in steps of a byte where all radii are such."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    every = [point[0] for line in lines for point in line.points]
    most = max(every)
    bytes_ = all(in_bytes(eps) for eps in every)
    scale = BYTE if bytes_ else 1
    axes.set_xlim(-0.02 * most, 1.02 * most)
    axes.set_ylim(-2, 102)
    # The radii themselves where their labels have room, else round numbers.
    ticks, room = sorted(set(every)), most / (14 if layout.wide else 5)
    if min(after - before for before, after in pairwise(ticks)) < room:
        locator = MaxNLocator(nbins=8 if layout.wide else 4, integer=bytes_)
        ticks = [tick / scale for tick in locator.tick_values(0, most * scale) if 0 <= tick <= most * scale * 1.001]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x * BYTE:.4g}/255" if bytes_ and x else f"{x:.4g}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    norm = lines[0].norm
    axes.set_xlabel(f"eps ({norm} norm, images in [0, 1])", color=INK)
    axes.set_ylabel("images that stand, %", color=INK)
    axes.set_facecolor("none")
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, colors=INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=INK, alpha=0.4)
