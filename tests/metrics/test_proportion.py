"""Proportions and their Wilson intervals, against scipy."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rivals.metrics.proportion import Proportion


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_that_of_wilson(counts):
    count, n = counts
    expected = binomtest(count, n).proportion_ci(0.95, method="wilson")
    assert Proportion(count, n).interval == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_ends_are_exact_at_zero_and_one_and_open_without_images():
    assert Proportion(0, 10).interval[0] == 0
    assert Proportion(10, 10).interval[1] == 1
    assert Proportion(0, 0).interval == (0, 1)
    assert math.isnan(Proportion(0, 0).value)
    assert json.loads(json.dumps(Proportion(0, 0).as_dict()))["value"] is None
    assert str(Proportion(1, 4)) == "25.0% (4.6 to 69.9)"
