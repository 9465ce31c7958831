"""Lists of seeds as they are written."""

import pytest

from rivals.base.errors import UserError
from rivals.base.seeds import parse_seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3,17,40-50", (3, 17, *range(40, 51))),
        ("0", (0,)),
        (" 7 - 9 , 2", (7, 8, 9, 2)),
        ("5,1-5,5", (5, 1, 2, 3, 4)),
        ("6-6", (6,)),
    ],
)
def test_numbers_and_ranges_are_read_in_order_each_once(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a list of seeds"),
        ("1,,2", "not a list of seeds"),
        ("-3", "not a list of seeds"),
        ("1.5", "not a list of seeds"),
        ("4-", "not a list of seeds"),
        ("9-3", "goes down: write 3-9"),
        ("0-100000", "more than 100,000"),
        ("5,0-99999", "more than 100,000"),
    ],
)
def test_other_texts_are_refused_in_one_line(text, says):
    with pytest.raises(UserError, match=says) as caught:
        parse_seeds(text)
    assert "\n" not in str(caught.value)
