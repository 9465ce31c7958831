"""Files: writing that never leaves half of one behind, and what tells that one has changed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from rivals.base.errors import UserError

_REASONS = {
    errno.ENOSPC: "no space left on the disk: free some and run again",
    errno.EDQUOT: "your disk quota is used up: free some space and run again",
    errno.EACCES: "no permission to write there: choose another place",
    errno.EPERM: "no permission to write there: choose another place",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.ENOTDIR: "a part of the path is a file: choose another place",
}


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write ``path`` into a :class:`UserError` that names the fix."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"{error.strerror or error}: choose another place")
        raise UserError(f"cannot write {path}: {reason}") from error


def state(path: Path) -> tuple[int, int]:
    """Bytes and the time of the last change; zeros if there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``: aside, fsynced, then renamed, so that ``path`` is old or new but never half.

    Raises:
        UserError: no space, no permission, or another refusal by the system; the old file is intact.
    """
    aside = path.with_name(f".{path.name}.tmp")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
            # The rename itself lives in the folder: without this it may be lost with the power.
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise
