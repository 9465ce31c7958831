"""Registries of names."""

import pytest

from rivals.base.errors import UserError
from rivals.base.registry import Registry


def test_an_unknown_name_gets_the_nearest_ones_suggested():
    registry = Registry("fruit", {"apple": 1, "grape": 2, "fig": 3})
    assert registry["apple"] == 1
    with pytest.raises(UserError, match=r"unknown fruit 'appel': did you mean apple"):
        registry["appel"]
    with pytest.raises(UserError, match="choose from apple, grape, fig"):
        registry["zzz"]
