"""Fixtures of every package's tests."""

from __future__ import annotations

import gc
import signal

import hypothesis
import pytest

from helpers.commands import CommandProcess, Result, RunRivals, call_main

# The same examples each time, and no deadline: what a pause of a busy machine decides is no test.
hypothesis.settings.register_profile("rivals", deadline=None, derandomize=True)
hypothesis.settings.load_profile("rivals")


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of every search for garbage, a tenth of the time of many tests."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def terminal_signals():
    """Commands save on SIGHUP, but not where ``nohup``, under which the tests may run, had it ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Decoded images go to a folder of the session, never to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_progress_notes():
    """How far a decoding is, is said after seconds of this machine, which tests must not depend on."""
    from rivals.data import progress_notes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress_notes, "FIRST", 1e9)
        yield


@pytest.fixture(autouse=True)
def no_process_left():
    """A command that a failed test has left running would keep pytest from ending."""
    yield
    CommandProcess.kill_all()


@pytest.fixture
def run_rivals(capsys) -> RunRivals:
    """``run_rivals(*words)`` runs ``rivals WORDS`` in this process and returns its result."""

    def run(*words: object) -> Result:
        capsys.readouterr()  # what was printed before is not the command's
        return Result(call_main(words), *capsys.readouterr())

    return run


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """Work in an empty folder, with no data sets and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIVALS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path
