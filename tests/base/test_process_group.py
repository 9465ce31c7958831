"""The group of a process alone, and how processes find each other; games on several are in ``tests/game``."""

import time
from datetime import timedelta

import pytest
import torch

from helpers.processes import run_in_processes
from rivals.base import launcher, torch_process_group
from rivals.base.errors import ProcessLost, UserError
from rivals.base.process_group import ALONE
from rivals.base.torch_process_group import TorchProcessGroup


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


@pytest.mark.parametrize("size", [None, "1"])
def test_a_rank_among_no_others_is_the_first(monkeypatch, size):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size:
        monkeypatch.setenv("WORLD_SIZE", size)
    assert launcher.environment_rank() == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launcher.environment_rank() == 1


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


WAITS = {
    "sum": lambda processes: processes.mean([[torch.ones(3)]], processes.size),
    "agree": lambda processes: processes.agree(1.0),
    "gather": lambda processes: processes.gather(processes.rank),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("failing", [0, 1])
def test_a_process_that_fails_by_itself_tells_those_that_wait_for_it(failing, wait):
    def function(processes):
        processes.agree()  # all have met
        with processes.outlast_first():
            if processes.rank == failing:
                raise UserError("there is not enough memory: lower --batch-size")
            return wait(processes)

    results = run_in_processes(2, function)
    expected = "there is not enough memory: lower --batch-size"
    assert results.pop(failing) == f"UserError: {expected}"
    assert results == [f"UserError: process {failing}: {expected}"]


def test_a_failure_in_one_piece_ends_the_pieces_of_the_others(monkeypatch):
    monkeypatch.setattr(torch_process_group, "BEAT_SECONDS", 0.02)

    def function(processes):
        begun = []
        processes.agree()
        try:
            with processes.outlast_first(patient=False), processes.together(patient=True, fatal=True):
                for piece in processes.hand_out(1000):
                    begun.append(piece)
                    if processes.rank == 1 and len(begun) == 2:
                        raise UserError("not enough memory")
                    time.sleep(0.02)
                    processes.beat()
        except UserError as error:
            return str(error), len(begun) < 500

    assert run_in_processes(2, function) == [("process 1: not enough memory", True), ("not enough memory", True)]


def test_an_error_that_all_have_does_not_end_a_process_before_the_first(tmp_path):
    def function(processes):
        try:
            with processes.outlast_first(common=(ArithmeticError,)):
                if processes.first:
                    time.sleep(0.2)
                    (tmp_path / "written").touch()
                raise ArithmeticError("not finite")
        except ArithmeticError:
            return (tmp_path / "written").exists()

    assert run_in_processes(2, function) == [True, True]


def test_memory_that_runs_out_in_an_exchange_is_no_lost_process(monkeypatch):
    def function(processes):
        def full(tensor):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 12 bytes")

        monkeypatch.setattr(torch, "empty_like", full)
        with processes.outlast_first():
            return processes.mean([[torch.ones(3)]], processes.size)

    assert all("allocate memory" in result and "lost" not in result for result in run_in_processes(2, function))


def test_processes_that_a_launcher_has_joined_for_gpus_alone_meet_on_the_cpu():
    def function(processes):
        again = TorchProcessGroup(processes.rank, processes.size, timedelta(seconds=30))
        return again._group is None, again.agree(float(processes.rank)), again.mean([[torch.ones(2)]], 2)[0].tolist()

    assert run_in_processes(2, function) == [(False, [1.0], [1.0, 1.0])] * 2


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


def test_a_process_is_waited_for_as_long_as_it_beats():
    def function(processes):
        if processes.rank == 1:
            for _ in range(20):
                time.sleep(0.05)
                processes.beat()
        return processes.gather(processes.rank)

    assert run_in_processes(2, function, timeout=0.4) == [[0, 1], [0, 1]]


@pytest.mark.parametrize("hung", [0, 1])
def test_a_process_that_stops_beating_is_given_up(hung):
    def function(processes):
        processes.remedy = "do this"
        processes.beat()
        if processes.rank == hung:
            time.sleep(4)
            raise ProcessLost("too late")
        if processes.rank == 2:
            return None
        return processes.share(1) if hung == 0 else processes.gather(processes.rank)

    line = run_in_processes(3, function, timeout=1.5)[1 - hung]
    assert line.startswith(f"ProcessLost: process {hung} of 3 made no progress for 1.5 seconds (RIVALS_TIMEOUT)")
    assert line.endswith(": do this")


@pytest.mark.parametrize("everywhere", [True, False])
def test_pieces_are_computed_once_and_come_in_order(everywhere):
    def piece(number):
        return [torch.full((number, 2), number / 3, dtype=torch.float64), torch.tensor([number], dtype=torch.uint8)]

    def function(processes):
        made = []
        found = processes.compute(7, lambda number: made.append(number) or piece(number), everywhere=everywhere)
        return made, [[tensor.tolist() for tensor in tensors] for tensors in found]

    results = run_in_processes(3, function)
    expected = [[tensor.tolist() for tensor in piece(number)] for number in range(7)]
    assert [found for _, found in results] == ([expected] * 3 if everywhere else [expected, [], []])
    assert sorted(number for made, _ in results for number in made) == [*range(7)]


def test_an_error_in_a_piece_is_one_of_all():
    def function(processes):
        def make(number):
            if number == 3:
                raise UserError("damaged")
            return []

        return processes.compute(5, make)

    assert sorted(run_in_processes(2, function))[0] == "UserError: damaged"
    assert all(line.endswith("damaged") for line in run_in_processes(2, function))
