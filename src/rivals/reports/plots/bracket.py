"""The bracket of robust accuracy as bars: certified, open, broken, and misclassified without an attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rivals.reports.plots.style import (
    BLUE,
    INK,
    NARROW,
    ORANGE,
    SKY,
    VERMILLION,
    WIDE,
    Layout,
    single_axes,
    style_axes,
    svg_element,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = {"certified": BLUE, "open": SKY, "broken by the attack": VERMILLION, "misclassified without it": ORANGE}
ROW, LONGEST_NAME = 26, 14  # height of a bar with the space between, in points; letters of a name


@dataclass(frozen=True)
class BracketBar:
    """One bar: its name, and how many images there are of each of the ``PARTS``, in their order."""

    name: str
    counts: tuple[int, int, int, int]


def bracket_svgs(bars: Sequence[BracketBar]) -> tuple[str, str] | None:
    """A bar for each group of images or model, as SVG elements for wide and narrow windows; None if all are empty."""
    bars = [bar for bar in bars if sum(bar.counts)]
    if not bars:
        return None
    wide, narrow = (
        svg_element(lambda layout=layout: _figure(bars, layout), layout, f"bracket-{name}")  # type: ignore[misc]
        for layout, name in ((_sized(WIDE, bars), "wide"), (_sized(NARROW, bars), "narrow"))
    )
    return wide, narrow


def _sized(layout: Layout, bars: Sequence[BracketBar]) -> Layout:
    """The layout with room for the names, and for as many bars."""
    longest = max(len(_short(bar.name)) for bar in bars)
    left = max(layout.left, round(12 + 0.62 * layout.font * longest))
    return replace(layout, left=left, single=ROW * len(bars) + 8)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _figure(bars: Sequence[BracketBar], layout: Layout) -> Figure:
    figure, axes = single_axes(layout)
    places = range(len(bars))
    ends = [0.0] * len(bars)
    for part, color in enumerate(PARTS.values()):
        shares = [100 * bar.counts[part] / sum(bar.counts) for bar in bars]
        axes.barh(places, shares, left=ends, height=0.7, color=color, linewidth=0)
        ends = [end + share for end, share in zip(ends, shares, strict=True)]
    axes.set_ylim(len(bars) - 0.5, -0.5)  # the first on top
    axes.set_xlim(0, 100)
    axes.set_yticks(places, [_short(bar.name) for bar in bars])
    axes.set_xlabel("images, %", color=INK)
    style_axes(axes)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.8)
    return figure
