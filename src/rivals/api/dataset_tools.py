"""``data ls`` and ``data pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rivals.recipes.options import DataOptions


def data_ls() -> list[dict[str, Any]]:
    """The data sets that have a name: where each was found, or what to do to have it."""
    from rivals.data.builtin import catalog

    return catalog()


def data_pack(
    source: str, dest: Path, *, split: str = "train", shards: int | None = None, **settings: Any
) -> dict[str, Any]:
    """Pack images into one zip, or into tar shards, that any command takes as its data.

    Args:
        source: A data set's name, a folder of images (subfolders are classes), a zip or shards.
        dest: The zip to write; with --shards a folder.
        split: train or test, for a data set that has a name.
        shards: Write so many tars in WebDataset's layout instead of a zip.
        **settings: Any field of :class:`rivals.DataOptions`, such as ``size=32``.
    """
    from rivals.data.pack import pack

    return pack(source, dest, split=split, shards=shards, **vars(DataOptions().changed(**settings)))


def data_prune(
    *, days: float | None = None, gigabytes: float | None = None, dry_run: bool = False
) -> list[dict[str, Any]]:
    """List what is in the cache, and remove what is old or too much. Without --days and --gigabytes nothing is removed.

    Whatever is removed is made again when it is needed.

    Args:
        days: Remove what was of no use for so many days; 0 removes everything.
        gigabytes: Remove what was of no use for the longest, until the rest takes no more than so much.
        dry_run: Only say what would be removed.

    Returns:
        Rows of ``kind``, ``source``, ``megabytes``, ``unused`` (since when, in days) and ``state``; the last is the sum
        of what is kept.

    Raises:
        UserError: a number is negative.
    """
    import time

    from rivals.data.cache_folder import cache_folder
    from rivals.data.prune import KINDS, SMALL, prune

    now, rows, kept = time.time(), [], 0
    small: dict[tuple[str, str], list[Any]] = {}
    for entry, state in prune(days, gigabytes, dry_run=dry_run):
        kept += entry.bytes if state in ("kept", "in use") else 0
        if entry.path.parent.name in SMALL:
            small.setdefault((entry.path.parent.name, state), []).append(entry)
        else:
            rows.append(_row(entry.kind, entry.title, entry.bytes, (now - entry.used) / 86400, state))
    for (folder, state), entries in small.items():
        unused = (now - max(entry.used for entry in entries)) / 86400
        rows.append(_row(KINDS[folder], f"{len(entries):,} of them", sum(e.bytes for e in entries), unused, state))
    return [*rows, _row("all", f"in {cache_folder()}", kept, 0.0, "kept")]


def _row(kind: str, source: str, size: int, unused: float, state: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "source": source,
        "megabytes": round(size / 1e6, 1),
        "unused": round(max(0.0, unused), 1),
        "state": state,
    }
