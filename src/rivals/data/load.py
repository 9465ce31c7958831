"""The one entry for data: a name, a folder or a zip becomes an :class:`~rivals.data.imageset.ImageSet`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rivals.base.errors import UserError
from rivals.base.registry import unknown
from rivals.data import cache
from rivals.data.decode import Bad, check_size, decode, strict_limits
from rivals.data.imageset import ImageSet, content_hash
from rivals.data.names import NAMES, find
from rivals.data.sources import Listing, from_path


def to_stderr(note: str) -> None:
    """Print a note where it does not mix with results."""
    print(note, file=sys.stderr)


def load(
    source: str | Path,
    *,
    split: str = "train",
    size: int | None = None,
    crop: bool = False,
    skip_bad: bool = False,
    on_note: Callable[[str], None] = to_stderr,
) -> ImageSet:
    """Load a set of images.

    A set larger than a quarter of memory comes as a memory map. What had to be decoded or resized is kept in
    :func:`rivals.data.cache.folder`, so the next time is quick.

    Args:
        source: a name (:data:`rivals.data.names.NAMES`), a folder or a zip
            (:func:`rivals.data.sources.from_path` says how those are read). Names go first: write
            ``./mnist`` for a folder called so.
        split: ``train`` or ``test``; some names have more, and ``mnist5k``, folders and zips have ``all``.
            Of the 5,000 digits of ``mnist5k``, every tenth of a class is for ``test``: 4,500 and 500.
        size: height and width, 8 to 1024, to resize the images to; None leaves them as they are.
        crop: cut the largest square out of the centre of images that are not square.
        skip_bad: leave out images that cannot be read, and say how many by ``on_note``.
        on_note: gets what the user should know, a line at a time; printed on standard error by default.

    Raises:
        UserError: anything that is wrong with the source or the images, with the fix.
    """
    check_size(size)
    with _listing(source, split, on_note) as listing:
        name = source if isinstance(source, str) and source in NAMES else _name(Path(source))
        ready, labels = listing.ready, listing.labels
        if ready is not None and ready.shape[2] == ready.shape[3] == (size or ready.shape[2]):
            return ImageSet(name, split, ready, labels, listing.classes)
        identity = listing.identity if ready is None else content_hash(ready)
        key = cache.key(f"{name}-{split}", identity, size, crop, skip_bad)
        with strict_limits():
            images, bad = cache.fetch(key, lambda: decode(listing, size=size, crop=crop, skip_bad=skip_bad), on_note)
        if bad:
            on_note(_skipped(listing, bad))
            labels = None if labels is None else np.delete(labels, [each.place for each in bad])
        return ImageSet(name, split, images, labels, listing.classes)


def has_split(source: str | Path, split: str) -> bool:
    """Whether a source has a split of this name; nothing is decoded or fetched for the answer."""
    if isinstance(source, str) and source in NAMES:
        return split in NAMES[source].counts
    try:
        with _listing(source, split, lambda note: None):
            return True
    except UserError:
        return False


def _listing(source: str | Path, split: str, on_note: Callable[[str], None]) -> Listing:
    if isinstance(source, str) and source in NAMES:
        return find(source, split, on_note)
    path = Path(source).expanduser()
    if isinstance(source, str) and not (path.exists() or "/" in source or os.sep in source or path.suffix == ".zip"):
        raise unknown("data set", source, NAMES)
    return from_path(path, split)


def _name(path: Path) -> str:
    path = path.expanduser().resolve()
    return path.stem if path.suffix.lower() == ".zip" else path.name


def _skipped(listing: Listing, bad: list[Bad]) -> str:
    named = ", ".join(f"'{listing.names[place]}' ({reason})" for place, reason in bad[:3])
    more = ", ..." if len(bad) > 3 else ""
    count = len(listing.names)
    return f"skipped {len(bad)} of the {count} images of {listing.title}, which cannot be read: {named}{more}"
