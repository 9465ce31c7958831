"""The run folder: ``run.json``, ``metrics.jsonl``, ``samples/``, ``checkpoints/``, the finished network, the report."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, TypedDict, TypeVar

from rivals.base.errors import UserError
from rivals.base.file_lock import file_lock
from rivals.base.files import explain_os_errors, make_folder, write_atomically
from rivals.base.process_group import ProcessGroup
from rivals.base.run_schema import FORMAT, AlarmRecord, RecordFacts, RunInfo
from rivals.base.typed_json import conforms, parse_json, read_json, what_cannot_be_read_back

T = TypeVar("T")

HALF = ".run.json.*.tmp"  # as write_atomically calls it
LOCK = ".lock"
REPORT = "report.html"
WAITING = '<meta name="waiting" content="for its run">'  # in a report that was written before its run began

BLOCK = 1 << 16  # bytes read at once of a log that is read from its end

FIX = "restore it from a copy, or start a new run"
Record = dict[str, Any]
Resume = bool | Literal["auto"]
"""Whether to continue the run in ``out``; ``auto`` continues it if it is there, and starts it if not."""


def resumes(resume: Resume, out: str | Path | None) -> bool:
    """Whether a command continues the run in ``out``.

    Raises:
        UserError: ``auto`` without a folder, or another word.
    """
    if resume not in (True, False, "auto"):
        raise UserError(f"--resume takes nothing or 'auto', not '{resume}'")
    if resume == "auto" and out is None:
        raise UserError("--resume auto needs the folder of the run, whether it is there yet or not: add --out RUN")
    return (Path(out) / "run.json").exists() if resume == "auto" and out is not None else bool(resume)


class _Version(TypedDict):
    format: int


def parse_record(line: bytes) -> Record | None:
    """The record in a line of ``metrics.jsonl``; None if the line is damaged."""
    try:
        record: Record = {**parse_json(line, RecordFacts, "the record", FIX)}
    except UserError:
        return None
    measured = (value for key, value in record.items() if key.startswith(("loss/", "equilibrium/")))
    if not all(type(value) in (int, float) for value in measured):
        return None
    return record if "alarm" not in record or conforms(record, AlarmRecord) else None


class Run:
    """A folder that holds everything about one run.

    ``run.json`` is one object: ``format``, ``command``, ``state`` (``running``, ``finished``, ``interrupted`` or
    ``stopped``), the resolved configuration, versions, hardware, data and git state.

    ``metrics.jsonl`` holds one object per line, each with ``images``, ``step`` and ``seconds``. The record of a step
    has ``loss/discriminator``, ``loss/generator``, ``d_real``, ``d_fake`` and one key per loss term and penalty; that
    of a sample grid ``sample_grid`` and ``diversity``; that of an alarm ``alarm``, ``raised``, ``message`` and
    ``remedy``.
    """

    def __init__(self, folder: Path) -> None:
        self._log: BinaryIO | None = None  # stays open from one record to the next
        self.folder = folder
        self.metrics = folder / "metrics.jsonl"
        self.samples = folder / "samples"
        self.checkpoints = folder / "checkpoints"
        self.milestones = folder / "milestones"
        self.report = folder / REPORT
        self._identity = _identity(folder)
        self.n_damaged = 0
        """Damaged lines that the last reading of the records has left out."""

    def __del__(self) -> None:
        self.close_log()

    @staticmethod
    def check_free(folder: Path) -> None:
        """Check that ``folder`` can take a new run.

        Raises:
            UserError: it exists and is not empty, or cannot be read.
        """
        with explain_os_errors(folder):
            if (folder / "run.json").exists():
                raise UserError(f"the run '{folder}' exists already: choose another --out, or add --resume")
            # What a start that was killed has left does not count.
            if folder.exists() and (not folder.is_dir() or not all(map(_is_left, folder.iterdir()))):
                raise UserError(f"'{folder}' exists already and is not empty: choose another --out")

    @classmethod
    def create(cls, folder: str | Path, info: Record) -> Self:
        """Create the folder of a new run.

        Raises:
            UserError: it exists and is not empty, another process is just creating it, or it cannot be written; or a
                name in ``info`` is not Unicode, as of a file from a disk of another encoding.
        """
        if wrong := what_cannot_be_read_back(info):
            raise UserError(f"no run can be recorded: {wrong}: rename the file or folder of that name")
        run = cls(Path(folder))
        cls.check_free(run.folder)
        make_folder(run.folder, parents=True)
        run._identity = _identity(run.folder)
        with run.lock():  # of two that start at once, one finds it locked or no longer free
            cls.check_free(run.folder)
            for half in run.folder.glob(HALF):
                half.unlink(missing_ok=True)
            run.info = {"format": FORMAT, "state": "running", **info}
        return run

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open an existing run folder.

        Raises:
            UserError: it is not a run, cannot be read, or was written by a newer version.
        """
        run = cls(Path(folder))
        try:
            if run.read_info(_Version)["format"] > FORMAT:
                raise UserError(f"the run '{folder}' was written by a newer version of rivals: update rivals")
            run.read_info(RunInfo)
        except FileNotFoundError:
            missing = "it has no run.json" if run.folder.exists() else "there is no such folder"
            raise UserError(f"'{folder}' is not a run: {missing}") from None
        return run

    @classmethod
    def shared(cls, run: Self | None, processes: ProcessGroup) -> Self | None:
        """The run that the first process has opened, in all processes: each writes a log of its own."""
        place = processes.share(None if run is None else str(run.folder))
        if place is None or processes.first:
            return run
        other = cls(Path(place))
        other.metrics = other.log_of(processes.rank)
        return other

    @property
    def command_to_resume(self) -> str:
        """The command line that continues the run."""
        return f"rivals {self.info['command']} --resume --out {shlex.quote(str(self.folder))}"

    @property
    def info(self) -> Record:
        """The content of ``run.json``."""
        return {**self.read_info(RunInfo)}

    @info.setter
    def info(self, content: Record) -> None:
        self._check_there()
        write_atomically(self.folder / "run.json", json.dumps(content, indent=2).encode() + b"\n")

    def read_info(self, schema: type[T]) -> T:
        """``run.json`` with what ``schema`` declares.

        Raises:
            UserError: something is missing or of another type.
            FileNotFoundError: there is none.
        """
        return read_json(self.folder / "run.json", schema, FIX)

    def update(self, **changes: Any) -> None:
        """Change some entries of ``run.json``."""
        self._check_there()
        self.info = {**self.info, **changes}

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold an exclusive lock on the run, which ends with the process; then its log is closed.

        Raises:
            UserError: another process holds it.
        """
        with contextlib.ExitStack() as stack:
            with explain_os_errors(self.folder):
                try:
                    held = stack.enter_context(file_lock(self.folder / LOCK, wait=False))
                except BlockingIOError:
                    raise UserError(
                        f"the run '{self.folder}' is in use by another process: stop that one first"
                    ) from None
            if not held and sys.platform != "win32":  # Windows does not replace a file that another process has open
                warnings.warn(
                    f"the file system of '{self.folder}' has no locks: start no second process on this run",
                    stacklevel=3,
                )
            stack.callback(self.close_log)
            yield

    def _check_there(self) -> None:
        """Check that the folder is still the same: what is removed meanwhile must not be made again, in half, nor
        records be added to another run that began in its place.

        Raises:
            UserError: it was removed or replaced.
        """
        if self._identity is not None and _identity(self.folder) != self._identity:
            raise UserError(
                f"the folder '{self.folder}' was removed or replaced while its run was going on, which ends it: start "
                "a new run"
            )

    def append(self, records: Iterable[Record]) -> None:
        """Append records to ``metrics.jsonl``.

        Raises:
            UserError: the file cannot be written.
        """
        text = "".join(json.dumps(record) + "\n" for record in records)
        self._check_there()
        with explain_os_errors(self.metrics):
            try:
                log = self._open_log()
                log.write(text.encode())
                log.flush()
            except OSError:
                self.close_log()
                raise

    def _open_log(self) -> BinaryIO:
        if self._log is not None and (self._log.name != str(self.metrics) or not os.fstat(self._log.fileno()).st_nlink):
            self.close_log()  # another file by now, or one that was replaced
        if self._log is None:
            self._log = self.metrics.open("ab")
        return self._log

    def close_log(self) -> None:
        """Close ``metrics.jsonl``, which is opened again by the next record."""
        if self._log is not None:
            with contextlib.suppress(OSError):  # of what could not be written
                self._log.close()
            self._log = None

    def records(self) -> Iterator[Record]:
        """The records of ``metrics.jsonl``, in order; damaged lines are left out and counted in ``n_damaged``."""
        self.n_damaged = 0
        if not self.metrics.is_file():
            return
        with self.metrics.open("rb") as file:
            for line in file:
                record = parse_record(line)
                if record is not None:
                    yield record
                elif line.endswith(b"\n"):  # else it was cut short by a kill
                    self.n_damaged += 1

    def log_of(self, rank: int) -> Path:
        """Where a process of an evaluation writes its records: the first one to ``metrics.jsonl``."""
        return self.folder / ("metrics.jsonl" if rank == 0 else f"metrics-{rank}.jsonl")

    def merge_logs(self, intact: Callable[[Record], bool]) -> dict[int, Record]:
        """Merge those records of all processes that are ``intact`` into ``metrics.jsonl``. Returns them by step."""
        records: dict[int, Record] = {}
        logs = [self.log_of(0), *self.folder.glob("metrics-*.jsonl")]
        for log in logs:
            self.metrics = log
            records |= {record["step"]: record for record in self.records() if intact(record)}
        self.metrics = self.log_of(0)
        records = {step: records[step] for step in sorted(records)}
        self.close_log()
        text = "".join(json.dumps(record) + "\n" for record in records.values())
        write_atomically(self.metrics, text.encode())
        for log in logs[1:]:
            log.unlink()
        return records

    def rewind(self, step: int) -> None:
        """Drop the records and sample grids after ``step``, which a run resumed there makes again.

        The file is cut after the last record that stays: only the dropped ones are parsed. It is a new file then, by
        which whoever follows the run notices.
        """
        last, end = {"images": -1}, 0
        for line, after in _lines_backward(self.metrics):
            record = parse_record(line)
            if record is not None and record["step"] <= step:
                last, end = record, after
                break
        if self.metrics.is_file() and end < self.metrics.stat().st_size:
            self.close_log()
            with self.metrics.open("rb") as file:
                kept = file.read(end)
            write_atomically(self.metrics, kept)
        for path in self.samples.glob("*.png"):
            if path.stem.isdecimal() and int(path.stem) > last["images"]:
                path.unlink()


def _is_left(path: Path) -> bool:
    """Whether a file is one that a run leaves which ends before it has begun."""
    if path.name == REPORT and path.is_file():
        with path.open("rb") as file:
            return WAITING.encode() in file.read(BLOCK)
    return path.name == LOCK or path.match(HALF)


def _lines_backward(path: Path) -> Iterator[tuple[bytes, int]]:
    """The complete lines of a file, the last one first, each with the offset of its end."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        rest, after = b"", end  # what is read of lines that begin earlier, and where it ends
        while end:
            start = max(0, end - BLOCK)
            file.seek(start)
            rest, end = file.read(end - start) + rest, start
            while (newline := rest.rfind(b"\n", 0, -1)) >= 0 or (not end and rest):
                line, rest = rest[newline + 1 :], rest[: newline + 1]
                if line.endswith(b"\n"):  # else it was cut short by a kill
                    yield line, after
                after -= len(line)


def _identity(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from one that is put in its place: device and inode. None if it is not there."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def wrong_command(folder: str | Path, command: str) -> UserError:
    """The error for a run that cannot be resumed, since another command made it."""
    return UserError(f"'{folder}' is not a run of 'rivals {command}', so it cannot be resumed by it: choose another")
