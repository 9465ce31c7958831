"""No test of scores finds weights by chance."""

import pytest


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    """No weights are found but those that a test puts there."""
    for name in ("TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
