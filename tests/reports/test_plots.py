from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers.fake_runs import batches, fake_run, info
from rivals.base.run_folder import Record, Run
from rivals.reports.history import BUCKETS, History
from rivals.reports.plots.bracket import PARTS, BracketBar, bracket_svgs
from rivals.reports.plots.style import CSS_COLORS, NARROW
from rivals.reports.plots.training import curves_svg, equilibrium_label, panels, save_curves


class Records(Run):
    """A run in memory."""

    def __init__(self, *records: Record, **changes: object) -> None:
        super().__init__(Path("nowhere"))
        self._records = records
        self._info = info(**changes)

    info = property(lambda self: self._info)

    def records(self):  # type: ignore[no-untyped-def]
        for record in self._records:
            yield {"step": 0, "seconds": 0.0, **record}


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(-1e6, 1e6)), min_size=1, max_size=60), st.integers(0, 12))
def test_buckets_keep_mean_and_extremes(steps: list[tuple[int, float]], power: int) -> None:
    images = np.cumsum([step for step, _ in steps]) * 2**power
    values = np.array([value for _, value in steps])
    history = History(Records(*({"images": int(i), "x": v} for i, v in zip(images, values, strict=True))))
    curve = history.curve("x")
    assert curve is not None
    assert len(curve.images) <= BUCKETS
    assert (curve.low <= curve.mean + 1e-6).all() and (curve.mean <= curve.high + 1e-6).all()
    assert (curve.low.min(), curve.high.max()) == (values.min(), values.max())
    whole = history.last("x", share=1)
    assert whole == pytest.approx((values.mean(), values.min(), values.max()), abs=1e-6)


def test_bucket_centers_match_images_seen() -> None:
    history = History(Records(*({"images": i, "x": float(i)} for i in range(1, 4001))))
    curve = history.curve("x")
    assert curve is not None
    # The width is 8 images here, so the mean of x, which counts images, lies in the middle of its bucket.
    assert len(curve.images) == 501
    assert np.abs(curve.mean - curve.images)[1:-1].max() <= 0.5
    assert np.abs(curve.smooth - curve.mean)[20:-20].max() < 1e-6


@pytest.mark.parametrize("place", range(995, 1005))
def test_extremes_survive_merging_of_buckets(place: int) -> None:
    values = dict.fromkeys(range(1, 5000), 0.0) | {place: -7.0, place + 3000: 7.0}
    history = History(Records(*({"images": i, "x": value} for i, value in values.items())))
    curve = history.curve("x")
    assert curve is not None
    assert (curve.low.min(), curve.high.max()) == (-7.0, 7.0)


def test_smoothing_weights_buckets_by_records() -> None:
    # All lie within one window: three records of 0 in the first bucket against one of 4 in the next.
    crowd = [{"images": 100_000, "x": 0.0}] * 3
    history = History(Records(*crowd, {"images": 100_000 + 128, "x": 4.0}))
    curve = history.curve("x")
    assert curve is not None
    assert len(curve.images) == 2
    assert curve.smooth == pytest.approx([1.0, 1.0], abs=0.05)


def test_smoothing_keeps_constants() -> None:
    records = [{"images": 64 * i, "x": 3.0, **({"lazy": 5.0} if i % 16 == 0 else {})} for i in range(1, 3000)]
    history = History(Records(*records))
    for key, value in (("x", 3.0), ("lazy", 5.0)):
        curve = history.curve(key)
        assert curve is not None
        assert np.allclose(curve.smooth, value)


def test_non_finite_values_are_skipped() -> None:
    odd = [math.nan, math.inf, None, "text", True, [1], 2.0]
    records = [{"images": 10 * (i + 1), "x": value} for i, value in enumerate(odd)]
    history = History(Records(*records))
    assert history.last("x", share=1) == (2.0, 2.0, 2.0)
    assert history.images == 70 and not history.problems


@pytest.mark.parametrize(
    "line",
    [
        *('{"step": 1}', '{"images": null}', '{"images": -5}', '{"images": 1e3}', '{"images": 99999999999999999}'),
        *("[1]", "7", "\x00", '{"images": 1, "sample_grid": 5}', '{"images": 1, "x": "\\ud800"}'),
        '{"images": 1, "x": ' + "[" * 5000,
    ],
    ids=lambda line: line[:25],
)
def test_damaged_records_are_skipped_and_counted(tmp_path: Path, line: str) -> None:
    run = fake_run(tmp_path / "run", steps=10, grids=1)
    images = History(run).images
    rest = '{"step": 11, "seconds": 1.0, '
    with run.metrics.open("a") as file:
        file.write(f"{line.replace('{', rest, 1)}\n")
        file.write('{"images": 3, "step"')  # cut short by a kill: not a damage
    history = History(run)
    assert history.images == images and history.step == 10
    assert history.problems == [f"1 line of '{run.metrics}' cannot be read"]


def test_last_covers_the_last_twentieth() -> None:
    history = History(Records(*({"images": i, "x": 0.0 if i <= 900 else 1.0} for i in range(1, 1000))))
    assert history.last("x") == (1.0, 1.0, 1.0)
    assert history.last("y") is None


def test_long_run_uses_bounded_memory() -> None:
    tracemalloc.start()
    history = History(Records(*[]))
    for step in range(1, 30_001):
        history._add(64 * step, {"step": step, "seconds": 0.0, "x": float(step), "y": 1.0})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000
    assert len(history._series["x"]) <= BUCKETS


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2 * math.log(2), "2 log 2 = 1.386"),
        (math.log(2), "log 2 = 0.693"),
        (0.5, "equilibrium: 0.5"),
        (0, "equilibrium: 0"),
        (2, "equilibrium: 2"),
    ],
)
def test_equilibrium_values_have_closed_forms(value: float, text: str) -> None:
    assert equilibrium_label(value) == text


