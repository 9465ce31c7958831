"""Robust accuracy against eps, with the 95% interval as a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rivals.reports.formatting import in_255ths
from rivals.reports.plots.style import (
    BAND_ALPHA,
    LINE_STYLES,
    LINE_WIDTH,
    NARROW,
    RUN_COLORS,
    WIDE,
    Layout,
    labels_fit,
    run_color,
    single_axes,
    style_percent_by_radius,
    svg_element,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class AccuracyCurve:
    """The robust accuracy of one model: its name, its norm, and (eps, value, low, high) in rising order of eps."""

    name: str
    norm: str
    points: Sequence[tuple[float, float, float, float]]


def robust_accuracy_svgs(curves: Sequence[AccuracyCurve], prefix: str = "") -> tuple[str, str] | None:
    """The curves of one norm as SVG elements for wide and narrow windows; None with fewer than 3 points.

    Args:
        curves: In the colors of their places.
        prefix: Of the ids of the elements, so that they differ from those of other figures.
    """
    if not curves or max(len(curve.points) for curve in curves) < 3:
        return None
    wide, narrow = (
        svg_element(lambda layout=layout: _figure(curves, layout), layout, f"accuracy-{prefix}{name}")  # type: ignore[misc]
        for layout, name in ((WIDE, "wide"), (NARROW, "narrow"))
    )
    return wide, narrow


def _figure(curves: Sequence[AccuracyCurve], layout: Layout) -> Figure:
    figure, axes = single_axes(layout)
    for index, curve in enumerate(curves):
        color, style = run_color(index), LINE_STYLES[index // len(RUN_COLORS) % len(LINE_STYLES)]
        eps = [point[0] for point in curve.points]
        value, low, high = ([100 * point[i] for point in curve.points] for i in (1, 2, 3))
        axes.fill_between(eps, low, high, color=color, alpha=BAND_ALPHA, linewidth=0)
        axes.plot(eps, value, color=color, linestyle=style, linewidth=LINE_WIDTH, marker="o", markersize=5)
    radii = sorted({point[0] for curve in curves for point in curve.points})
    xlabel = f"eps ({curves[0].norm} norm, images in [0, 1])"
    style_percent_by_radius(axes, radii[-1], xlabel, "robust accuracy, %")
    _set_eps_ticks(axes, layout, radii)
    return figure


def query_curve_svgs(curves: Sequence[AccuracyCurve]) -> tuple[str, str] | None:
    """Robust accuracy against queries, (queries, value, low, high), as SVG elements for wide and narrow windows.

    None with fewer than 3 points.
    """
    if max(len(curve.points) for curve in curves) < 3:
        return None
    wide, narrow = (
        svg_element(lambda layout=layout: _query_figure(curves, layout), layout, f"queries-{name}")  # type: ignore[misc]
        for layout, name in ((WIDE, "wide"), (NARROW, "narrow"))
    )
    return wide, narrow


def _query_figure(curves: Sequence[AccuracyCurve], layout: Layout) -> Figure:
    figure, axes = single_axes(layout)
    for index, curve in enumerate(curves):
        color = run_color(index)
        made = [point[0] for point in curve.points]
        value, low, high = ([100 * point[i] for point in curve.points] for i in (1, 2, 3))
        axes.fill_between(made, low, high, color=color, alpha=BAND_ALPHA, linewidth=0, step="post")
        axes.plot(made, value, color=color, linewidth=LINE_WIDTH, drawstyle="steps-post")
    most = max(point[0] for curve in curves for point in curve.points)
    style_percent_by_radius(axes, most, "queries of an image", "robust accuracy, %")
    axes.set_xscale("log")
    axes.set_xlim(1, most)
    return figure


def _set_eps_ticks(axes: Axes, layout: Layout, radii: list[float]) -> None:
    """A tick at each eps if the labels fit, else at round numbers; in 255ths if all eps are such."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    largest = radii[-1]
    use_255ths = all(in_255ths(eps) for eps in radii)
    scale = 255 if use_255ths else 1
    ticks = radii
    if not labels_fit(radii, largest, layout):
        locator = MaxNLocator(nbins=8 if layout.wide else 4, integer=use_255ths)
        candidates = locator.tick_values(0, largest * scale)
        ticks = [tick / scale for tick in candidates if 0 <= tick <= largest * scale * 1.001]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x * 255:.4g}/255" if use_255ths and x else f"{x:.4g}"))
