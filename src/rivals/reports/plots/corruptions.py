"""Accuracy under each corruption, from the mildest severity to the strongest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rivals.reports.plots.style import INK, NARROW, WIDE, Layout, run_color, single_axes, style_axes, svg_element

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def corruption_svgs(accuracies: Mapping[str, Sequence[float]], clean: float | None) -> tuple[str, str]:
    """A row of dots for each corruption, a severity each, as SVG elements for wide and narrow windows.

    Args:
        accuracies: By corruption, from 0 to 1, from severity 1 on.
        clean: Clean accuracy, as a line; None if it is not known.
    """
    wide, narrow = (
        svg_element(lambda layout=layout: _figure(accuracies, clean, layout), layout, f"corruptions-{name}")  # type: ignore[misc]
        for layout, name in ((WIDE, "wide"), (NARROW, "narrow"))
    )
    return wide, narrow


def _figure(accuracies: Mapping[str, Sequence[float]], clean: float | None, layout: Layout) -> Figure:
    figure, axes = single_axes(layout)
    names = list(accuracies)
    for place, found in enumerate(accuracies.values()):
        values = [100 * value for value in found]
        axes.plot([place] * len(values), values, color=run_color(0), linewidth=1, alpha=0.5)
        axes.scatter([place] * len(values), values, s=[8 + 10 * i for i in range(len(values))], color=run_color(0))
    if clean is not None:
        axes.axhline(100 * clean, color=INK, linewidth=1, linestyle="--")
    axes.set_ylim(-2, 102)
    axes.set_ylabel("accuracy, %", color=INK)
    axes.set_xticks(range(len(names)))
    short = [name.removesuffix("_compression").removesuffix("_transform").replace("_", " ") for name in names]
    axes.set_xticklabels(short, rotation=60, ha="right", fontsize=7 if layout.wide else 5)
    style_axes(axes)
    return figure
