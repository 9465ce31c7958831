"""Where decoded images and what is known of their files are kept between commands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rivals.base.files import expand_user


def cache_folder() -> Path:
    """``RIVALS_CACHE``, else ``$XDG_CACHE_HOME/rivals``, else ``~/.cache/rivals``. It may be deleted at any time."""
    if chosen := os.environ.get("RIVALS_CACHE"):
        return expand_user(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rivals"


@contextlib.contextmanager
def exclusive(locks: Path, name: str) -> Iterator[None]:
    """Hold a lock, waiting for whoever has it. The operating system drops it if the process dies.

    On a system without locks nothing is held.

    Args:
        locks: Folder of their files, made if need be; that of this one is removed at the end.
        name: Of the lock.

    Raises:
        OSError: the file cannot be made.
    """
    locks.mkdir(parents=True, exist_ok=True)
    path = locks / name
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with contextlib.suppress(ImportError, OSError):  # as Lustre mounted without flock
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                break
        os.close(file)  # whoever had the lock has removed its file
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def is_held(locks: Path, name: str) -> bool:
    """Whether a process holds the lock of this name."""
    try:
        import fcntl

        with (locks / name).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False
