"""The training curves of one or more runs: losses, discriminator outputs, accuracy, gradient norms."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rivals.base.files import write_atomically
from rivals.base.run_folder import Run
from rivals.reports.history import Curve, History
from rivals.reports.plots.style import (
    BAND_ALPHA,
    BLUE,
    DASHED,
    GREEN,
    INK,
    LINE_STYLES,
    LINE_WIDTH,
    MAX_POINTS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    WIDE,
    Layout,
    add_legend,
    add_margin_label,
    inline_svg,
    render,
    run_color,
    stacked_axes,
    style_panel,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# The discriminator, and its output on real images, is blue in every panel; the generator is vermillion.
METRIC_COLORS = {"discriminator": BLUE, "generator": VERMILLION, "d_real": BLUE, "d_fake": VERMILLION}
METRIC_COLORS |= {"held_out": BLUE, "pgd": VERMILLION, "certified": VERMILLION}  # clean and robust accuracy
OTHER_COLORS = (GREEN, ORANGE, SKY)
ALARM_COLOR, ALARM_STYLE = PURPLE, (0, (2, 1.2))
MAX_ALARMS = 100
NARROW_COLUMNS = 3  # of a legend

METRIC_NAMES = {
    "d_real": "on real images",
    "d_fake": "on generated images",
    "accuracy": "training batch",
    "accuracy/test": "test images",
    "accuracy/held_out": "clean, held out",
    "accuracy/pgd": "PGD",
    "accuracy/fgsm": "FGSM",
    "accuracy/certified": "certified, held out",
    "accuracy/train_certified": "certified in training",
    "accuracy/generator": "under the generator",
    "accuracy/train_adversarial": "training attack",
    "quality/psnr": "held-out images",
    "quality/ssim": "held-out images",
}


@dataclass
class TrainingPanel:
    """One of the stacked panels.

    Attributes:
        title: Above it.
        label: Of its vertical axis.
        keys: The metrics that it shows.
        histories: The runs that it shows, each with its index among those compared.
        single: Whether one run is shown, with bands and alarms, or several are compared.
        log: Whether its vertical axis is logarithmic.
        bounds: The ends of its vertical axis; fitted to the values if None.
        equilibrium: The values at the equilibrium, by metric.
    """

    title: str
    label: str
    keys: list[str]
    histories: list[tuple[int, History]]
    single: bool
    log: bool = False
    bounds: tuple[float, float] | None = None
    equilibrium: dict[str, list[float]] = field(default_factory=dict)


def save_curves(run: Run) -> Path | None:
    """Write a run's training curves to ``curves.png`` in its folder.

    Returns:
        The picture's path, or None if the run has recorded nothing to plot.

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
    """The curves as an SVG element inside a page; None if there is nothing to plot.

    Text is ``currentColor`` and the other colors are CSS variables (``--blue``, ``--green``, ...), so that the page
    decides for light and dark. The element refers to nothing outside itself; its ids start with ``prefix``.
    """
    content = _render(histories, layout, "svg")
    return None if content is None else inline_svg(content.decode(), prefix)


def panels(histories: Sequence[History]) -> list[TrainingPanel]:
    """The panels that have something to show; discriminator outputs get one panel per unit."""
    numbered = list(enumerate(histories))
    single = len(numbered) == 1
    units: dict[str, list[tuple[int, History]]] = {}
    for index, history in numbered:
        units.setdefault(str(history.info.get("d_unit", "probability")), []).append((index, history))
    shares = (-0.03, 1.03)

    found = [("loss/[^/]+", TrainingPanel("Losses", "loss", [], numbered, single))]
    for unit, members in units.items():
        bounds = shares if unit == "probability" else None
        panel = TrainingPanel("Discriminator output", f"mean {unit}", [], members, single, bounds=bounds)
        found.append(("d_(real|fake)", panel))
    accuracy = TrainingPanel("Accuracy", "accuracy", [], numbered, single, bounds=shares)
    found.append(("accuracy(/.+)?", accuracy))
    found.append(("quality/psnr", TrainingPanel("PSNR", "dB", [], numbered, single)))
    found.append(("quality/ssim", TrainingPanel("SSIM", "similarity", [], numbered, single)))
    found.append(("quality/structure-.+", TrainingPanel("Structure of the input", "correlation", [], numbered, single)))
    found.append(
        ("quality/FD-.+", TrainingPanel("Distance to the targets", "distance", [], numbered, single, log=True))
    )
    found.append(("score/.+", TrainingPanel("Distance to the data", "distance", [], numbered, single, log=True)))
    found.append(("grad_norm/[^/]+", TrainingPanel("Gradient norms", "norm", [], numbered, single, log=True)))

    for pattern, panel in found:
        keys = {key for _, history in panel.histories for key in history.keys if re.fullmatch(pattern, key)}
        panel.keys = sorted(keys, key=lambda key: (_rank(key), key))
        for key in panel.keys:
            name = "d" if key.startswith("d_") else key
            values = {history.equilibrium(name) for _, history in panel.histories}
            panel.equilibrium[name] = sorted(value for value in values if value is not None)
    return [panel for _, panel in found if panel.keys]


def equilibrium_label(value: float) -> str:
    """A value at the equilibrium in closed form: ``2 log 2 = 1.386``, ``log 2 = 0.693``, ``equilibrium: 2``."""
    times = value / math.log(2)
    if value and abs(times - round(times)) < 2e-3:
        return f"{f'{round(times)} ' if round(times) != 1 else ''}log 2 = {value:.3f}"
    return f"equilibrium: {value:.4g}"


