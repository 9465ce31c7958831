"""The package's front door."""

import pytest

import rivals


@pytest.mark.parametrize("name", rivals.__all__)
def test_every_name_is_there(name):
    assert getattr(rivals, name) is not None
    assert name in dir(rivals)


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        rivals.trian  # noqa: B018
