"""``rivals WORDS`` in this process, or in a process of its own that can be interrupted and killed."""

from __future__ import annotations

import atexit
import importlib.util
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest
import torch

import rivals

# What a command imports. Each process is forked from a server that has imported it once, which takes it about 5 s.
PRELOADED = (
    "torch",
    "torchvision.transforms",
    "matplotlib.figure",
    "rich.progress",
    "rivals.api",
    "rivals.cli.main",
)


class Result(NamedTuple):
    """What a command left behind: its exit status, standard output and standard error."""

    status: int
    out: str
    err: str


RunRivals = Callable[..., Result]  # the fixture


def call_main(words: tuple[object, ...]) -> int:
    """Run ``rivals WORDS`` in this process; its exit status."""
    from rivals.cli.main import main

    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def assert_refused(result: Result, *parts: str) -> str:
    """Check for status 2, no output, and one line on standard error that holds all the parts; return that line."""
    status, out, err = result
    assert status == 2, err
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("rivals: ")
    for part in parts:
        assert part in err
    return err.strip()


class CommandProcess:
    """``rivals WORDS`` in a process of its own, with this process's environment, folder and number of threads."""

    _started: ClassVar[list[CommandProcess]] = []

    def __init__(self, *words: object, out: Path):
        out.mkdir(exist_ok=True)
        number = len(list(out.iterdir()))
        self._files = [out / f"{number}-{stream}" for stream in ("stdout", "stderr")]
        for path in self._files:
            path.touch()
        arguments = ([str(word) for word in words], Path.cwd(), dict(os.environ), torch.get_num_threads(), self._files)
        self._process = _server().Process(target=_run, args=arguments)
        self._process.start()
        self._started.append(self)

    @classmethod
    def kill_all(cls) -> None:
        """End those that still run."""
        while cls._started:
            process = cls._started.pop()._process
            if not process._closed and process.is_alive():
                process.kill()
                process.join()

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    def send(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.send(signal.SIGKILL)
        self._process.join()
        self._process.close()

    def wait(self, seconds: float = 120) -> Result:
        """Its result, once it has ended by itself."""
        self._process.join(seconds)
        if self.running:
            self.kill()
            pytest.fail(f"still running after {seconds:g} s: {self._files[1].read_text()}")
        status = self._process.exitcode
        self._process.close()
        return Result(status, *(path.read_text() for path in self._files))

    def wait_until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Wait until a condition holds, and fail if the process ends before."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.running, self._files[1].read_text()
            assert time.monotonic() < end, "the condition never held"
            time.sleep(0.01)


def _server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    for name in PRELOADED:  # the server itself would pass over a name that cannot be imported
        assert importlib.util.find_spec(name), name
    context.set_forkserver_preload(list(PRELOADED))
    with pytest.MonkeyPatch.context() as patch:  # the server is to import the same `rivals` as this process
        patch.setenv("PYTHONPATH", str(Path(rivals.__file__).resolve().parents[1]))
        forkserver.ensure_running()
    return context


def _run(words: list[str], folder: Path, environment: dict[str, str], threads: int, files: list[Path]) -> None:
    for stream, path in zip((sys.stdout, sys.stderr), files, strict=True):
        os.dup2(os.open(path, os.O_WRONLY), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    torch.set_num_threads(threads)
    from rivals.cli.main import main

    try:
        main(words)
    finally:
        atexit._run_exitfuncs()  # which a forked process leaves out


TINY = [
    "--batch-size",
    "8",
    "--latent-dim",
    "8",
    "--generator-widths",
    "8",
    "4",
    "--discriminator-widths",
    "4",
    "8",
    "--sample-grid",
    "9",
]
