"""``rivals WORDS`` in a process of its own, forked from this one, which has imported everything once."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path
from typing import NamedTuple

PRELOADED = ("torch", "torchvision.transforms", "matplotlib.figure", "rich.progress", "rivals.api", "rivals.cli.main")
TICKS = os.sysconf("SC_CLK_TCK")


class Ended(NamedTuple):
    """How a command ended: its exit status (negative for a signal), standard error and processor seconds."""

    status: int
    err: str
    seconds: float


def run(*words: str | Path, streams: Path, kill_after: float | None = None, file_limit: int | None = None) -> Ended:
    """Run a command to its end, or until a SIGKILL.

    Args:
        words: Of the command line.
        streams: A folder for what it prints.
        kill_after: Processor seconds after which it is killed, which other programs on the machine do not change.
        file_limit: Size of the largest file that it may write, in bytes, as by ``ulimit -f``.
    """
    for name in PRELOADED:
        importlib.import_module(name)
    out, err = streams / "stdout", streams / "stderr"
    arguments = ([str(word) for word in words], out, err, file_limit)
    process = multiprocessing.get_context("fork").Process(target=_main, args=arguments)
    process.start()
    assert process.pid is not None
    seconds = 0.0
    while process.is_alive():
        seconds = _processor_seconds(process.pid) or seconds
        if kill_after is not None and seconds >= kill_after:
            process.kill()
        time.sleep(0.002)
    process.join()
    assert process.exitcode is not None
    return Ended(process.exitcode, err.read_text(), seconds)


def _main(words: list[str], out: Path, err: Path, file_limit: int | None) -> None:
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    from rivals.cli.main import main

    main(words)


def _processor_seconds(pid: int) -> float:
    """Processor time of a process, of user and system; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


Words = list[str | Path]
