"""The run folder: ``run.json``, ``metrics.jsonl``, ``samples/``, ``checkpoints/``, the finished network, the report."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from rivals.base.errors import UserError
from rivals.base.files import explained, write_atomically

FORMAT = 1
Record = dict[str, Any]


class Run:
    """A folder that holds everything about one training run.

    ``run.json`` is one object: ``format``, ``verb``, ``state`` (``running``, ``finished``, ``interrupted`` or
    ``stopped``), the resolved configuration, versions, hardware, data and git state.

    ``metrics.jsonl`` is one object a line, each with ``images``, ``step`` and ``seconds``. A batch's record has
    ``loss/discriminator``, ``loss/generator``, ``d_real``, ``d_fake`` and one key per part and penalty; a sample
    sheet's has ``sheet`` and ``diversity``; an alarm's has ``alarm``, ``raised``, ``says`` and ``remedy``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics = folder / "metrics.jsonl"
        self.samples = folder / "samples"
        self.checkpoints = folder / "checkpoints"
        self.report = folder / "report.html"

    @staticmethod
    def check_free(folder: Path) -> None:
        """Make sure that a new run may begin in ``folder``.

        Raises:
            UserError: something is there already, or it cannot be looked at.
        """
        with explained(folder):
            if (folder / "run.json").exists():
                raise UserError(f"the run '{folder}' exists already: choose another --out, or go on by --resume")
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise UserError(f"'{folder}' exists already and is not empty: choose another --out")

    @classmethod
    def create(cls, folder: str | Path, about: Record) -> Self:
        """Begin a new run in ``folder``.

        Raises:
            UserError: something is there already, or it cannot be written.
        """
        run = cls(Path(folder))
        cls.check_free(run.folder)
        run.about = {"format": FORMAT, "state": "running", **about}
        return run

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open an existing run folder.

        Raises:
            UserError: it is not a run, is unreadable, or was written by a newer version.
        """
        run = cls(Path(folder))
        try:
            about = json.loads((run.folder / "run.json").read_text())
            newer = about["format"] > FORMAT
        except FileNotFoundError:
            missing = "it has no run.json" if run.folder.exists() else "there is no such folder"
            raise UserError(f"'{folder}' is not a run: {missing}") from None
        except OSError as error:
            raise UserError(f"cannot read the run '{folder}': {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"'{folder}' is not a run: its run.json cannot be understood") from None
        if newer:
            raise UserError(f"the run '{folder}' was written by a newer version of rivals: update rivals")
        return run

    @property
    def about(self) -> Record:
        """What ``run.json`` holds."""
        content: Record = json.loads((self.folder / "run.json").read_text())
        return content

    @about.setter
    def about(self, content: Record) -> None:
        write_atomically(self.folder / "run.json", json.dumps(content, indent=2).encode() + b"\n")

    def update(self, **changes: Any) -> None:
        """Change some entries of ``run.json``."""
        self.about = {**self.about, **changes}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run for this process while it plays.

        Raises:
            UserError: another process plays it.
        """
        if sys.platform == "win32":
            yield  # there a file that another process writes cannot be replaced anyway
            return
        import fcntl

        folder = os.open(self.folder, os.O_RDONLY)  # not a file in it: those are replaced as they are written
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(folder)
            raise UserError(f"the run '{self.folder}' is being played by another process: stop that first") from None
        try:
            yield
        finally:
            os.close(folder)

    def append(self, records: Iterable[Record]) -> None:
        """Add records to ``metrics.jsonl``.

        Raises:
            UserError: the file cannot be written.
        """
        text = "".join(json.dumps(record) + "\n" for record in records)
        with explained(self.metrics), self.metrics.open("a") as file:
            file.write(text)

    def records(self) -> Iterator[Record]:
        """The records in order. A line that was cut short by a kill is passed over."""
        if not self.metrics.exists():
            return
        with self.metrics.open(errors="replace") as file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                yield record

    def rewind(self, step: int) -> None:
        """Drop the records and sample sheets after ``step``: a run that is resumed there makes them again."""
        kept = [record for record in self.records() if record["step"] <= step]
        write_atomically(self.metrics, "".join(json.dumps(record) + "\n" for record in kept).encode())
        sheets = {record["sheet"] for record in kept if "sheet" in record}
        for path in self.samples.glob("*.png"):
            if f"samples/{path.name}" not in sheets:
                path.unlink()


def foreign(folder: str | Path, verb: str) -> UserError:
    """What to raise where another verb made the run that is to be resumed."""
    return UserError(f"'{folder}' is not a run of 'rivals {verb}', so it cannot be resumed by it: choose another")
