"""Radii as people write them."""

import pytest

from rivals.base.eps import parse_eps
from rivals.base.errors import UserError


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), (" 0.3 ", 0.3), ("1e-2", 0.01), ("0", 0.0)])
def test_numbers_and_fractions_are_read(text, value):
    assert parse_eps(text) == value


@pytest.mark.parametrize("text", ["", "8/0", "-1", "nan", "inf", "8/255/2", "eight"])
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="is not a radius") as refusal:
        parse_eps(text)
    assert "\n" not in str(refusal.value)
