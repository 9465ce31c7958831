"""Nothing that a test does reaches the user's own cache."""

import pytest

from rivals.cli import main


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Decoded images go to a folder of the session's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def command(capsys):
    """Runs ``rivals`` with words; gives the exit status, and what was said on standard output and standard error."""

    def run(words):
        with pytest.raises(SystemExit) as stop:
            main(words)
        spoken = capsys.readouterr()
        return int(stop.value.code or 0), spoken.out, spoken.err

    return run
