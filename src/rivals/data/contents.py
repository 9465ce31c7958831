"""By what decoded images are recognized: the content of their files, wherever those are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from rivals.base.errors import UserError
from rivals.base.files import make_folder, write_atomically
from rivals.base.hashing import key_hash
from rivals.data.cache_folder import cache_folder
from rivals.data.imageset import content_hash
from rivals.data.listing import Listing
from rivals.data.parallel import parallel_map
from rivals.data.progress_notes import ProgressNotes

_FORMAT = 1
_GROUP = 32  # files per task
# Clocks of file systems are coarse: a file that changes twice within this time may have one stamp for two contents.
SETTLING_NS = 2_000_000_000

Note = Callable[[str], None]


def content_of(listing: Listing, on_note: Note) -> str:
    """The hash of the content of a listing's images, in order.

    Files are read only if the file system's stamp of them is unknown. The stamp holds the time of the last change of
    any kind, which no program sets, so a changed file is noticed even where its size and modification time are not new.

    Raises:
        UserError: the images are in memory, and not uint8 (N, C, H, W).
    """
    if listing.pixels is not None:
        return content_hash(listing.pixels)
    now = time.time_ns()
    known = cache_folder() / "contents" / key_hash(_FORMAT, listing.stamp)
    with contextlib.suppress(OSError, ValueError):
        content, check = known.read_text().split()
        if check == _check(content, listing):
            os.utime(known)  # when it was last of use, for `data prune`
            return content
    count = len(listing.names)
    notes = ProgressNotes(on_note, f"read {{done}} of {count:,} files of {listing.title} to recognize them", count)
    content = digest_of_files((partial(listing.read, i) for i in range(count)), notes.show)
    if listing.newest < now - SETTLING_NS:
        with contextlib.suppress(UserError):
            make_folder(known.parent, parents=True)
            write_atomically(known, f"{content} {_check(content, listing)}\n".encode())
    return content


def _check(content: str, listing: Listing) -> str:
    return key_hash(content, listing.stamp)


def digest_of_files(files: Iterable[Callable[[], bytes]], show: Callable[[int], None] = lambda done: None) -> str:
    """32 hexadecimal digits (BLAKE2b) of the content of some files, in order.

    Args:
        files: Read each of them; one that cannot be read counts as such.
        show: Called with the number that is done.
    """
    whole = hashlib.blake2b(digest_size=16)
    for done, digest in enumerate(parallel_map(_digest_of_some, _groups(files)), 1):
        whole.update(digest)
        show(done * _GROUP)
    return whole.hexdigest()


def _groups(files: Iterable[Callable[[], bytes]]) -> Iterator[list[Callable[[], bytes]]]:
    group: list[Callable[[], bytes]] = []
    for file in files:
        group.append(file)
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group


def _digest_of_some(files: list[Callable[[], bytes]]) -> bytes:
    return b"".join(map(_digest, files))


def _digest(file: Callable[[], bytes]) -> bytes:
    try:
        return hashlib.blake2b(file(), digest_size=16).digest()
    except Exception as error:  # whatever damaged archives raise: said when it is decoded
        what = f"{type(error).__name__} {getattr(error, 'errno', '')}"
        return hashlib.blake2b(what.encode(), digest_size=16, person=b"unreadable").digest()
