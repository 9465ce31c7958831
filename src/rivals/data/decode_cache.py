"""A cache of decoded images on disk, memory-mapped if they do not fit in memory. Each block of images has a digest."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypedDict

import numpy as np
import PIL

from rivals.base.errors import UserError
from rivals.base.hashing import key_hash
from rivals.base.typed_json import read_json
from rivals.data.decode import Chunk, UnreadableImage, to_channels
from rivals.data.imageset import Images, Pixels
from rivals.data.mapped_pixels import MappedPixels, digests

_FORMAT = 3

Decode = Callable[[], Iterator[Chunk]]
Note = Callable[[str], None]


class Decoded(NamedTuple):
    """The images of a listing, uint8 (N, C, S, S), those that cannot be read, and the ``peak`` of :class:`Chunk`."""

    images: Images
    bad: list[UnreadableImage]
    peak: int


class _About(TypedDict):
    """``about.json`` of an entry; ``digest`` is that of everything else in it."""

    shape: tuple[int, int, int, int]
    bad: list[tuple[int, str]]
    peak: int
    digests: list[str]
    digest: str


class _DamagedEntry(Exception):
    """An entry of the cache that is not as it was written."""


def folder() -> Path:
    """The cache, ``$XDG_CACHE_HOME/rivals/decoded``. It may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rivals" / "decoded"


def key(title: str, *what: object) -> str:
    """The name of the entry for ``what`` is decoded, by this version of Pillow."""
    digest = key_hash(_FORMAT, PIL.__version__, what)
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', title).strip('-.')[-40:]}-{digest}"


def memory_limit() -> int:
    """Largest size in bytes of images that are read into memory: a quarter of this machine's."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):  # a system that does not tell
        return 2 << 30


def fetch(name: str, decode: Decode, on_note: Note) -> Decoded:
    """The entry ``name``, decoded and written first if it is missing or damaged, the latter with a note.

    Chunks go straight to disk, so that the images may be larger than memory. If the cache cannot be written, they are
    decoded into memory, and ``on_note`` is called. An entry in memory is verified here; of one larger than memory, each
    block when it is first read, and if one is damaged, ``decode`` is called then.

    Raises:
        UserError: from ``decode``.
    """
    try:
        if (folder() / name / "about.json").exists():
            return _read(name, decode, on_note)
    except _DamagedEntry:
        return _decode_again(name, decode, on_note)
    except OSError:  # no permission: the attempt to write says so
        pass
    return _decode(name, decode, on_note)


def _decode_again(name: str, decode: Decode, on_note: Note) -> Decoded:
    on_note(f"the decoded images in {folder() / name} are damaged: they are decoded again")
    return _decode(name, decode, on_note)


def _decode(name: str, decode: Decode, on_note: Note) -> Decoded:
    try:
        _write(folder() / name, decode())
        return _read(name, decode, on_note)
    except OSError as error:
        on_note(f"decoded images stay in memory only: cannot write to {folder()} ({error.strerror or error})")
    except _DamagedEntry:
        on_note(f"decoded images stay in memory only: {folder()} does not keep what is written")
    return _gather(decode())


def _read(name: str, decode: Decode, on_note: Note) -> Decoded:
    """An entry of the cache.

    Raises:
        OSError: it is absent or cannot be read.
        _DamagedEntry: it is not as it was written.
    """
    entry = folder() / name
    try:
        about = read_json(entry / "about.json", _About, "")
    except UserError as error:
        raise _DamagedEntry from error
    if about["digest"] != _about_digest(about):
        raise _DamagedEntry
    file, shape = entry / "images.u8", tuple(about["shape"])
    bad = [UnreadableImage(position, reason) for position, reason in about["bad"]]

    def restore() -> Images:
        return _decode_again(name, decode, on_note).images

    try:
        images: Images = MappedPixels(file, shape, about["digests"], restore)
        if np.prod(shape) <= memory_limit():
            images = np.fromfile(file, np.uint8).reshape(shape)
    except (FileNotFoundError, ValueError) as error:
        raise _DamagedEntry from error
    if isinstance(images, np.ndarray) and list(digests(images)) != about["digests"]:
        raise _DamagedEntry
    return Decoded(images, bad, about["peak"])


def _about_digest(about: _About) -> str:
    return key_hash(*(about[key] for key in ("shape", "bad", "peak", "digests")))


def _write(entry: Path, chunks: Iterator[Chunk]) -> None:
    temporary = entry.with_name(f".{entry.name}.{os.getpid()}")
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        pieces: list[tuple[int, ...]] = []
        bad: list[UnreadableImage] = []
        peak = 0
        images = temporary / "images.u8"
        with images.open("wb") as file:
            for chunk in chunks:
                bad += chunk.bad
                peak = max(peak, chunk.peak)
                if len(chunk.pixels):
                    pieces.append(chunk.pixels.shape)
                    file.write(np.ascontiguousarray(chunk.pixels).data)
            _sync(file)
        channels = max(piece[1] for piece in pieces)
        if any(piece[1] < channels for piece in pieces):
            mixed = images.rename(temporary / "mixed.u8")
            with mixed.open("rb") as old, images.open("wb") as new:
                for piece in pieces:
                    pixels = np.fromfile(old, np.uint8, int(np.prod(piece))).reshape(piece)
                    new.write(np.ascontiguousarray(to_channels(pixels, channels)).data)
                _sync(new)
            mixed.unlink()
        shape = [sum(piece[0] for piece in pieces), channels, *pieces[0][2:]]
        blocks = list(digests(np.memmap(images, np.uint8, mode="r", shape=tuple(shape))))
        about: _About = json.loads(json.dumps({"shape": shape, "bad": bad, "peak": peak, "digests": blocks}))
        (temporary / "about.json").write_text(json.dumps({**about, "digest": _about_digest(about)}))
        shutil.rmtree(entry, ignore_errors=True)
        temporary.rename(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _gather(chunks: Iterator[Chunk]) -> Decoded:
    pieces: list[Pixels] = []
    bad: list[UnreadableImage] = []
    peak = 0
    for chunk in chunks:
        bad += chunk.bad
        peak = max(peak, chunk.peak)
        if len(chunk.pixels):
            pieces.append(chunk.pixels)
    channels = max(piece.shape[1] for piece in pieces)
    images = np.empty((sum(map(len, pieces)), channels, *pieces[0].shape[2:]), np.uint8)
    at = 0
    for piece in pieces:
        images[at : at + len(piece)] = to_channels(piece, channels)
        at += len(piece)
    return Decoded(images, bad, peak)
