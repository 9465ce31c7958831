"""A cache of decoded images on disk, memory-mapped unless they are few. Each block of images has a digest.

An entry is a folder: ``images.u8``, the pixels, and ``about.json``. While it is decoded its name begins with a dot
(:class:`~rivals.data.partial_decode.PartialDecode`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import PIL

from rivals.base.errors import UserError
from rivals.base.hashing import key_hash
from rivals.base.typed_json import read_json
from rivals.data.cache_folder import cache_folder, exclusive
from rivals.data.decode import Chunk, Done, ReadFailed, UnreadableImage, to_channels
from rivals.data.imageset import Pixels
from rivals.data.mapped_pixels import MappedPixels, digests
from rivals.data.partial_decode import PartialDecode
from rivals.data.progress_notes import ProgressNotes

_FORMAT = 6
ABANDONED = 7 * 86400.0  # seconds after which what a killed decoding has left is removed

Note = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """What is decoded.

    Attributes:
        name: Of its entry in the cache.
        title: Of the source in messages.
        count: Number of its images.
        decode: Decodes them in order, but for those that are done.
        whole: Hash of all images of the source, those of other splits too, on which the pixels of deep ones depend.
        on_note: Receives what the user should know.
    """

    name: str
    title: str
    count: int
    decode: Callable[[Done], Iterator[Chunk]]
    whole: Callable[[], str]
    on_note: Note


class Decoded(NamedTuple):
    """The images of a listing, uint8 (N, C, S, S), those that cannot be read, and the ``peak`` of :class:`Chunk`."""

    images: Pixels | MappedPixels
    bad: list[UnreadableImage]
    peak: int


class _About(TypedDict):
    """``about.json`` of an entry; ``digest`` is that of everything else in it but the title."""

    title: str
    shape: tuple[int, int, int, int]
    bad: list[tuple[int, str]]
    peak: int
    whole: str
    digests: list[str]
    digest: str


class _DamagedEntry(Exception):
    """An entry of the cache that is not as it was written."""


class _OtherWhole(Exception):
    """An entry whose pixels depend on images of another split that have changed."""


def folder() -> Path:
    """Where the entries are."""
    return cache_folder() / "decoded"


def key(*what: object) -> str:
    """The name of the entry for ``what`` is decoded, by this version of Pillow."""
    return key_hash(_FORMAT, PIL.__version__, what)


def machine_memory() -> int:
    """This machine's memory in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # a system that does not tell
        return 8 << 30


def memory_limit() -> int:
    """Largest size in bytes of images that are read into memory, at most a quarter of this machine's.

    To verify more would delay the start, and processes on one machine share what is mapped.
    """
    return min(1 << 28, machine_memory() // 4)


def fetch(work: Work) -> Decoded:
    """Decoded images: from the cache, after they were decoded into it if they are missing or damaged there.

    Chunks go straight to disk, so that the images may be larger than memory. If the cache cannot be written, they are
    decoded into memory, and the user is told. An entry in memory is verified here; of a mapped one, each block when it
    is first read, and if one is damaged, all are decoded then. One process of a machine decodes, while others that want
    the same wait; it goes on where one that was killed has ended.

    Raises:
        UserError: from ``work.decode``; or the images fit neither on the disk nor into memory.
    """
    try:
        with contextlib.suppress(_OtherWhole):
            if (folder() / work.name / "about.json").exists():
                return _read(work)
    except _DamagedEntry:
        return _decode_again(work)
    except OSError:  # no permission: the attempt to write says so
        pass
    return _decode(work)


def _decode_again(work: Work) -> Decoded:
    work.on_note(f"the decoded images in {folder() / work.name} are damaged: they are decoded again")
    return _decode(work, damaged=True)


def _decode(work: Work, damaged: bool = False) -> Decoded:
    try:
        folder().mkdir(parents=True, exist_ok=True)
        _remove_abandoned()
        with exclusive(folder().parent / "locks", work.name):
            if not damaged:
                with contextlib.suppress(OSError, _DamagedEntry, _OtherWhole):
                    return _read(work)  # another process has decoded it meanwhile
            with PartialDecode(folder() / f".{work.name}") as partial:
                _write(work, partial)
            return _read(work)
    except OSError as error:
        cause = f"cannot write to {folder()} ({error.strerror or error})"
    except (_DamagedEntry, _OtherWhole):
        cause = f"{folder()} does not keep what is written"
    work.on_note(f"decoded images stay in memory only: {cause}")
    return _gather(work, cause)


def _remove_abandoned() -> None:
    """Remove what killed decodings have left long ago."""
    for path in folder().glob(".*"):
        with contextlib.suppress(OSError):
            newest = max(each.stat().st_mtime for each in (path, *path.iterdir()))
            if newest < time.time() - ABANDONED:
                shutil.rmtree(path, ignore_errors=True)


def _read(work: Work) -> Decoded:
    """An entry of the cache.

    Raises:
        OSError: it is absent or cannot be read.
        _DamagedEntry: it is not as it was written.
        _OtherWhole: it depends on other images, which have changed.
    """
    entry = folder() / work.name
    try:
        about = read_json(entry / "about.json", _About, "")
    except UserError as error:
        raise _DamagedEntry from error
    if about["digest"] != _about_digest(about):
        raise _DamagedEntry
    if about["whole"] and about["whole"] != work.whole():
        raise _OtherWhole
    file, shape = entry / "images.u8", tuple(about["shape"])
    bad = [UnreadableImage(position, reason) for position, reason in about["bad"]]
    try:
        images: Pixels | MappedPixels = MappedPixels(file, shape, about["digests"], lambda: _decode_again(work).images)
        if np.prod(shape) <= memory_limit():
            images = np.fromfile(file, np.uint8).reshape(shape)
    except (FileNotFoundError, ValueError) as error:
        raise _DamagedEntry from error
    if isinstance(images, np.ndarray) and list(digests(images)) != about["digests"]:
        raise _DamagedEntry
    with contextlib.suppress(OSError):
        os.utime(entry)  # when it was last of use, for `data prune`
    return Decoded(images, bad, about["peak"])


def _about_digest(about: _About) -> str:
    return key_hash(*(about[key] for key in ("shape", "bad", "peak", "whole", "digests")))


def _write(work: Work, partial: PartialDecode) -> None:
    """Decode what is left, and make the folder an entry. A stopped process leaves it for the next one."""
    done = partial.done.images
    if done:
        work.on_note(f"{done:,} of {work.count:,} images of {work.title} were decoded before: going on from there")
    notes = ProgressNotes(work.on_note, f"decoded {{done}} of {work.count:,} images of {work.title}", work.count, done)
    try:
        for chunk in work.decode(partial.done):
            partial.add(chunk)
            done += len(chunk.pixels) + len(chunk.bad)
            notes.show(done)
        file, shape = partial.finish()
        blocks = list(digests(np.memmap(file, np.uint8, mode="r", shape=shape)))
        peak = partial.done.peak
        about: _About = {
            "title": work.title,
            "shape": shape,  # type: ignore[typeddict-item]  # of four numbers
            "bad": [(position, reason) for position, reason in partial.bad],
            "peak": peak,
            "whole": work.whole() if peak else "",
            "digests": blocks,
            "digest": "",
        }
        about = json.loads(json.dumps(about))
        (partial.folder / "about.json").write_text(json.dumps({**about, "digest": _about_digest(about)}))
        partial.seal(file)
        entry = folder() / work.name
        shutil.rmtree(entry, ignore_errors=True)
        partial.folder.rename(entry)
    except (OSError, ReadFailed):  # which may pass: what is decoded stays for the next time
        raise
    except Exception:
        partial.remove()
        raise
    except BaseException:  # Ctrl-C or a signal
        work.on_note(f"stopped after {done:,} of {work.count:,} images: the same command goes on from there")
        raise


def _gather(work: Work, cause: str) -> Decoded:
    """Decode into memory.

    Raises:
        UserError: from ``work.decode``; or there is too little memory, and the ``cause`` is why it is needed.
    """
    pieces: list[Pixels] = []
    bad: list[UnreadableImage] = []
    peak = 0
    for chunk in work.decode(Done()):
        bad += chunk.bad
        peak = max(peak, chunk.peak)
        if len(chunk.pixels):
            pieces.append(chunk.pixels)
            size = chunk.pixels[0].nbytes * work.count
            if size > machine_memory() // 2:
                raise UserError(
                    f"the decoded images of {work.title} take {size / 2**30:.1f} GiB, too much for the memory, and "
                    f"{cause}: make room, choose another place with --cache, or a smaller --size"
                )
    channels = max(piece.shape[1] for piece in pieces)
    images = np.empty((sum(map(len, pieces)), channels, *pieces[0].shape[2:]), np.uint8)
    at = 0
    for piece in pieces:
        images[at : at + len(piece)] = to_channels(piece, channels)
        at += len(piece)
    return Decoded(images, bad, peak)
