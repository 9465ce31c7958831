"""What is in the cache, and removing what is old or too much."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from rivals.base.errors import UserError
from rivals.base.file_lock import is_locked
from rivals.base.typed_json import read_json
from rivals.data.cache_folder import cache_folder

# Kind of entry by the folder it is in. Nothing else is touched, whatever --cache names.
KINDS = {"decoded": "decoded images", "features": "features", "remote": "copied files", "contents": "known files"}
KINDS["shards"] = "indexes of shards"
SMALL = ("contents", "shards")  # thousands of small files: listed as one
_NAME = re.compile(r"\.?[0-9a-f]{24}(\.safetensors|\.json)?")


class _Titled(TypedDict):
    title: str


@dataclass(frozen=True)
class Entry:
    """Something in the cache.

    Attributes:
        path: Its file or folder.
        bytes: Its size.
        used: When it was last of use, in seconds since 1970.
        title: Of what source it is, as far as it is known.
    """

    path: Path
    bytes: int
    used: float
    title: str

    @property
    def kind(self) -> str:
        """What it is."""
        unfinished = self.path.parent.name == "decoded" and self.path.name.startswith(".")
        return "unfinished" if unfinished else KINDS[self.path.parent.name]

    def remove(self) -> bool:
        """Remove it, unless a process is making it. Returns whether it is gone."""
        if is_locked(cache_folder() / "locks" / self.path.name.removeprefix(".")):
            return False
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                self.path.unlink()
        return not self.path.exists()


def entries() -> list[Entry]:
    """What is in the cache, that which was of use most recently first."""
    found = [entry for kind in KINDS for entry in _entries_in(cache_folder() / kind)]
    return sorted(found, key=lambda entry: (-entry.used, entry.path))


def _entries_in(folder: Path) -> Iterator[Entry]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if not _NAME.fullmatch(path.name) or path.is_symlink():
            continue
        with contextlib.suppress(OSError):
            files = [path, *path.rglob("*")] if path.is_dir() else [path]
            stats = [each.stat() for each in files]
            size = sum(each.st_size for file, each in zip(files, stats, strict=True) if file.is_file())
            unfinished = path.name.startswith(".")
            used = max(each.st_mtime for each in stats) if unfinished else stats[0].st_mtime
            yield Entry(path, size, used, _title(path))


def _title(path: Path) -> str:
    with contextlib.suppress(OSError, UserError):
        return read_json(path / "about.json", _Titled, "")["title"]
    return ""


def prune(days: float | None, gigabytes: float | None, *, dry_run: bool = False) -> Iterator[tuple[Entry, str]]:
    """Remove entries of the cache: those that were of no use for so many days, and then those that were so the longest
    until the rest takes no more than so many gigabytes (10^9 bytes). Without either, nothing.

    Yields:
        Each entry, with what became of it: ``kept``, ``removed``, ``would be removed`` (``dry_run``) or ``in use``.

    Raises:
        UserError: a number is negative or not finite.
    """
    for flag, value in (("--days", days), ("--gigabytes", gigabytes)):
        if value is not None and not 0 <= value < 1e9:
            raise UserError(f"{flag} {value} cannot work: take 0 or more")
    oldest = -1.0 if days is None else time.time() - days * 86400
    left = float("inf") if gigabytes is None else gigabytes * 1e9
    for entry in entries():
        if entry.used >= oldest and entry.bytes <= left:
            left -= entry.bytes
            yield entry, "kept"
        elif dry_run:
            yield entry, "would be removed"
        else:
            yield entry, "removed" if entry.remove() else "in use"
