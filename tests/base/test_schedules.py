"""Schedules: parsing, writing and values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivals.base.errors import UserError
from rivals.base.schedules import Clock, Schedule


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.floats(1e-3, 1e12), st.sampled_from(["images", "minutes"]))
def test_parse_inverts_str(start, end, length, unit):
    schedule = Schedule(start, end, length, unit) if start != end else Schedule(start, end)
    assert Schedule.parse(str(schedule)) == schedule


def test_a_schedule_is_a_half_cosine_then_held():
    schedule = Schedule.parse("1 -> 0 in 1k images")
    assert schedule.at(Clock(0)) == 1
    assert schedule.at(Clock(250)) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert schedule.at(Clock(500)) == pytest.approx(0.5)
    assert schedule.at(Clock(1000)) == schedule.at(Clock(10**9)) == 0


def test_a_schedule_in_minutes_follows_the_seconds_not_the_images():
    schedule = Schedule.parse("1 -> 0 in 2 hours")
    assert str(schedule) == "1 -> 0 in 120 minutes"
    assert schedule.at(Clock(10**9, 0.0)) == 1
    assert schedule.at(Clock(0, 3600.0)) == pytest.approx(0.5)
    assert schedule.at(Clock(0, 7200.0)) == 0


@pytest.mark.parametrize("text", ["fast", "1 ->", "1 -> 2", "1 -> 2 in 5 epochs", "1e", "--1"])
def test_a_malformed_schedule_is_refused_in_one_line(text):
    with pytest.raises(UserError) as caught:
        Schedule.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["fast", "1 -> 2 in 5 epochs", "1 -> 2 in 5 minutes"])
def test_an_error_advises_only_the_units_that_the_length_may_have(text):
    with pytest.raises(UserError, match=r"in N images, as in|write N images, N above 0"):
        Schedule.parse(text, ("images",))
    with pytest.raises(UserError, match="in N images or minutes, as in"):
        Schedule.parse("fast")
