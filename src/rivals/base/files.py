"""Atomic writes, and errors of the file system as one line with a fix."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from rivals.base.errors import UserError

_REASONS = {
    errno.ENOENT: "the folder for it is not there, or was removed meanwhile: make it again or choose another place",
    errno.EFBIG: "the file would be larger than the limit (ulimit -f): lift it and run again",
    errno.ENOSPC: "no space left on the disk: free some and run again",
    errno.EDQUOT: "your disk quota is used up: free some space and run again",
    errno.EACCES: "no permission to write there: choose another place",
    errno.EPERM: "no permission to write there: choose another place",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.ENOTDIR: "a part of the path is a file: choose another place",
}


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn an OSError from writing ``path`` into a :class:`UserError` that names the fix.

    Raises:
        UserError: there was one.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"{error.strerror or error}: choose another place")
        raise UserError(f"cannot write {path}: {reason}") from error


def discard(stream: TextIO) -> None:
    """Let a stream end in nothing, as its reader has left: what it still holds would fail again at the end."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)


def make_folder(folder: Path, *, parents: bool = False) -> None:
    """Create a folder if it is not there yet; those above it only with ``parents``.

    Raises:
        UserError: it cannot be created.
    """
    with explain_os_errors(folder):
        folder.mkdir(parents=parents, exist_ok=True)


def expand_user(path: str | Path) -> Path:
    """The path with the home folder of a leading ``~`` or ``~USER``.

    Raises:
        UserError: this machine does not know the user, or the path is empty, which would be the current folder.
    """
    if not str(path).strip():
        raise UserError(f"the name '{path}' is empty: name a file or a folder, or . for the current one")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"'{path}' names a user that this machine does not know: write the path in full") from None


def stat_key(path: Path) -> tuple[int, int]:
    """Size and modification time of a file, which change with it; zeros if there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def stat_stamp(path: Path) -> tuple[int, ...]:
    """What the file system changes whenever a file's content does, even where size and modification time are put back:
    size, time of modification, time of the last change of any kind, inode. Zeros if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which becomes ``folder`` at the end, or is removed if that is not reached.

    Args:
        folder: Does not exist, or is empty.

    Raises:
        UserError: it cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    make_folder(temporary, parents=True)
    try:
        yield temporary
        with explain_os_errors(folder):
            if folder.exists():
                folder.rmdir()
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary file, fsync it and rename it to ``path``, which is old or new but never partial.

    The folder has to be there: a run whose folder is removed must not make half of it again.

    Raises:
        UserError: no space, no permission or another OSError; the old file is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # not that of another process which writes it too
    with explain_os_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            if os.name != "nt":  # Windows opens no folders
                # The rename is an entry of the folder: without this a power loss may undo it.
                folder = os.open(path.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                except OSError as error:
                    if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # as file systems say that have no such call
                        raise
                finally:
                    os.close(folder)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
