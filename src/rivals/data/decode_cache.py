"""Decoded images on disk: read back at once by the next run, mapped into memory where they do not fit it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL

from rivals.data.decode import Bad, Chunk, promote
from rivals.data.imageset import Pixels

_FORMAT = 1


class Decoded(NamedTuple):
    """All images of a listing that can be read, uint8 (N, C, S, S), and those that cannot."""

    images: Pixels
    bad: list[Bad]


def folder() -> Path:
    """Where decoded sets lie: ``$XDG_CACHE_HOME/rivals/decoded``. It may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rivals" / "decoded"


def key(title: str, *what: object) -> str:
    """The name under which the outcome of decoding ``what`` lies; Pillow's version belongs to it."""
    digest = hashlib.blake2b(repr((_FORMAT, PIL.__version__, what)).encode(), digest_size=12).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', title).strip('-.')[-40:]}-{digest}"


def memory_limit() -> int:
    """The most bytes a set may take to live in memory: a quarter of this machine's."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):  # a system that does not tell
        return 2 << 30


def fetch(name: str, decode: Callable[[], Iterator[Chunk]], on_note: Callable[[str], None]) -> Decoded:
    """What lies under ``name``, else what ``decode`` gives, kept for the next time.

    Chunks go straight to disk, so that a set may be larger than memory. Where they cannot be written, the
    set is decoded into memory, and ``on_note`` is told so.

    Raises:
        UserError: what ``decode`` raises.
    """
    place = folder() / name
    found = _read(place)
    if found is None:
        try:
            _write(place, decode())
            found = _read(place)
        except OSError as error:
            on_note(f"decoded images stay in memory only: cannot write to {folder()} ({error.strerror or error})")
    return _gather(decode()) if found is None else found


def _read(place: Path) -> Decoded | None:
    try:
        about = json.loads((place / "about.json").read_text())
        shape = tuple(about["shape"])
        bad = [Bad(index, reason) for index, reason in about["bad"]]
        file = place / "images.u8"
        if np.prod(shape) > memory_limit():
            # Copy on write: torch wants memory that may be written to, and the file stays as it is.
            return Decoded(np.memmap(file, np.uint8, mode="c", shape=shape), bad)
        return Decoded(np.fromfile(file, np.uint8).reshape(shape), bad)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent or damaged: decoded again


def _write(place: Path, chunks: Iterator[Chunk]) -> None:
    aside = place.with_name(f".{place.name}.{os.getpid()}")
    aside.mkdir(parents=True, exist_ok=True)
    try:
        pieces: list[tuple[int, ...]] = []
        bad: list[Bad] = []
        images = aside / "images.u8"
        with images.open("wb") as file:
            for chunk in chunks:
                bad += chunk.bad
                if len(chunk.pixels):
                    pieces.append(chunk.pixels.shape)
                    file.write(np.ascontiguousarray(chunk.pixels).data)
            _sync(file)
        channels = max(piece[1] for piece in pieces)
        if any(piece[1] < channels for piece in pieces):
            mixed = images.rename(aside / "mixed.u8")
            with mixed.open("rb") as old, images.open("wb") as new:
                for piece in pieces:
                    pixels = np.fromfile(old, np.uint8, int(np.prod(piece))).reshape(piece)
                    new.write(np.ascontiguousarray(promote(pixels, channels)).data)
                _sync(new)
            mixed.unlink()
        shape = [sum(piece[0] for piece in pieces), channels, *pieces[0][2:]]
        (aside / "about.json").write_text(json.dumps({"shape": shape, "bad": bad}))
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _gather(chunks: Iterator[Chunk]) -> Decoded:
    pieces: list[Pixels] = []
    bad: list[Bad] = []
    for chunk in chunks:
        bad += chunk.bad
        if len(chunk.pixels):
            pieces.append(chunk.pixels)
    channels = max(piece.shape[1] for piece in pieces)
    images = np.empty((sum(map(len, pieces)), channels, *pieces[0].shape[2:]), np.uint8)
    at = 0
    for piece in pieces:
        images[at : at + len(piece)] = promote(piece, channels)
        at += len(piece)
    return Decoded(images, bad)
