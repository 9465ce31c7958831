"""An evaluation of which one process hangs, dies, fails or differs: it ends with one line, and nothing is lost."""

import os
import signal
import time

import pytest
import torch

import rivals
from helpers.processes import run_in_processes
from rivals import Linf
from rivals.base import launcher
from rivals.base.run_folder import Run

N = 12
SETTINGS = {"attack": "fgsm,square(queries=20)", "batch_size": 1, "alarms": False, "quiet": True}
CERTIFY = {"samples": 50, "guesses": 5, "alpha": 0.05, "radii": (0.1,), "upper": False, "batch_size": 5, "quiet": True}


class Model(torch.nn.Module):
    """A linear classifier that may do something in its 30th forward pass, amid its first images."""

    def __init__(self, act=lambda: None):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-1, 1, 12).view(3, 4))
        self.passes = 0
        self.act = act

    def forward(self, x):
        self.passes += 1
        if self.passes == 30:
            self.act()
        return self.layer(x.flatten(1))


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(N, 1, 2, 2, generator=generator)
    return x, Model()(x).argmax(1)


def work(command, model, **settings):
    if command == "attack":
        return rivals.evaluate(model, data(), Linf(0.05), **SETTINGS, **settings)
    return rivals.certify(model, data(), **CERTIFY, **settings)


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory):
    """What the processes would import, each for itself."""
    for command in ("attack", "certify"):
        work(command, Model(), out=tmp_path_factory.mktemp("runs") / command)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Works on two processes, of which the second one does something amid its work."""
    begun = tmp_path / "begun"

    def run(command, act, timeout=20.0, **settings):
        def function(processes):
            monkeypatch.setattr(launcher, "_started", lambda: processes)

            def wait():
                while not begun.exists():
                    processes.beat()
                    time.sleep(0.01)

            def begin():
                begun.touch()
                act()

            work(command, Model(begin if processes.rank else wait), **settings)

        return run_in_processes(2, function, timeout=timeout)

    return run


@pytest.mark.parametrize("command", ["attack", "certify"])
def test_a_hang_ends_with_a_line_and_the_work_is_kept(run, tmp_path, command):
    out = tmp_path / "run"

    def hang():
        end = time.monotonic() + 30
        while Run.open(out).info["state"] != "interrupted" and time.monotonic() < end:
            time.sleep(0.05)

    line, _ = run(command, hang, timeout=2, out=out)
    assert line.startswith("ProcessLost: process 1 of 2 made no progress for 2 seconds (RIVALS_TIMEOUT)")
    assert line.endswith(f"what was done is kept: continue with rivals {command} --resume --out {out}")
    assert Run.open(out).info["state"] == "interrupted"
    assert len(list(Run.open(out).records())) > 2
    resumed = work(command, Model(), out=out, resume=True)
    assert resumed.as_dict()["curve"] == work(command, Model()).as_dict()["curve"]


def test_an_error_of_one_process_ends_all(run, tmp_path):
    def fail():
        raise RuntimeError("can't allocate memory: you tried to allocate 1 bytes")

    first, second = run("attack", fail, out=tmp_path / "run")
    assert second == "UserError: there is not enough memory: lower --batch-size"
    assert first == "UserError: process 1: there is not enough memory: lower --batch-size"


def test_a_process_that_dies_is_given_up(run, tmp_path):
    first, second = run("attack", lambda: os._exit(9), timeout=2, out=tmp_path / "run")
    assert second is None
    assert first.startswith("ProcessLost: process 1 of 2 made no progress for 2 seconds")


@pytest.mark.parametrize("command", ["attack", "certify"])
def test_a_signal_to_one_process_stops_both_and_the_work_is_kept(run, tmp_path, command):
    out = tmp_path / "run"
    lines = run(command, lambda: os.kill(os.getpid(), signal.SIGTERM), out=out)
    assert [line.partition(" ")[0] for line in lines] == ["Interrupted:"] * 2
    assert all(line.endswith(f"continue with rivals {command} --resume --out {out}") for line in lines)
    assert Run.open(out).info["state"] == "interrupted"
    resumed = work(command, Model(), out=out, resume=True)
    assert resumed.as_dict()["curve"] == work(command, Model()).as_dict()["curve"]


def test_a_process_with_another_model_is_refused_before_the_work(monkeypatch, tmp_path):
    def function(processes):
        monkeypatch.setattr(launcher, "_started", lambda: processes)
        model = Model()
        with torch.no_grad():
            model.layer.weight += processes.rank
        work("attack", model, out=tmp_path / "run")

    for line in run_in_processes(2, function):
        assert line.startswith("UserError: process 1 has another model than process 0, ")
    assert not (tmp_path / "run").exists()
