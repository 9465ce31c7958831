"""The base room: spans, schedules, registries, seeds, atomic files."""

import errno
import math
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rivals.base import devices, seeds
from rivals.base.errors import UserError
from rivals.base.files import write_atomically
from rivals.base.registry import Registry
from rivals.base.schedules import Schedule
from rivals.base.spans import UNITS, Span

amounts = st.floats(min_value=1e-3, max_value=1e12, allow_nan=False)


@given(amounts, st.sampled_from(UNITS))
def test_a_span_is_read_back_as_it_is_written(amount, unit):
    assert Span.parse(str(Span(amount, unit))) == Span(amount, unit)


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("2M images", 2e6, "images"),
        ("20 epochs", 20, "epochs"),
        ("1.5k steps", 1500, "steps"),
        ("1 minute", 1, "minutes"),
        (".5 Minutes", 0.5, "minutes"),
        ("10kimages", 1e4, "images"),
    ],
)
def test_spans_as_people_write_them(text, amount, unit):
    assert Span.parse(text) == Span(amount, unit)


@pytest.mark.parametrize("text", ["", "5", "images", "-1 images", "0 steps", "nan images", "3 weeks", "1e999 steps"])
def test_what_is_no_span_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="is not a length of training") as caught:
        Span.parse(text)
    assert "\n" not in str(caught.value)


def test_progress_counts_in_the_spans_own_unit():
    come = {"images": 500, "epochs": 2.5, "steps": 50, "seconds": 90.0}
    assert Span(1000, "images").progress(**come) == 0.5
    assert Span(5, "epochs").progress(**come) == 0.5
    assert Span(100, "steps").progress(**come) == 0.5
    assert Span(3, "minutes").progress(**come) == 0.5


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), amounts)
def test_a_schedule_is_read_back_as_it_is_written(start, end, images):
    schedule = Schedule(start, end, images) if start != end else Schedule(start, end)
    assert Schedule.parse(str(schedule)) == schedule


def test_a_schedule_is_a_half_cosine_then_held():
    schedule = Schedule.parse("1 -> 0 in 1k images")
    assert schedule.at(0) == 1
    assert schedule.at(250) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert schedule.at(500) == pytest.approx(0.5)
    assert schedule.at(1000) == schedule.at(10**9) == 0


@pytest.mark.parametrize("text", ["fast", "1 ->", "1 -> 2", "1 -> 2 in 5 minutes", "1e", "--1"])
def test_what_is_no_schedule_is_refused_in_one_line(text):
    with pytest.raises(UserError) as caught:
        Schedule.parse(text)
    assert "\n" not in str(caught.value)


def test_a_registry_offers_the_nearest_names():
    registry = Registry("fruit", {"apple": 1, "grape": 2, "fig": 3})
    assert registry["apple"] == 1
    with pytest.raises(UserError, match=r"unknown fruit 'appel': did you mean apple"):
        registry["appel"]
    with pytest.raises(UserError, match="choose from apple, grape, fig"):
        registry["zzz"]


@given(st.integers(), st.integers())
def test_places_have_streams_of_their_own(a, b):
    assert 0 <= seeds.derive(a, b) < 2**63
    assert (seeds.derive(a) == seeds.derive(b)) == (a == b)
    assert torch.equal(
        torch.randn(3, generator=seeds.generator(a, "x")), torch.randn(3, generator=seeds.generator(a, "x"))
    )


def test_a_device_that_is_not_here_is_refused():
    assert devices.pick("cpu").type == "cpu"
    assert devices.pick("auto")
    with pytest.raises(UserError, match="device 'toaster' cannot be used here"):
        devices.pick("toaster")


def test_an_atomic_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left on the disk"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_path_through_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "file" / "x", b"")
