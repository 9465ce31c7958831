"""Locks between processes, also of several machines on a network file system."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold an exclusive lock. The operating system drops it if the process dies.

    It is one on a regular file, open for writing: between machines, network file systems lock nothing else. The file is
    removed at the end.

    Args:
        path: Of that file, made if need be.
        wait: Wait for whoever has the lock.

    Yields:
        Whether anything is held: not so on systems and file systems without locks.

    Raises:
        BlockingIOError: another process has the lock, and this one does not wait.
        OSError: the file cannot be made.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            held = _lock(file, wait)
        except BaseException:
            os.close(file)
            raise
        if _is_at(path, file):
            break
        os.close(file)  # whoever had the lock has removed its file
    try:
        yield held
    finally:
        if _is_at(path, file):
            with contextlib.suppress(OSError):  # as on Windows, where it is open
                path.unlink()
        os.close(file)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of this file."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        _lock(file, wait=False)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _lock(file: int, wait: bool) -> bool:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except (ImportError, OSError):  # as Lustre mounted without flock
        return False
    return True


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False
