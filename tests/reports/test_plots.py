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

from fake_runs import about, batches, fake_run
from rivals.reports.curves import NARROW, closed_form, curves_svg, draw_curves, panels
from rivals.reports.history import BUCKETS, History
from rivals.reports.run import Record, Run


class Records(Run):
    """A run that was never written."""

    def __init__(self, *records: Record, **changes: object) -> None:
        super().__init__(Path("nowhere"))
        self._records = records
        self._about = about(**changes)

    about = property(lambda self: self._about)

    def records(self):  # type: ignore[no-untyped-def]
        yield from self._records


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


def test_a_bucket_is_where_its_images_are() -> None:
    history = History(Records(*({"images": i, "x": float(i)} for i in range(1, 4001))))
    curve = history.curve("x")
    assert curve is not None
    # The width is 8 images here, so the mean of x, which counts images, lies in the middle of its bucket.
    assert len(curve.images) == 501
    assert np.abs(curve.mean - curve.images)[1:-1].max() <= 0.5
    assert np.abs(curve.smooth - curve.mean)[20:-20].max() < 1e-6


@pytest.mark.parametrize("place", range(995, 1005))
def test_an_extreme_survives_every_merging(place: int) -> None:
    values = dict.fromkeys(range(1, 5000), 0.0) | {place: -7.0, place + 3000: 7.0}
    history = History(Records(*({"images": i, "x": value} for i, value in values.items())))
    curve = history.curve("x")
    assert curve is not None
    assert (curve.low.min(), curve.high.max()) == (-7.0, 7.0)


def test_a_bucket_of_many_records_weighs_more() -> None:
    # All lie within one window: three records of 0 in the first bucket against one of 4 in the next.
    crowd = [{"images": 100_000, "x": 0.0}] * 3
    history = History(Records(*crowd, {"images": 100_000 + 128, "x": 4.0}))
    curve = history.curve("x")
    assert curve is not None
    assert len(curve.images) == 2
    assert curve.smooth == pytest.approx([1.0, 1.0], abs=0.05)


def test_smoothing_leaves_constants_alone() -> None:
    records = [{"images": 64 * i, "x": 3.0, **({"lazy": 5.0} if i % 16 == 0 else {})} for i in range(1, 3000)]
    history = History(Records(*records))
    for key, value in (("x", 3.0), ("lazy", 5.0)):
        curve = history.curve(key)
        assert curve is not None
        assert np.allclose(curve.smooth, value)


def test_what_is_no_number_is_left_out() -> None:
    odd = [math.nan, math.inf, None, "text", True, [1], 2.0]
    records = [{"images": 10 * (i + 1), "x": value} for i, value in enumerate(odd)]
    lost = [{"x": 100.0}, {"images": None, "x": 100.0}, {"images": -5, "x": 100.0}, ["x"], 7]
    history = History(Records(*records, *lost))  # type: ignore[arg-type]
    assert history.last("x", share=1) == (2.0, 2.0, 2.0)
    assert history.images == 70


def test_the_last_twentieth() -> None:
    history = History(Records(*({"images": i, "x": 0.0 if i <= 900 else 1.0} for i in range(1, 1000))))
    assert history.last("x") == (1.0, 1.0, 1.0)
    assert history.last("y") is None


def test_a_long_run_takes_little_memory() -> None:
    tracemalloc.start()
    history = History(Records(*[]))
    for step in range(1, 30_001):
        history._take(64 * step, {"x": float(step), "y": 1.0})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000
    assert len(history._series["x"]) <= BUCKETS


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2 * math.log(2), "2 log 2 = 1.386"),
        (math.log(2), "log 2 = 0.693"),
        (0.5, "the draw: 0.5"),
        (0, "the draw: 0"),
        (2, "the draw: 2"),
    ],
)
def test_the_draw_as_one_writes_it(value: float, text: str) -> None:
    assert closed_form(value) == text


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def test_three_panels_with_the_draw(tmp_path: Path) -> None:
    svg = curves_svg([History(fake_run(tmp_path / "run"))])
    assert svg is not None
    shown = texts(svg)
    for text in ("Losses", "The discriminator's answers", "Gradient norms", "2 log 2 = 1.386", "log 2 = 0.693"):
        assert shown.count(text) == 1
    assert "images seen, thousands" in shown
    assert "the draw: 0.5" in shown


def test_an_svg_stands_by_itself_in_the_pages_colours(tmp_path: Path) -> None:
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


def test_alarms_are_marked() -> None:
    records = batches(50)
    alarm = {"images": 640, "step": 10, "seconds": 1.0, "alarm": "oscillation", "raised": True}
    without, with_one = curves_svg([History(Records(*records))]), curves_svg([History(Records(*records, alarm))])
    assert without is not None and with_one is not None
    assert "alarm" not in texts(without) and "var(--purple)" not in without
    assert texts(with_one).count("alarm") == 3 and "var(--purple)" in with_one


def test_runs_of_two_units_get_a_panel_each() -> None:
    runs = [Records(*batches(20)), Records(*batches(20, seed=1), d_unit="score")]
    found = panels([History(run) for run in runs])
    assert [panel.label for panel in found] == ["loss", "mean probability", "mean score", "norm"]
    assert [len(panel.histories) for panel in found] == [2, 1, 1, 2]


def test_a_run_of_another_kind_shows_what_it_has() -> None:
    records = [{"images": 64 * i, "step": i, "loss/classifier": 1 / i, "accuracy": 0.5} for i in range(1, 30)]
    svg = curves_svg([History(Records(*records, equilibrium=None, d_unit=None))])
    assert svg is not None
    shown = texts(svg)
    assert "Losses" in shown and "classifier" in shown
    assert "Gradient norms" not in shown


def test_strange_names_are_drawn_as_they_are() -> None:
    history = History(Records(*({"images": i, "loss/$x^2$<b>": 1.0} for i in range(1, 9))))
    svg = curves_svg([history])
    assert svg is not None
    assert "$x^2$<b>" in texts(svg)


@pytest.mark.parametrize("values", [[5.0] * 9, [0.0] * 9, [1e-300] * 9, [1e12, -1e12] * 4, [3.0]])
def test_flat_tiny_and_huge_values_can_be_drawn(values: list[float]) -> None:
    keys = ("loss/discriminator", "d_real", "grad_norm/generator")
    history = History(Records(*({"images": i + 1, **dict.fromkeys(keys, v)} for i, v in enumerate(values))))
    assert curves_svg([history]) is not None


def test_curves_png(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    assert draw_curves(run) == run.folder / "curves.png"
    with Image.open(run.folder / "curves.png") as picture:
        assert picture.width == 2000
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_nothing_to_draw_draws_nothing(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", about())
    assert draw_curves(run) is None
    run.append([{"images": 64, "step": 1, "loss/discriminator": math.nan}])
    assert draw_curves(run) is None
    assert not (run.folder / "curves.png").exists()


def test_neither_torch_nor_pyplot_is_imported(tmp_path: Path) -> None:
    fake_run(tmp_path / "run", sheets=1)
    code = (
        "import json, sys; from pathlib import Path; from rivals.reports.run import Run;"
        "from rivals.reports.page import write_report; from rivals.reports.curves import draw_curves;"
        f"run = Run.open({str(tmp_path / 'run')!r}); draw_curves(run); write_report([run], run.report);"
        "print(json.dumps([name for name in ('torch', 'matplotlib.pyplot') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
