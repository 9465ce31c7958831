"""Load a built-in data set, a folder, a zip or shards as an :class:`~rivals.data.imageset.ImageSet`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

import numpy as np

from rivals.base.errors import UserError, printable
from rivals.base.files import expand_user
from rivals.base.registry import unknown
from rivals.base.size import AnySize, Size, check_size, cropped
from rivals.data import decode_cache
from rivals.data.builtin import DATASETS, list_builtin
from rivals.data.contents import content_of, digest_of_files
from rivals.data.decode import SQUARE, Chunk, Done, UnreadableImage, decode, strict_limits
from rivals.data.halves import Half, half_of
from rivals.data.imageset import ImageSet
from rivals.data.listing import Listing
from rivals.data.pixel_modes import bits_of, white_of
from rivals.data.readers import from_path
from rivals.data.remote import is_url, local_copy, url_name
from rivals.data.shards import BRACES, from_shards, is_pattern


def to_stderr(note: str) -> None:
    """Print a note to standard error."""
    print(printable(note), file=sys.stderr)


class LoadOptions(TypedDict, total=False):
    """How images are read: the options of :func:`load`."""

    split: str
    size: AnySize | None
    crop: bool
    skip_bad: bool
    white: int | None
    half: Half | None
    on_note: Callable[[str], None]


def load(
    source: str | Path,
    *,
    split: str = "train",
    size: AnySize | None = None,
    crop: bool = False,
    skip_bad: bool = False,
    white: int | None = None,
    half: Half | None = None,
    on_note: Callable[[str], None] = to_stderr,
) -> ImageSet:
    """Load images.

    Images larger than a quarter of memory come as a memory map. Decoded and resized images are cached in
    :func:`rivals.data.decode_cache.folder`.

    Args:
        source: A name (:data:`rivals.data.builtin.DATASETS`); a folder, a zip or shards
            (:func:`rivals.data.readers.from_path`); or the address of such in an object store
            (:mod:`rivals.data.remote`). Names take precedence: write ``./mnist`` for a folder.
        split: ``train`` or ``test``; some data sets have more, and ``mnist5k``, folders and zips have ``all``.
            ``mnist5k`` has 4,500 and 500 digits.
        size: What to resize to, with sides of 8 to 1024 pixels: ``64`` for squares, or ``"96x64"``, the width first.
            None keeps the size, which has to be the same for all images.
        crop: Crop images of other proportions than ``size`` around their center; without a size, to squares.
        skip_bad: Skip unreadable images, and report them to ``on_note``.
        white: The value of white in gray images of more than 8 bits. None: that of the fewest of 8, 10, 12, 14 or 16
            bits that hold the values of all images of the source.
        half: The left or the right half of images that are twice as wide as high; None for whole images.
        on_note: Called with each note to the user; by default prints it to standard error.

    Raises:
        UserError: the source or an image cannot be used; the message names the fix.
    """
    size = None if size is None else Size.parse(size)
    check_size(size)
    if white is not None and white < 1:
        raise UserError(f"--white {white} is no white level: take the largest value that pixels may have, as 4095")

    def list_source(note: Callable[[str], None]) -> Listing:
        listing = list_images(source, split, note)
        return listing if half is None else half_of(listing, half)

    with list_source(on_note) as listing:
        note_left_out(listing, on_note)
        name = source_name(source)
        pixels, labels = listing.pixels, listing.labels
        if pixels is not None:
            own = Size(*pixels.shape[2:])
            if own == (size or (cropped(own, SQUARE) if crop else own)):
                return ImageSet(name, split, pixels, labels, listing.classes)
        content = content_of(listing, on_note)

        def decode_source(done: Done) -> Iterator[Chunk]:
            # Not from the listing above: it may be closed by the time that a damaged part of the cache is read.
            with list_source(lambda note: None) as current, strict_limits():
                if current.stamp != listing.stamp:
                    raise UserError(f"{listing.title} has changed since this command began: run it again")
                yield from decode(current, size=size, crop=crop, skip_bad=skip_bad, white=white, done=done)

        name_of_entry = decode_cache.key(content, size and size.written, crop, skip_bad, white)
        count = len(listing.names)
        # If the white level is given, no image depends on another one.
        whole = (lambda: "") if white else lambda: digest_of_files(listing.whole)
        work = decode_cache.Work(name_of_entry, listing.title, count, decode_source, whole, on_note)
        images, bad, peak = decode_cache.fetch(work)
        level = (white or white_of(peak)) if peak else None
        if level is not None and (bits_of(peak), level) != (16, 2**16 - 1):
            on_note(
                f"gray images of more than 8 bits in {listing.title} hold values up to {peak:,}: they are read as "
                + (f"{bits_of(peak)} bits, in which {level:,} is white" if white is None else _as_given(white))
            )
        if bad:
            on_note(_skipped(listing, bad))
            labels = None if labels is None else np.delete(labels, [each.position for each in bad])
        return ImageSet(name, split, images, labels, listing.classes, level)


def has_split(source: str | Path, split: str) -> bool:
    """Whether a source has a split of this name. Nothing is decoded or downloaded."""
    if isinstance(source, str) and source in DATASETS:
        return split in DATASETS[source].counts
    try:
        with list_images(source, split, lambda note: None):
            return True
    except UserError:
        return False


def evaluation_split(source: str | Path) -> str | None:
    """The split of a source to evaluate on: ``test``, else ``val``, or None if neither is there with classes.

    Test images without classes, as competitions give them, are of no use for that.
    """
    for split in ("test", "val"):
        if isinstance(source, str) and source in DATASETS:
            if has_split(source, split):
                return split
            continue
        try:
            with list_images(source, split, lambda note: None) as listing:
                if listing.labels is not None:
                    return split
        except UserError:  # there is no such split; what else is wrong comes up when the images are loaded
            continue
    return None


def list_images(source: str | Path, split: str, on_note: Callable[[str], None]) -> Listing:
    """List the images of a source, as :func:`load` reads them.

    Raises:
        UserError: the source cannot be used.
    """
    if isinstance(source, str) and is_url(source):
        copies, title = local_copy(source, on_note), f"'{source}'"
        if is_pattern(source):
            return from_shards(title, copies, split)
        return from_path(copies[0], split, title=title)
    if isinstance(source, str) and source in DATASETS:
        return list_builtin(source, split, on_note)
    path = expand_user(source)
    is_path = path.exists() or "/" in str(source) or os.sep in str(source) or path.suffix in (".zip", ".tar")
    if isinstance(source, str) and not is_path:
        raise unknown("data set", source, DATASETS)
    return from_path(path, split)


def source_name(source: str | Path) -> str:
    """How a source is called for short: a data set's name, that of a folder or a file, what shards have in common."""
    if isinstance(source, str) and source in DATASETS:
        return source
    if isinstance(source, str) and is_url(source):
        return url_name(source)
    path = expand_user(source)
    if is_pattern(str(path)) and not path.exists():
        folder, common = path.parent.resolve().name, BRACES.sub("", path.stem).strip("-_.")
        return common or folder
    path = path.resolve()
    return path.stem if path.suffix.lower() in (".zip", ".tar") else path.name