def _metric_color(key: str) -> str | None:
    return METRIC_COLORS.get(key.rpartition("/")[2])


def _rank(key: str) -> int:
    """The place of a metric in a legend: those with a color of their own first."""
    name = key.rpartition("/")[2]
    return list(METRIC_COLORS).index(name) if name in METRIC_COLORS else len(METRIC_COLORS)


def _render(histories: Sequence[History], layout: Layout, kind: str) -> bytes | None:
    found = panels(histories)
    return render(lambda: _figure(found, layout), layout, kind) if found else None


def _figure(found: list[TrainingPanel], layout: Layout) -> Figure:
    figure, rows = stacked_axes(len(found), layout)
    end = max(history.images for panel in found for _, history in panel.histories) or 1
    for axes, panel in zip(rows, found, strict=True):
        axes.set_xlim(0, end)
        handles, values = _plot_curves(axes, panel)
        _set_limits(axes, panel, values)
        if panel.single:
            handles += _mark_alarms(axes, panel.histories[0][1])
        _mark_equilibrium(axes, panel, layout)
        add_legend(axes, layout, handles, len(handles) if layout.wide else min(len(handles), NARROW_COLUMNS))
        if axes.get_yscale() == "log":
            _set_log_ticks(axes)
        pad = 8 if layout.wide else 12 + 14 * math.ceil(len(handles) / NARROW_COLUMNS)
        style_panel(axes, layout, panel.title, panel.label, end, pad=pad, is_last=panel is found[-1])
    return figure


def _plot_curves(axes: Axes, panel: TrainingPanel) -> tuple[list[Line2D], list[float]]:
    """Plot lines and bands; the handles of the legend, and the values that the axis must show."""
    from matplotlib.lines import Line2D

    values: list[float] = []
    handles: list[Line2D] = []
    other_colors = iter(OTHER_COLORS * len(panel.keys))
    for rank, key in enumerate(panel.keys):
        style = LINE_STYLES[0 if panel.single else rank % len(LINE_STYLES)]
        own_color = _metric_color(key) or next(other_colors)
        label = METRIC_NAMES.get(key, key.rpartition("/")[2])
        legend_color = own_color if panel.single else INK
        handles.append(Line2D([], [], color=legend_color, linestyle=style, linewidth=LINE_WIDTH, label=label))
        for index, history in panel.histories:
            curve = history.curve(key)
            if curve is None:
                continue
            color = own_color if panel.single else run_color(index)
            starts = np.arange(0, len(curve.images), len(curve.images) // MAX_POINTS + 1)
            images = curve.images[starts]
            if panel.single:
                low, high = np.minimum.reduceat(curve.low, starts), np.maximum.reduceat(curve.high, starts)
                axes.fill_between(images, low, high, color=color, alpha=BAND_ALPHA, linewidth=0)
            axes.plot(images, curve.smooth[starts], color=color, linestyle=style, linewidth=LINE_WIDTH)
            values += _extent(curve, band=panel.single)
    return handles, values


def _extent(curve: Curve, *, band: bool) -> list[float]:
    """What the axis must show: all values but the outermost hundredth, and the last one."""
    values = np.concatenate([curve.smooth, curve.low, curve.high] if band else [curve.smooth])
    return [*np.quantile(values, [0.01, 0.99]).tolist(), float(curve.smooth[-1])]


def _set_limits(axes: Axes, panel: TrainingPanel, values: list[float]) -> None:
    values = values + [value for levels in panel.equilibrium.values() for value in levels]
    positive = [value for value in values if value > 0]
    if panel.log and positive:
        axes.set_yscale("log")
        limits = min(positive) / 1.5, max(positive) * 1.5
    else:
        low, high = min(values), max(values)
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0  # also where all values are equal
        limits = low - margin, high + margin
    axes.set_ylim(panel.bounds or limits)


def _mark_alarms(axes: Axes, history: History) -> list[Line2D]:
    """A vertical line where each alarm was raised; the handle of the legend, if there is any."""
    from matplotlib.lines import Line2D

    raised = sorted({alarm["images"] for alarm in history.alarms if alarm.get("raised")})
    style: Any = {"color": ALARM_COLOR, "linewidth": 1.6, "linestyle": ALARM_STYLE}
    for images in raised[:: len(raised) // MAX_ALARMS + 1]:
        axes.axvline(images, **style)
    return [Line2D([], [], label="alarm", **style)] if raised else []


def _mark_equilibrium(axes: Axes, panel: TrainingPanel, layout: Layout) -> None:
    """The values at the equilibrium, dashed and labeled in the right margin."""
    low, high = axes.get_ylim()
    keys_by_value: dict[float, list[str]] = {}
    for key, values in panel.equilibrium.items():
        for value in values:
            keys_by_value.setdefault(value, []).append(key)
    label_height = (high - low) * (1 if layout.wide else 2) * (layout.font + 2) / layout.panel
    lowest = low
    for value, keys in sorted(keys_by_value.items()):
        color = (_metric_color(keys[0]) if panel.single and len(keys) == 1 else None) or INK
        axes.axhline(value, color=color, linewidth=1.1, linestyle=DASHED, alpha=0.9)
        # The labels of neighboring lines must not overlap.
        y = max(value, lowest)
        lowest = y + label_height
        text = equilibrium_label(value)
        if not layout.wide:
            text = text.removeprefix("equilibrium: ").replace(" = ", "\n= ")
        add_margin_label(axes, layout, text, y, color)


def _set_log_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 500 * low else (1.0,), numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.minorticks_off()
