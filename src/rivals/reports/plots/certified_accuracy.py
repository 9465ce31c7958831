"""Certified accuracy against radius, with the accuracy under attack as its upper bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rivals.reports.history import Array
from rivals.reports.plots.style import (
    BLUE,
    INK,
    LINE_WIDTH,
    NARROW,
    VERMILLION,
    WIDE,
    Layout,
    labels_fit,
    single_axes,
    style_percent_by_radius,
    svg_element,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Steps = list[tuple[float, float]]  # rising radii, and shares that hold from there to the next radius


@dataclass(frozen=True)
class CertifiedCurves:
    """Lower and upper bound of the smoothed classifier's robust accuracy.

    Attributes:
        lower: Certified accuracy.
        upper: Accuracy under attack; empty without an attack.
        end: Radius at which the axis ends.
        max_radius: The largest radius that so many samples can certify, if that is below ``end``.
    """

    lower: Steps
    upper: Steps
    end: float
    max_radius: float | None


def certified_accuracy_svgs(curves: CertifiedCurves) -> tuple[str, str]:
    """The bounds as SVG elements for wide and narrow windows."""
    wide, narrow = (
        svg_element(lambda layout=layout: _figure(curves, layout), layout, f"certified-{name}")  # type: ignore[misc]
        for layout, name in ((WIDE, "wide"), (NARROW, "narrow"))
    )
    return wide, narrow


def _figure(curves: CertifiedCurves, layout: Layout) -> Figure:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure, axes = single_axes(layout)
    grid = np.array(sorted({0.0, curves.end, *(radius for radius, _ in [*curves.lower, *curves.upper])}))
    lower = _percent_at(curves.lower, grid)
    if curves.upper:
        upper = _percent_at(curves.upper, grid)
        axes.fill_between(grid, lower, upper, step="post", color=BLUE, alpha=0.13, linewidth=0)
        axes.step(grid, upper, where="post", color=VERMILLION, linewidth=LINE_WIDTH)
        axes.plot(*np.array(curves.upper).T * [[1], [100]], color=VERMILLION, linestyle="", marker="v", markersize=6)
    if curves.max_radius is not None:
        axes.axvline(curves.max_radius, color=INK, alpha=0.5, linewidth=1, linestyle=(0, (2, 2)))
    axes.step(grid, lower, where="post", color=BLUE, linewidth=LINE_WIDTH)
    style_percent_by_radius(axes, curves.end, "radius (L2 norm, images in [0, 1])", "images, %")
    ticks = [radius for radius, _ in curves.upper]
    if len(ticks) > 1 and labels_fit(ticks, curves.end, layout):
        axes.set_xticks(ticks)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8 if layout.wide else 4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.4g}"))
    return figure


def _percent_at(steps: Steps, radii: Array) -> Array:
    """The value of a step function at each radius, in percent."""
    starts, values = np.array(steps).T
    percent: Array = 100 * values[np.searchsorted(starts, radii, side="right") - 1]
    return percent