def note_left_out(listing: Listing, on_note: Callable[[str], None]) -> None:
    """Say which files of a source are left out, if any are."""
    if listing.skipped:
        on_note(_skipped_files(listing))
    if listing.special:
        on_note(_special(listing))


def _skipped_files(listing: Listing) -> str:
    count = len(listing.skipped)
    kinds = Counter(Path(name).suffix.lower() or "without a suffix" for name in listing.skipped)
    named = ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common(5))
    what = "1 file that is not an image" if count == 1 else f"{count:,} files that are not images"
    return f"{listing.title} holds {what}, left out: {named}, such as '{listing.skipped[0]}'"


def _special(listing: Listing) -> str:
    first, *more = listing.special
    if not more:
        return f"{listing.title} holds 1 FIFO, socket, device or link in a tar, left out unopened: '{first}'"
    what = f"{1 + len(more):,} FIFOs, sockets, devices or links in a tar"
    return f"{listing.title} holds {what}, left out unopened, such as '{first}'"


def _as_given(white: int) -> str:
    return f"those with a white of {white:,}, the white level of the training images or of --white"


def _skipped(listing: Listing, bad: list[UnreadableImage]) -> str:
    named = ", ".join(f"'{listing.names[index]}' ({reason})" for index, reason in bad[:3])
    more = ", ..." if len(bad) > 3 else ""
    count = len(listing.names)
    return f"skipped {len(bad)} of the {count} images of {listing.title}, which cannot be read: {named}{more}"
