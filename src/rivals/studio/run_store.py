"""The runs and networks in a folder, read as they grow."""

from __future__ import annotations

import glob
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from rivals.api.common.network_io import read_description
from rivals.base.errors import UserError
from rivals.base.run_folder import Record, Run, parse_record
from rivals.reports.history import History

DEPTHS = ("", "*/", "*/*/")  # at which runs are searched: that of a demo contains two more
MAX_NETWORKS = 8  # kept in memory


class RunTail(Run):
    """A run whose records are read once: each call continues where the last one stopped."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.offset = 0

    def records(self) -> Iterator[Record]:
        """The records since the last call; a line that is still being written waits for the next."""
        if not self.metrics.is_file():
            return
        with self.metrics.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                record = parse_record(line)
                if record is None:
                    self.n_damaged += 1
                else:
                    yield record


class LiveHistory(History):
    """A history that follows a run in progress, reading every record once."""

    def __init__(self, folder: Path) -> None:
        self.tail = RunTail(folder)
        self.inode = _inode(self.tail.metrics)
        super().__init__(self.tail)

    @property
    def is_stale(self) -> bool:
        """Whether the file of records was replaced, as when a run is resumed."""
        try:
            found = self.tail.metrics.stat()
        except FileNotFoundError:
            return self.tail.offset > 0
        return (self.inode not in (0, found.st_ino)) or found.st_size < self.tail.offset

    def update(self) -> None:
        """Add the records since the last update."""
        self.info = self.tail.info
        self.inode = self.inode or _inode(self.tail.metrics)
        self._read(self.tail)

    @property
    def version(self) -> tuple[Any, ...]:
        """A key that changes whenever there is anything new to show."""
        return (str(self.folder), self.inode, self.tail.offset, str(self.info.get("state")))


class RunStore:
    """A folder of runs. Names are paths below it; every method may be called from several threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.RLock()
        self._histories: dict[str, LiveHistory] = {}

    def folder(self, name: str) -> Path:
        """The folder of a run.

        Raises:
            UserError: the name leads out of the folder of runs.
        """
        path = (self.root / name).resolve()
        if not name or not path.is_relative_to(self.root.resolve()):
            raise UserError(f"there is no run '{name}' in '{self.root}': choose one from the list")
        return path

    def names(self) -> list[str]:
        """All runs, the newest first, including those that cannot be read."""
        found = {}
        for depth in DEPTHS:
            for path in self._find(f"{depth}run.json"):
                name = str(path.parent.relative_to(self.root))
                try:
                    found[name] = Run(path.parent).info.get("created", "")
                except (FileNotFoundError, UserError):
                    found[name] = ""
        return sorted(found, key=lambda name: (found[name], name), reverse=True)

    def _find(self, pattern: str) -> Iterator[Path]:
        """The files of a pattern; a folder that vanishes meanwhile, at which Path.glob fails, is left out."""
        return map(self.root.joinpath, glob.iglob(pattern, root_dir=self.root))  # noqa: PTH207

    def history(self, name: str) -> LiveHistory:
        """A run with all its records up to now.

        Raises:
            UserError: it is not a run, cannot be read, was deleted, or was written by a newer version.
        """
        folder = self.folder(name)
        with self._lock:
            try:
                Run.open(folder)
                known = self._histories.get(name)
                if known is None or known.is_stale:
                    known = self._histories[name] = LiveHistory(folder)
                else:
                    known.update()
            except UserError:
                self._histories.pop(name, None)
                raise
            except OSError:
                self._histories.pop(name, None)
                raise UserError(f"the run '{name}' can no longer be read: it was moved, deleted or cut short") from None
            return known

    def networks(self, role: str) -> list[str]:
        """The networks of a role, generator or classifier: run folders, or single files.

        Those of finished runs come first, the newest before all; then single files; then those that interrupted runs
        have left, or that runs in progress had before they were extended.
        """
        found = []
        for depth in DEPTHS:
            for path in sorted(self._find(f"{depth}*.safetensors")):
                try:
                    found_role = read_description(path)["spec"]["role"]
                except UserError:
                    continue
                if found_role == role:
                    has_run = (path.parent / "run.json").exists()
                    name = path.parent if has_run and path.stem == role else path
                    found.append((*_age(path.parent if has_run else None), str(name.relative_to(self.root))))
        found.sort(key=lambda entry: entry[1], reverse=True)
        found.sort(key=lambda entry: entry[0])
        return [name for *_, name in found]

    def network_file(self, name: str, role: str) -> Path:
        """The file of the network of that name, if it exists or not.

        Raises:
            UserError: the name leads out of the folder of runs.
        """
        path = self.folder(name)
        return path / f"{role}.safetensors" if path.is_dir() else path

    def network(self, name: str, role: str) -> Any:
        """The network of that name, loaded once.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        file = self.network_file(name, role)
        if not file.is_file():
            raise UserError(f"'{name}' has no finished {role}: choose another, or wait for the end of the run")
        return _load(file, file.stat().st_mtime_ns)


def _age(run: Path | None) -> tuple[int, str]:
    """How a network is ranked: 0 for a finished run's, 1 without a run, 2 for others; and when its run was made."""
    if run is None:
        return 1, ""
    try:
        info = Run(run).info
    except (FileNotFoundError, UserError):
        return 2, ""
    return (0 if info.get("state") == "finished" else 2), str(info.get("created", ""))


def onnx_files(root: Path) -> list[str]:
    """The ONNX files in a folder of runs, as paths below it."""
    found = (glob.iglob(f"{depth}*.onnx", root_dir=root) for depth in DEPTHS)  # noqa: PTH207
    return sorted(name for names in found for name in names)


@lru_cache(maxsize=MAX_NETWORKS)
def _load(file: Path, modified: int) -> Any:
    """Load a network; the time of its file is part of the cache's key."""
    from rivals.api import load

    return load(file)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0
