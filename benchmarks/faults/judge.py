"""Run one command on mangled input inside this process, and say what it did wrong."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.faults.mutators import FORGED
from rivals.base.errors import UserError

SECONDS = 5  # of processor time, after which a command hangs
PATIENCE = 30  # on the clock, for one that waits for something
MEMORY = 3 << 30  # bytes that a command may add to those of this process
_ALLOWED = (0, 2, 130)
TRACEBACK, HANG, LINES, SILENT, UNPICKLED = FAULTS = (
    "traceback", "hang", "not one line", "damage accepted", "unpickling"
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Mangled files, already written, and what reads them.

    Attributes:
        what: What was mangled, for the report of a failure.
        words: The command line; or a function that a page calls.
        damaged: Whether what the command wrote, without any word, is another network or other pixels.
    """

    what: str
    words: Sequence[str] | Callable[[], object]
    damaged: Callable[[], bool] = lambda: False


class Fault(NamedTuple):
    """What a command did wrong: one of ``FAULTS``, and the details."""

    kind: str
    details: str


class Hang(BaseException):
    """A command took too long. Not an Exception: nothing that is read may catch it."""


_unpickled: list[str] = []


def _on_audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class":
        _unpickled.append(".".join(map(str, arguments)))


_audited: list[bool] = []


def fault_of(case: Case) -> Fault | None:
    """Run a case in the current folder; what it did wrong, or None."""
    if not _audited:
        sys.addaudithook(_on_audit)  # for good: Python has no way to remove one
        _audited.append(True)
    _unpickled.clear()
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    status: object = 0
    fault: Fault | None = None
    with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        warnings.simplefilter("error")
        try:
            with _limits():
                status = _run(case.words)
        except Hang:
            fault = Fault(HANG, f"took more than {SECONDS} s")
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if "rivals" in f.filename and "faults" not in f.filename] or frames[-1:]
            place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
            fault = Fault(TRACEBACK, f"{type(error).__name__} from {place}: {str(error)[:200]}")
    said, result = (_content(stream) for stream in (err, out))
    if fault is None:
        fault = _output_fault(status, said, result)
    if fault is None and _unpickled:
        fault = Fault(UNPICKLED, _unpickled[0])
    if fault is None and status == 0 and not said and case.damaged():
        fault = Fault(SILENT, "took damaged data without a word")
    return fault


def _run(words: Sequence[str] | Callable[[], object]) -> object:
    """The exit status of a command, or of what stands for a page that shows the refusal."""
    if callable(words):
        try:
            words()
        except UserError as error:
            print(f"rivals: {error}", file=sys.stderr)
            return 2
        return 0
    from rivals.cli.main import main

    try:
        main(list(words))
    except SystemExit as stop:
        return stop.code or 0
    return None


def _output_fault(status: object, said: str, result: str) -> Fault | None:
    if status not in _ALLOWED:
        return Fault(LINES, f"exit status {status}: {said[-200:]}")
    lines = said.splitlines()
    if status == 2 and (result or not lines or not lines[-1].startswith("rivals: ")):
        return Fault(LINES, repr((said or result)[-300:]))
    if any(line.lstrip().startswith(FORGED) for line in [*lines, *result.splitlines()]):
        return Fault(LINES, f"a name made a line: {said[-300:]!r}")
    controls = {char for char in said + result if not char.isprintable()} - {"\n"}
    return Fault(LINES, f"{sorted(controls)} in {(said + result)[-300:]!r}") if controls else None


def _content(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer: Any = stream.buffer
    return str(buffer.getvalue().decode("utf-8"))


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Limits on time and memory."""
    import resource

    def stop(number: int, frame: object) -> None:
        raise Hang

    before = [(number, signal.signal(number, stop)) for number in (signal.SIGPROF, signal.SIGALRM)]
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for number, handler in before:
            signal.signal(number, handler)
