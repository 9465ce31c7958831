"""Where decoded images and what is known of their files are kept between commands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rivals.base.file_lock import file_lock
from rivals.base.files import expand_user


def cache_folder() -> Path:
    """``RIVALS_CACHE``, else ``$XDG_CACHE_HOME/rivals``, else ``~/.cache/rivals``. It may be deleted at any time."""
    if chosen := os.environ.get("RIVALS_CACHE"):
        return expand_user(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rivals"


@contextlib.contextmanager
def exclusive(locks: Path, name: str) -> Iterator[None]:
    """Hold a lock, waiting for whoever has it; nothing is held on a file system without locks.

    Args:
        locks: Folder of their files, made if need be.
        name: Of the lock.

    Raises:
        OSError: the file cannot be made.
    """
    locks.mkdir(parents=True, exist_ok=True)
    with file_lock(locks / name, wait=True):
        yield
