"""Durations: parsing, writing and progress."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivals.base.duration import UNITS, Duration
from rivals.base.errors import UserError

amounts = st.floats(min_value=1e-3, max_value=1e12, allow_nan=False)


@given(amounts, st.sampled_from(UNITS))
def test_parse_inverts_str(amount, unit):
    assert Duration.parse(str(Duration(amount, unit))) == Duration(amount, unit)


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
def test_parse_reads_every_written_form(text, amount, unit):
    assert Duration.parse(text) == Duration(amount, unit)


@pytest.mark.parametrize("text", ["", "5", "images", "-1 images", "0 steps", "nan images", "3 weeks", "1e999 steps"])
def test_a_malformed_duration_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="is not a length of training") as caught:
        Duration.parse(text)
    assert "\n" not in str(caught.value)


def test_progress_counts_in_the_unit_of_the_duration():
    counts = {"images": 500, "epochs": 2.5, "steps": 50, "seconds": 90.0}
    assert Duration(1000, "images").progress(**counts) == 0.5
    assert Duration(5, "epochs").progress(**counts) == 0.5
    assert Duration(100, "steps").progress(**counts) == 0.5
    assert Duration(3, "minutes").progress(**counts) == 0.5


@pytest.mark.parametrize(
    ("text", "minutes"), [("90 seconds", 1.5), ("2 hours", 120), ("0.5 hour", 30), ("3k seconds", 50)]
)
def test_seconds_and_hours_become_minutes(text, minutes):
    duration = Duration.parse(text)
    assert (duration.amount, duration.unit) == (pytest.approx(minutes), "minutes")


@pytest.mark.parametrize(
    ("units", "advice"),
    [
        (UNITS, "write N images, epochs, steps, seconds, minutes or hours, N above 0"),
        (("images", "minutes"), "write N images, seconds, minutes or hours, N above 0"),
        (("images", "steps"), "write N images or steps, N above 0"),
        (("images",), "write N images, N above 0"),
        (("minutes",), "write N seconds, minutes or hours, N above 0"),
    ],
)
def test_an_error_names_what_the_text_says_and_the_units_that_it_may_have(units, advice):
    with pytest.raises(UserError, match=f"^'5 weeks' is not a value of --x: {advice}, ") as caught:
        Duration.parse("5 weeks", "a value of --x", units)
    example = re.search(r"as in '(.*)'$", str(caught.value))
    assert example and Duration.parse(example[1], units=units)
