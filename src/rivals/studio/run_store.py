"""What a folder of runs holds, read as it grows: runs and their records, finished networks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from rivals.base.errors import UserError
from rivals.reports.history import History
from rivals.reports.run import Record, Run

DEPTHS = ("", "*/", "*/*/")  # how deep runs are looked for: those of a demo hold two more
NETWORKS = 8  # kept in memory


class Tail(Run):
    """A run whose records are handed out once: each call goes on where the last one stopped."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.offset = 0

    def records(self) -> Iterator[Record]:
        """The records that have come since; a line still being written waits for the next call."""
        try:
            file = self.metrics.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                yield record


class Following(History):
    """A history that follows its run, reading every record once."""

    def __init__(self, folder: Path) -> None:
        self.tail = Tail(folder)
        self.inode = _inode(self.tail.metrics)
        super().__init__(self.tail)

    def replaced(self) -> bool:
        """Whether the records are others than those read, as after a resumption."""
        try:
            found = self.tail.metrics.stat()
        except FileNotFoundError:
            return self.tail.offset > 0
        return (self.inode not in (0, found.st_ino)) or found.st_size < self.tail.offset

    def follow(self) -> None:
        """Take what has come since."""
        self.about = self.tail.about
        self.inode = self.inode or _inode(self.tail.metrics)
        for record in self.tail.records():
            images = record.get("images") if isinstance(record, dict) else None
            if isinstance(images, int | float) and images >= 0:
                self._take(int(images), record)

    @property
    def mark(self) -> tuple[Any, ...]:
        """What changes whenever there is something new to show."""
        return (str(self.folder), self.inode, self.tail.offset, str(self.about.get("state")))


class Shelf:
    """A folder of runs. All names are paths below it; every method may be called from several threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.RLock()
        self._histories: dict[str, Following] = {}

    def folder(self, name: str) -> Path:
        """Where a run lies.

        Raises:
            UserError: the name leads out of the folder of runs.
        """
        path = (self.root / name).resolve()
        if not name or not path.is_relative_to(self.root.resolve()):
            raise UserError(f"'{name}' is no run of '{self.root}': choose one of the list")
        return path

    def names(self) -> list[str]:
        """All runs, the newest first, also those that cannot be read."""
        found = {}
        for depth in DEPTHS:
            for path in self.root.glob(f"{depth}run.json"):
                name = str(path.parent.relative_to(self.root))
                try:
                    found[name] = str(json.loads(path.read_text())["created"])
                except (OSError, ValueError, KeyError, TypeError):
                    found[name] = ""
        return sorted(found, key=lambda name: (found[name], name), reverse=True)

    def history(self, name: str) -> Following:
        """A run with all that it has recorded up to now.

        Raises:
            UserError: it is no run, cannot be read, was deleted, or is of a newer version.
        """
        folder = self.folder(name)
        with self._lock:
            try:
                Run.open(folder)
                known = self._histories.get(name)
                if known is None or known.replaced():
                    known = self._histories[name] = Following(folder)
                else:
                    known.follow()
            except UserError:
                self._histories.pop(name, None)
                raise
            except (OSError, ValueError):
                self._histories.pop(name, None)
                raise UserError(
                    f"the run '{name}' cannot be read any more: it was moved, deleted or cut short"
                ) from None
            return known

    def networks(self, role: str) -> list[str]:
        """The finished networks of a role, generator or classifier: run folders, or files that lie by themselves."""
        found = []
        for depth in DEPTHS:
            for path in sorted(self.root.glob(f"{depth}*.safetensors")):
                try:
                    kept = json.loads(path.with_suffix(".json").read_text())["spec"]["role"]
                except (OSError, ValueError, KeyError, TypeError):
                    continue
                if kept == role:
                    inside = path.parent if path.stem == role and (path.parent / "run.json").exists() else path
                    found.append(str(inside.relative_to(self.root)))
        return found

    def network(self, name: str, role: str) -> Any:
        """The network of that name, loaded once.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        path = self.folder(name)
        file = path / f"{role}.safetensors" if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"'{name}' holds no finished {role}: choose another, or wait for the end of the run")
        return _loaded(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=NETWORKS)
def _loaded(file: Path, written: int) -> Any:
    from rivals.api import load

    return load(file)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0
