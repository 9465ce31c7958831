from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers.fake_runs import REMEDY, SAYS, batches, fake_run, info, place
from rivals.base.errors import UserError
from rivals.base.run_folder import Record, Run
from rivals.reports.formatting import format_duration, format_number
from rivals.reports.history import History
from rivals.reports.html import Html, join, tag
from rivals.reports.image_grid import save_png
from rivals.reports.report import write_report
from rivals.reports.sample_timeline import MAX_FRAMES, pack_frames, thin
from rivals.reports.sections.training import balance


class Page(HTMLParser):
    """A parsed page: its elements, its text by element, and whether its tags are balanced."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text("utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.content: dict[str, list[str]] = {}
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.content.setdefault(self.open[-1], []).append(data)

    @property
    def text(self) -> str:
        """The visible text, roughly."""
        hidden = ("script", "style")
        return " ".join(" ".join(parts) for tag, parts in self.content.items() if tag not in hidden)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def timelines(self) -> list[list[dict[str, str]]]:
        found = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', self.source, re.DOTALL)
        return [json.loads(text) for text in found]


def page_of(*runs: Run, dest: Path) -> Page:
    page = Page(write_report(runs, dest))
    assert page.open == []
    return page


def test_page_of_a_run_has_all_sections(tmp_path: Path) -> None:
    page = page_of(fake_run(tmp_path / "first"), dest=tmp_path / "report.html")
    assert page.content["title"] == ["quick on mnist5k"]
    assert page.content["h1"] == ["quick on mnist5k"]
    assert page.content["h2"] == [
        "Health",
        "Samples",
        "How far from the equilibrium",
        "Training curves",
        "The GAN game",
        "Final metrics",
        "Configuration",
        "Indices of the classes",
        "Environment",
        "Command line",
    ]
    for text in (
        "No alarm.",
        "12,800",
        "3.2 epochs",
        "5,000 images, 28 px, grayscale",
        "1,234,567",
        "17 s",
        "750 images/s",
        "first",
    ):
        assert text in page.text
    assert "rivals train mnist5k --until '4 minutes'" in page.text
    assert len(page.all("svg")) == 2 + 2 + 2  # two figures for wide and narrow windows, and the button's two signs


def test_page_loads_nothing_from_the_network(tmp_path: Path) -> None:
    page = page_of(fake_run(tmp_path / "run"), dest=tmp_path / "report.html")
    assert (
        "http:" not in page.source
        and "https:" not in page.source
        and "//" not in re.sub(r"data:[^\"]*|^\s*//.*$", "", page.source, flags=re.MULTILINE)
    )
    for _, attributes in page.elements:
        for key in ("src", "href", "action", "poster", "srcset", "data"):
            assert (attributes.get(key) or "#").startswith(("#", "data:"))
        assert not [key for key in attributes if key.startswith("on")]
    assert not page.all("link") and "@import" not in page.source
    assert not re.search(r"url\((?!#)", page.source)


def test_content_security_policy_allows_only_the_pages_script(tmp_path: Path) -> None:
    page = page_of(fake_run(tmp_path / "run"), dest=tmp_path / "report.html")
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    script = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert len(script) == 1
    assert f"script-src 'sha256-{digest}'" in (policy or "")
    assert "default-src 'none'" in (policy or "")


NASTY = "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(1)>$x$"


def test_all_text_from_files_is_escaped(tmp_path: Path) -> None:
    run = fake_run(
        tmp_path / "<b>&run",
        recipe=NASTY,
        command_line=NASTY,
        created=NASTY,
        device=NASTY,
        state=NASTY,
        config={NASTY: NASTY, "list": [NASTY], "until": NASTY},
        data={"name": NASTY, "size": NASTY, "classes": [NASTY]},
        players={NASTY: {"net": NASTY}, "generator": {}, "discriminator": {}},
        versions={NASTY: NASTY},
        git={"commit": {NASTY: NASTY}},
        d_unit=NASTY,
    )
    at = {"images": 640, "step": 10, "seconds": 1.0}
    run.append([{**at, "alarm": NASTY, "raised": True, "message": NASTY, "remedy": NASTY}])
    run.append([{**at, "alarm": f"{NASTY}2", "raised": True, "message": NASTY}])
    run.append([{**at, "alarm": f"{NASTY}2", "raised": False}, {**at, NASTY: 1.0, f"loss/{NASTY}": 2.0}])
    other = fake_run(tmp_path / "other")
    for runs in ((run,), (run, other)):
        page = page_of(*runs, dest=tmp_path / "report.html")
        assert len(page.all("script")) == 1 + len(runs)
        assert all(attributes["src"].startswith("data:image/png") for attributes in page.all("img"))
        assert "<b>&run" not in page.source
        assert "alert(1)" in page.text


def test_timeline_opens_with_the_last_grid(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", grids=5)
    page = page_of(run, dest=tmp_path / "report.html")
    (entries,) = page.timelines
    (image,) = page.all("img")
    last = sorted(run.samples.iterdir())[-1]
    assert image["src"] == f"data:image/png;base64,{base64.b64encode(last.read_bytes()).decode()}"
    assert (image["width"], image["height"]) == ("118", "118")
    assert [entry["at"] for entry in entries][:2] == ["2,560 images, 3 s", "5,120 images, 7 s"]
    assert [entry["note"] for entry in entries] == [f"diversity {d:.2f}" for d in (0.2, 0.4, 0.6, 0.8, 1.0)]
    assert [bool(entry["uri"]) for entry in entries] == [True] * 4 + [False]
    assert "12,800 images, 17 s" in page.text and "diversity 1.00" in page.text
    assert [a["type"] for a in page.all("input")] == ["range"]


def test_single_grid_has_no_slider(tmp_path: Path) -> None:
    page = page_of(fake_run(tmp_path / "run", grids=1), dest=tmp_path / "report.html")
    assert len(page.all("img")) == 1 and not page.all("input") and not page.timelines


@given(st.integers(0, 500), st.integers(2, 80))
def test_thinning_is_even_and_keeps_both_ends(n: int, most: int) -> None:
    kept = thin(range(n), most)
    assert len(kept) == min(n, most)
    assert list(kept) == sorted(set(kept))
    if n:
        assert (kept[0], kept[-1]) == (0, n - 1)
        gaps = np.diff(kept)
        assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


def test_many_grids_are_thinned(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", grids=100, side=2)
    shown = pack_frames(History(run), max_bytes=1_000_000)
    assert len(shown) == MAX_FRAMES
    assert [shown[0].images, shown[-1].images] == [2 * 64, 200 * 64]
    assert all(frame.uri.startswith("data:image/png") for frame in shown)


@pytest.mark.parametrize("budget", [400_000, 100_000, 25_000])
def test_large_grids_are_compressed_to_max_bytes(tmp_path: Path, budget: int) -> None:
    run = fake_run(tmp_path / "run", grids=12, side=60)
    assert sum(path.stat().st_size for path in run.samples.iterdir()) > 700_000
    shown = pack_frames(History(run), budget)
    assert sum(len(frame.uri) for frame in shown) <= budget
    assert [shown[0].images, shown[-1].images] == [200 // 12 * 64, 200 * 64]
    for frame in (shown[0], shown[-1]):
        content = base64.b64decode(frame.uri.removeprefix("data:image/jpeg;base64,"))
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.size == (frame.width, frame.height)


def test_missing_broken_and_outside_grids_are_skipped(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    save_png(Image.new("L", (4, 4)), secret)
    run = fake_run(tmp_path / "run", grids=3)
    first, second, third = sorted(run.samples.iterdir())
    first.write_bytes(first.read_bytes()[:200])
    third.unlink()
    (run.folder / "notes.txt").write_text("text")
    at = {"images": 99, "step": 9, "seconds": 1.0}
    for name in ("../secret.png", str(secret), "notes.txt", "samples", "", "a\0b", 7, None):
        run.append([{**at, "sample_grid": name}])
    (shown,) = pack_frames(History(run), max_bytes=10**6)
    assert shown.uri.endswith(base64.b64encode(second.read_bytes()).decode())


def alarm(name: str, raised: bool, images: int) -> Record:
    return {
        "images": images,
        "step": 1,
        "seconds": 1.0,
        "alarm": name,
        "raised": raised,
        "message": SAYS,
        "remedy": REMEDY,
    }


def health(page: Page) -> str:
    return page.source[page.source.index("Health</h2>") :].split("<h2>")[0]


def test_active_alarms_are_shown_with_remedies(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", alarms=[{"alarm": "discriminator-wins", "message": SAYS, "remedy": REMEDY}])
    shown = health(page_of(run, dest=tmp_path / "report.html"))
    assert SAYS in shown and REMEDY in shown and "No alarm" not in shown


def test_cleared_alarms_are_listed(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    for i in range(8):
        run.append([alarm("oscillation", True, 1000 * i + 100), alarm("oscillation", False, 1000 * i + 900)])
    shown = health(page_of(run, dest=tmp_path / "report.html"))
    assert "No alarm at the end." in shown
    assert "3 earlier ones" in shown
    assert "From 7,100 to 7,900 images" in shown and "From 100 to" not in shown


def test_alarms_of_a_killed_run_come_from_its_records(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", state="running")
    run.append([alarm("generator-wins", True, 100), alarm("oscillation", True, 200), alarm("oscillation", False, 300)])
    shown = health(page_of(run, dest=tmp_path / "report.html"))
    assert shown.count('class="alarm"') == 1 and "No alarm" not in shown


def test_stopped_run_shows_the_reason(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", state="stopped", message="the generator's loss stopped being a finite number")
    assert "The run stopped: the generator&#x27;s loss" in health(page_of(run, dest=tmp_path / "report.html"))


def test_page_of_a_run_without_records(tmp_path: Path) -> None:
    page = page_of(Run.create(tmp_path / "run", info(state="running")), dest=tmp_path / "report.html")
    assert "Nothing has been recorded" in page.text and "No alarm" not in page.text
    names = ["Health", "The GAN game", "Configuration", "Indices of the classes", "Environment", "Command line"]
    assert page.content["h2"] == names


def test_page_of_an_incomplete_run_json(tmp_path: Path) -> None:
    page = page_of(Run.create(tmp_path / "run", {}), dest=tmp_path / "report.html")
    assert page.content["h1"] == ["run"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"players": []}, "players is a list of 0, not an object"),
        ({"data": "mnist"}, 'data is "mnist", not an object'),
        ({"alarms": [{"alarm": "nan"}]}, "alarms[0] has no 'message'"),
        ({"epochs": 10**17}, "epochs is 100000000000000000, not within"),
        ({"sub_runs": ["a", 1]}, "sub_runs[1] is 1, not text"),
    ],
)
def test_wrong_run_json_is_one_line(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    run = fake_run(tmp_path / "run", steps=3, grids=1, **changes)
    with pytest.raises(UserError, match=re.escape(says)):
        write_report([run], tmp_path / "report.html")
    with pytest.raises(UserError, match=re.escape(says)):
        Run.open(run.folder)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("scores.json", "[" * 9000, "nested too deep"),
        ("scores.json", '{"values": [{"name": "FID", "value": "low"}]}', "values[0].value is "),
        ("equilibrium.json", '{"values": [{"name": "accuracy", "value": 0.5, "low": [], "high": 1}]}', "values[0].low"),
        ("before_after.json", '{"protocol": {}}', "protocol has no 'attack'"),
        ("hard/run.json", '{"format": 1, "command": 7}', "command is 7, not text"),
    ],
)
def test_damaged_part_is_left_out_and_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    run = fake_run(tmp_path / "run", sub_runs=["hard"])
    (run.folder / name).parent.mkdir(exist_ok=True)
    (run.folder / name).write_text(content)
    page = page_of(run, dest=tmp_path / "report.html")
    assert "Damaged files" in page.content["h2"] and says in page.text and name in page.text
    assert "Training curves" in page.content["h2"]
    (run.folder / name).unlink()
    assert "Damaged files" not in page_of(run, dest=tmp_path / "report.html").text


def test_page_of_a_run_killed_while_writing(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", state="running")
    whole = run.metrics.read_text()
    run.metrics.write_text(whole[: int(len(whole) * 0.7)] + "\n[1, 2]\nnull\n{}\n")
    page = page_of(run, dest=tmp_path / "report.html")
    assert page.content["h2"][:4] == ["Damaged files", "Health", "Samples", "How far from the equilibrium"]
    assert "Left out: 4 lines of" in page.text and "Running" in page.text


def test_non_finite_values_are_not_shown(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    at = {"images": 12_864, "step": 201, "seconds": 17.2}
    run.append([{**at, "loss/generator": math.nan, "d_real": math.inf, "d_fake": None, "diversity": math.nan}])
    page = page_of(run, dest=tmp_path / "report.html")
    assert "nan" not in page.text.lower() and "Infinity" not in page.text


def test_page_of_a_long_run_is_small(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", steps=50_000, grids=64, side=88)
    assert sum(path.stat().st_size for path in run.samples.iterdir()) > 7_500_000
    path = write_report([run], tmp_path / "report.html")
    assert path.stat().st_size < 8_000_000
    page = Page(path)
    (entries,) = page.timelines
    assert [len(entries), entries[0]["at"][:14], entries[-1]["at"][:16]] == [
        MAX_FRAMES,
        "49,984 images,",
        "3,200,000 images",
    ]
    assert "images seen, millions" in page.text


def test_comparison_of_two_runs(tmp_path: Path) -> None:
    a = fake_run(tmp_path / "a" / "same", recipe="quick")
    b = fake_run(tmp_path / "b" / "same", recipe="mlp", seed=1, config={"batch_size": 64, "lr": 1e-3, "dropout": 0.3})
    page = page_of(a, b, dest=tmp_path / "report.html")
    assert page.content["h1"] == ["2 runs compared"]
    assert page.content["h2"][:4] == ["Summary", "Settings that differ", "Training curves", "The GAN game"]
    assert page.content["h3"].count("Samples") == 2 and "Training curves" not in page.content["h3"]
    assert len(page.timelines) == 2
    assert {a["id"] for a in page.all("section") if a.get("id")} == {"run-0", "run-1"}
    assert {a["href"] for a in page.all("a")} == {"#run-0", "#run-1"}
    differ = page.source.split("Settings that differ")[1].split("<h2>")[0]
    for name, shown in (("lr", True), ("dropout", True), ("batch", False)):
        assert (f">{name}<" in differ) is shown
    assert str(tmp_path / "a" / "same") in page.text  # two runs of one name are told apart by their paths


def test_grids_of_several_runs_share_max_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rivals.reports.report.GRID_BYTES", 90_000)
    runs = [fake_run(tmp_path / name, steps=20, grids=6, side=60, seed=i) for i, name in enumerate("abc")]
    page = page_of(*runs, dest=tmp_path / "report.html")
    pictures = [a["src"] or "" for a in page.all("img")] + [e["uri"] for t in page.timelines for e in t]
    assert len(page.timelines) == 3
    assert sum(map(len, pictures)) <= 90_000


def test_no_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run"):
        write_report([], tmp_path / "report.html")


def test_unwritable_page_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_report([Run.create(tmp_path / "run", info())], tmp_path / "file" / "report.html")


@pytest.mark.parametrize(
    ("real", "fake", "words"),
    [
        (0.99, 0.01, "the discriminator wins"),
        (0.7, 0.3, "the discriminator is ahead"),
        (0.52, 0.48, "close to the equilibrium at 0.5"),
        (0.4, 0.6, "takes generated images for real"),
    ],
)
def test_balance_names_the_player_ahead(tmp_path: Path, real: float, fake: float, words: str) -> None:
    run = Run.create(tmp_path / "run", info())
    run.append([{**place(record), "d_real": real, "d_fake": fake} for record in batches(20)])
    assert words in balance(History(run))


def test_balance_of_scores_compares_the_gap(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", info(d_unit="score", equilibrium={"d": None}))
    assert balance(History(run)) == ""
    run.append([{**place(record), "d_real": 3.0, "d_fake": -3.0} for record in batches(20)])
    assert "was 3.00 on real images and -3.00 on generated ones" in balance(History(run))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3900, "1 h 05 min"), (math.nan, "–")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(12345.6, "12,346"), (0.123456, "0.1235"), (None, "–"), ("x", "–")])
def test_numbers_have_four_digits(value: object, text: str) -> None:
    assert format_number(value) == text


def test_elements_escape_text() -> None:
    assert (
        tag("p", "<", tag("b", "&"), class_='"', data_x=1, id=None)
        == '<p class="&quot;" data-x="1">&lt;<b>&amp;</b></p>'
    )
    assert join("<", Html("<br>")) == "&lt;<br>"
    assert tag("img", src="data:x") == '<img src="data:x">'
