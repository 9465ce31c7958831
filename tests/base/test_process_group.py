"""The group of a process alone, and how processes find each other; games on several are in ``tests/game``."""

import pytest

from helpers.processes import run_in_processes
from rivals.base import launcher
from rivals.base.errors import UserError
from rivals.base.process_group import ALONE


@pytest.fixture(autouse=True)
def forgotten():
    launcher._started.cache_clear()
    yield
    launcher._started.cache_clear()


def test_without_a_launcher_a_process_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launcher.current() is ALONE
    assert (ALONE.rank, ALONE.size, ALONE.first) == (0, 1, True)
    assert ALONE.share({"a": 1}) == {"a": 1}
    assert ALONE.gather("x") == ["x"]
    assert list(ALONE.hand_out(3)) == [0, 1, 2]
    assert ALONE.agree(2.0, True) == [2.0, True]
    with pytest.raises(KeyError), ALONE.together():
        raise KeyError


@pytest.mark.parametrize("seconds", ["soon", "", "nan"])
def test_a_timeout_that_is_no_time_is_refused(monkeypatch, seconds):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RIVALS_TIMEOUT", seconds)
    with pytest.raises(UserError, match="RIVALS_TIMEOUT is"):
        launcher.current()
    with launcher.alone():
        assert launcher.current() is ALONE


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MASTER_PORT", "0", "cannot meet at port 0: start torchrun with --standalone"),
        ("MASTER_PORT", "99999", "cannot meet at port 99999"),
        ("MASTER_PORT", "http", "cannot meet at port http"),
        ("MASTER_PORT", None, "MASTER_PORT is not set"),
        ("MASTER_ADDR", None, "MASTER_ADDR is not set"),
        ("RANK", None, "RANK is not set"),
        ("RANK", "2", "RANK is '2', which is not one of 2 processes"),
        ("RANK", "first", "RANK is 'first'"),
        ("WORLD_SIZE", "many", "WORLD_SIZE is 'many', which is no number of processes"),
        ("WORLD_SIZE", "0", "WORLD_SIZE is '0'"),
    ],
)
def test_processes_that_cannot_meet_are_refused(monkeypatch, name, value, message):
    variables = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", name: value}
    for key, word in variables.items():
        if word is None:
            monkeypatch.delenv(key, raising=False)
        else:
            monkeypatch.setenv(key, word)
    with pytest.raises(UserError, match=message):
        launcher.current()


def test_messages_between_three_processes():
    def function(processes):
        said = {"rank": processes.rank, "text": "ä" * 1000}
        pieces = list(processes.hand_out(20))
        return processes.share(said), processes.gather(processes.rank), processes.agree(processes.rank, 0), pieces

    results = run_in_processes(3, function)
    for shared, gathered, agreed, _ in results:
        assert shared == {"rank": 0, "text": "ä" * 1000}
        assert gathered == [0, 1, 2]
        assert agreed == [2, 0]
    pieces = [piece for *_, pieces in results for piece in pieces]
    assert sorted(pieces) == list(range(20))
    assert all(own == sorted(own) for *_, own in results)


@pytest.mark.parametrize("failing", [0, 2])
def test_an_error_of_one_process_is_one_of_all(failing):
    def function(processes):
        with processes.together():
            if processes.rank == failing:
                raise UserError("no such file: give another")

    results = run_in_processes(3, function)
    assert results[failing] == "UserError: no such file: give another"
    others = {result for rank, result in enumerate(results) if rank != failing}
    assert others == {f"UserError: process {failing}: no such file: give another"}


def test_a_bug_in_one_process_is_not_blamed_on_the_user():
    def function(processes):
        with processes.together():
            if processes.rank == 1:
                raise KeyError("surprise")

    results = run_in_processes(2, function)
    assert results[1] == "KeyError: 'surprise'"
    assert results[0] == "ProcessLost: process 1 failed: KeyError: 'surprise'"


def test_others_wait_for_the_first_to_prepare_and_to_end(tmp_path):
    def function(processes):
        with processes.one_per_node_first():
            seen = (tmp_path / "ready").exists()
            if processes.first:
                (tmp_path / "ready").touch()
        with processes.outlast_first():
            if processes.first:
                (tmp_path / "done").touch()
        return seen, (tmp_path / "done").exists()

    assert run_in_processes(2, function) == [(False, True), (True, True)]
