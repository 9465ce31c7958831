"""Sizes of images: what is written, and what is read back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivals.base.errors import UserError
from rivals.base.size import Size

SIDES = st.integers(1, 65536)


def test_the_width_is_written_first_and_the_height_iterated_first():
    size = Size.parse("96x64")
    assert (size.width, size.height) == (96, 64)
    assert [*size] == [64, 96]
    assert str(size) == f"{size}" == "96x64"
    assert (size.area, size.shorter, size.longer, size.is_square) == (6144, 64, 96, False)


def test_a_square_is_written_as_its_side():
    assert Size.parse(28) == Size.parse("28") == Size.parse("28x28") == Size(28, 28)
    assert str(Size(28, 28)) == "28"


@given(SIDES, SIDES)
def test_what_json_holds_is_read_back(height, width):
    size = Size(height, width)
    written = json.loads(json.dumps(size.written))
    assert isinstance(written, int) == (height == width)
    assert Size.parse(written) == Size.parse(str(size)) == Size.parse(size) == size


@pytest.mark.parametrize("text", ["96 x 64", " 96X64 ", "96\u00d764"])
def test_other_ways_of_writing_it(text):
    assert Size.parse(text) == Size(64, 96)


@pytest.mark.parametrize("wrong", ["", "x", "96x", "x64", "96x64x3", "9.5", "1e2", "96,64", True, "9" * 5000])
def test_anything_else_is_refused_in_one_line(wrong):
    with pytest.raises(UserError, match=r"is not a size of images: .* such as 96x64") as refused:
        Size.parse(wrong)
    assert len(str(refused.value)) < 200 and "\n" not in str(refused.value)
