"""What the tests of evaluations share: a small honest classifier and its images."""

import pytest

from helpers.masked_models import (
    honest,
    patterns,
)


@pytest.fixture(autouse=True)
def no_syncing(monkeypatch):
    """That files reach the disk is tested elsewhere; here it would only take time."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def model():
    return honest()


@pytest.fixture(scope="module")
def data():
    return patterns(120)