def svg_texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def test_three_panels_with_equilibrium_labels(tmp_path: Path) -> None:
    svg = curves_svg([History(fake_run(tmp_path / "run"))])
    assert svg is not None
    shown = svg_texts(svg)
    for text in ("Losses", "Discriminator output", "Gradient norms", "2 log 2 = 1.386", "log 2 = 0.693"):
        assert shown.count(text) == 1
    assert "images seen, thousands" in shown
    assert "equilibrium: 0.5" in shown


def test_svg_is_self_contained_and_uses_css_colors(tmp_path: Path) -> None:
    history = History(fake_run(tmp_path / "run"))
    wide, narrow = curves_svg([history]), curves_svg([history], NARROW, "narrow")
    assert wide is not None and narrow is not None
    for svg in (wide, narrow):
        assert "http" not in svg and "#010203" not in svg and "xmlns" not in svg
        assert "currentColor" in svg and "var(--blue)" in svg
    for svg in (wide, narrow):
        root = ElementTree.fromstring(svg)
        refers = set(re.findall(r"(?:url\(|href=\")#([^\")]+)", svg))
        assert refers and refers == {element.get("id") for element in root.iter() if element.get("id")}
    ids = [{e.get("id") for e in ElementTree.fromstring(svg).iter() if e.get("id")} for svg in (wide, narrow)]
    assert ids[0] and ids[1] and not ids[0] & ids[1]


def test_alarms_are_marked_in_every_panel() -> None:
    records = batches(50)
    alarm = {"images": 640, "step": 10, "seconds": 1.0, "alarm": "oscillation", "raised": True}
    without, with_one = curves_svg([History(Records(*records))]), curves_svg([History(Records(*records, alarm))])
    assert without is not None and with_one is not None
    assert "alarm" not in svg_texts(without) and "var(--purple)" not in without
    assert svg_texts(with_one).count("alarm") == 3 and "var(--purple)" in with_one


def test_discriminator_outputs_get_one_panel_per_unit() -> None:
    runs = [Records(*batches(20)), Records(*batches(20, seed=1), d_unit="score")]
    found = panels([History(run) for run in runs])
    assert [panel.label for panel in found] == ["loss", "mean probability", "mean score", "norm"]
    assert [len(panel.histories) for panel in found] == [2, 1, 1, 2]


def test_classifier_run_shows_only_its_panels() -> None:
    records = [{"images": 64 * i, "step": i, "loss/classifier": 1 / i, "accuracy": 0.5} for i in range(1, 30)]
    svg = curves_svg([History(Records(*records, equilibrium=None, d_unit=None))])
    assert svg is not None
    shown = svg_texts(svg)
    assert "Losses" in shown and "classifier" in shown
    assert "Gradient norms" not in shown


def test_metric_names_are_not_parsed_as_math() -> None:
    history = History(Records(*({"images": i, "loss/$x^2$<b>": 1.0} for i in range(1, 9))))
    svg = curves_svg([history])
    assert svg is not None
    assert "$x^2$<b>" in svg_texts(svg)


@pytest.mark.parametrize("values", [[5.0] * 9, [0.0] * 9, [1e-300] * 9, [1e12, -1e12] * 4, [3.0]])
def test_flat_tiny_and_huge_values_can_be_plotted(values: list[float]) -> None:
    keys = ("loss/discriminator", "d_real", "grad_norm/generator")
    history = History(Records(*({"images": i + 1, **dict.fromkeys(keys, v)} for i, v in enumerate(values))))
    assert curves_svg([history]) is not None


def test_curves_png_is_white_and_2000_pixels_wide(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    assert save_curves(run) == run.folder / "curves.png"
    with Image.open(run.folder / "curves.png") as picture:
        assert picture.width == 2000
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_no_metrics_give_no_picture(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", info())
    assert save_curves(run) is None
    run.append([{"images": 64, "step": 1, "seconds": 0.1, "loss/discriminator": math.nan}])
    assert save_curves(run) is None
    assert not (run.folder / "curves.png").exists()


def test_neither_torch_nor_pyplot_is_imported(tmp_path: Path) -> None:
    fake_run(tmp_path / "run", grids=1)
    code = (
        "import json, sys; from pathlib import Path; from rivals.base.run_folder import Run;"
        "from rivals.reports.report import write_report; from rivals.reports.plots.training import save_curves;"
        f"run = Run.open({str(tmp_path / 'run')!r}); save_curves(run); write_report([run], run.report);"
        "print(json.dumps([name for name in ('torch', 'matplotlib.pyplot') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_bars_of_the_bracket_fill_the_width_by_their_shares() -> None:
    bars = [BracketBar("all images", (50, 25, 15, 10)), BracketBar("empty", (0, 0, 0, 0))]
    svgs = bracket_svgs([*bars, BracketBar("a class of a very long name", (0, 0, 4, 0))])
    assert svgs is not None
    for svg in svgs:
        ElementTree.fromstring(svg.replace("&nbsp;", ""))
        assert "all images" in svg and "a class of a …" in svg and "empty" not in svg
        widths = []
        for color in PARTS.values():
            paths = re.findall(rf'd="([^"]*)"[^>]*style="fill: {re.escape(CSS_COLORS[color])}"', svg)
            places = [[float(x) for x in re.findall(r"[ML] (-?[\d.]+)", path)] for path in paths]
            widths.append([max(place) - min(place) for place in places])
        whole = sum(width[0] for width in widths)
        assert [width[0] / whole for width in widths] == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=0.003)
        assert widths[2][1] == pytest.approx(whole, abs=1)
    assert bracket_svgs(bars[1:]) is None
