"""How far a game is from its equilibrium, over the run: who is ahead, bounds on the divergence, entropy."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rivals.base.run_folder import Record
from rivals.reports.formatting import finite
from rivals.reports.history import Array, History, get_objects
from rivals.reports.plots.style import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    LINE_WIDTH,
    MAX_POINTS,
    NARROW,
    ORANGE,
    VERMILLION,
    WIDE,
    Layout,
    add_legend,
    add_margin_label,
    stacked_axes,
    style_panel,
    svg_element,
)
from rivals.reports.plots.training import equilibrium_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRESH = "fresh"  # the name of a newly trained discriminator in equilibrium.json


@dataclass
class Series:
    """Values over the images seen.

    Attributes:
        name: In the legend.
        color: Of its line.
        images: Images seen (n,).
        values: At those (n,).
        reference: The value of the real data, dashed.
        estimates: Single estimates with their interval: (images, value, low, high).
        dots: Whether each value is marked.
    """

    name: str
    color: str
    images: Array
    values: Array
    reference: float | None = None
    estimates: list[tuple[float, float, float, float]] = field(default_factory=list)
    dots: bool = False


@dataclass
class EquilibriumPanel:
    """One of the stacked panels.

    Attributes:
        title: Above it.
        label: Of its vertical axis.
        series: What it shows.
        bounds: The ends of its vertical axis; fitted to the values if None.
        zero_label: What 0 means, if it is the equilibrium.
        is_lead: Whether values above 0 are the discriminator's lead and values below 0 the generator's.
    """

    title: str
    label: str
    series: list[Series]
    bounds: tuple[float, float] | None
    zero_label: str = ""
    is_lead: bool = False


def find_estimate(measured: Record, name: str, discriminator: str | None = None) -> Record | None:
    """An estimate of ``equilibrium.json`` by its name and, if there are several, by its discriminator."""
    for record in get_objects(measured, "values"):
        matches = record.get("name") == name and discriminator in (None, record.get("discriminator"))
        if matches and finite(record.get("value")) is not None:
            return record
    return None


def find_interval(measured: Record, name: str, discriminator: str | None = None) -> Record | None:
    """An estimate as by :func:`find_estimate`, if it has an interval."""
    found = find_estimate(measured, name, discriminator)
    return None if found is None or None in (finite(found["low"]), finite(found["high"])) else found


def panels(history: History, measured: Record) -> list[EquilibriumPanel]:
    """The panels that have something to show.

    Args:
        history: The run.
        measured: The content of its ``equilibrium.json``, empty if it has none.
    """
    made = (_lead_panel(history), _divergence_panel(history, measured), _entropy_panel(history, measured))
    return [panel for panel in made if panel is not None]


def _lead_panel(history: History) -> EquilibriumPanel | None:
    """1 - L_D / L_D*: 1 where the discriminator never errs, 0 at the equilibrium."""
    curve, level = history.curve("loss/discriminator"), history.equilibrium("loss/discriminator")
    if curve is None or not level:
        return None
    lead = Series("lead of the discriminator", INK, curve.images, 1 - curve.smooth / level)
    low = min(-0.4, float(np.quantile(lead.values, 0.01)) * 1.1)
    text = f"equilibrium:\n{equilibrium_label(level).removeprefix('equilibrium: ')}"
    return EquilibriumPanel("Who is ahead", "lead", [lead], (max(low, -1.05), 1.05), text, is_lead=True)


def _divergence_panel(history: History, measured: Record) -> EquilibriumPanel | None:
    """Lower bounds of total variation and of the Jensen-Shannon divergence in units of log 2, both from 0 to 1."""
    at = float(measured.get("images") or history.images)
    found = []
    for key, name, estimate, color, slope, offset in (
        ("equilibrium/accuracy", "TV", "accuracy", BLUE, 2.0, -1.0),  # TV >= 2 accuracy - 1
        ("equilibrium/jsd_bound", "JSD", "JSD bound", GREEN, 1 / math.log(2), 0.0),
    ):
        curve = history.curve(key)
        series = Series(name, color, np.array([]), np.array([]), dots=True)
        if curve is not None:
            series.images, series.values = curve.images, np.maximum(slope * curve.mean + offset, 0)
        fresh = find_interval(measured, estimate, FRESH)
        if fresh is not None:
            value, low, high = (max(0.0, slope * fresh[end] + offset) for end in ("value", "low", "high"))
            series.estimates.append((at, value, low, high))
        if curve is not None or series.estimates:
            found.append(series)
    title, label = "Divergence of real and generated images, lower bounds", "bound"
    return EquilibriumPanel(title, label, found, (-0.04, 1.04), "equilibrium:\nD = 1/2") if found else None


def _entropy_panel(history: History, measured: Record) -> EquilibriumPanel | None:
    found = []
    pixels = history.curve("entropy/pixels")
    if pixels is not None:
        reference = finite(history.info.get("data_entropy"))
        found.append(Series("pixel values", ORANGE, pixels.images, pixels.mean, reference, dots=True))
    records = [record for record in get_objects(measured, "history") if finite(record.get("class_entropy")) is not None]
    images = np.array([float(record["images"]) for record in records])
    for key, name, label, color in (
        ("class_entropy", "class entropy of the data", "classes", BLUE),
        ("class_entropy_image", "class entropy of a real image", "class of an image", VERMILLION),
    ):
        if records:
            bits = np.array([float(record[key]) for record in records]) / math.log(2)
            data = find_estimate(measured, name)
            reference = data["value"] / math.log(2) if data else None
            found.append(Series(label, color, images, bits, reference, dots=True))
    return EquilibriumPanel("Entropy of generated images", "bits", found, None) if found else None


def equilibrium_svgs(found: Sequence[EquilibriumPanel], history: History, prefix: str = "") -> tuple[str, str]:
    """The panels as SVG elements for wide and narrow windows, whose ids start with ``prefix``."""
    end = max(history.images, 1)
    wide, narrow = (
        svg_element(lambda layout=layout: _figure(found, end, layout), layout, f"equilibrium-{prefix}{name}")  # type: ignore[misc]
        for layout, name in ((WIDE, "wide"), (NARROW, "narrow"))
    )
    return wide, narrow


def _figure(found: Sequence[EquilibriumPanel], end: float, layout: Layout) -> Figure:
    from matplotlib.ticker import FuncFormatter

    figure, rows = stacked_axes(len(found), layout)
    for axes, panel in zip(rows, found, strict=True):
        axes.set_xlim(-0.01 * end, 1.02 * end)
        if panel.bounds is not None:
            axes.set_ylim(panel.bounds)
        _plot_series(axes, panel, layout)
        _add_labels(axes, panel, layout)
        if panel.is_lead:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f}%"))
        pad = 8 if layout.wide else 26
        style_panel(axes, layout, panel.title, panel.label, end, pad=pad, is_last=panel is found[-1])
    return figure


def _plot_series(axes: Axes, panel: EquilibriumPanel, layout: Layout) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for series in panel.series:
        starts = np.arange(0, len(series.images), len(series.images) // MAX_POINTS + 1)
        images, values = series.images[starts], series.values[starts]
        marker = "o" if series.dots else ""
        style: Any = {"color": series.color, "linewidth": LINE_WIDTH, "marker": marker, "markersize": 3.5}
        axes.plot(images, values, **style)
        if panel.is_lead:
            axes.fill_between(images, 0, values, where=values > 0, color=BLUE, alpha=0.22, linewidth=0)
            axes.fill_between(images, 0, values, where=values < 0, color=VERMILLION, alpha=0.3, linewidth=0)
        else:
            handles.append(Line2D([], [], **style, label=series.name))
        for at, value, low, high in series.estimates:
            errors = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.errorbar([at], [value], errors, color=series.color, marker="D", markersize=7, capsize=4, clip_on=False)
        if series.reference is not None:
            axes.axhline(series.reference, color=series.color, linewidth=1.1, linestyle=DASHED)
    if any(series.estimates for series in panel.series):
        handles.append(Line2D([], [], color=INK, linestyle="", marker="D", label="fresh D"))
    if handles:
        add_legend(axes, layout, handles, len(handles))


def _add_labels(axes: Axes, panel: EquilibriumPanel, layout: Layout) -> None:
    """The labels in the right margin."""
    if panel.zero_label:
        axes.axhline(0, color=INK, linewidth=1.1, linestyle=DASHED)
        text = panel.zero_label
        if not layout.wide:
            text = re.sub(r"(log 2) = ", r"\1\n= ", text.removeprefix("equilibrium:\n"))
        add_margin_label(axes, layout, text, 0, INK)
    if panel.is_lead:
        low, high = axes.get_ylim()
        line = 1.2 * (layout.font + 4) / layout.panel * (high - low)
        add_margin_label(axes, layout, "D ahead", 1 - line, BLUE)
        add_margin_label(axes, layout, "G ahead", low + line / 2, VERMILLION)
    for series in panel.series:
        if series.reference is not None:
            text = "real data" if layout.wide else "data"
            add_margin_label(axes, layout, text, series.reference, series.color)
