"""A decoding under way: what a killed process has decoded is there for the next one."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypedDict

import numpy as np

from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.base.typed_json import parse_json
from rivals.data.decode import Chunk, Done, UnreadableImage, to_channels

_LARGEST = 1 << 30  # bytes of a piece: no more are read at once, whatever its line says


class Piece(TypedDict):
    """A chunk that is written: how many images come before it, the shape of its pixels, its unreadable images, and the
    digest of its bytes."""

    first: int
    shape: list[int]
    bad: list[tuple[int, str]]
    peak: int
    digest: str


class PartialDecode:
    """Chunks in a folder: their pixels one after the other in ``images.u8``, a line about each in ``pieces.jsonl``.

    The line is written after the pixels and holds their digest and place. So whatever is cut off or damaged by a kill,
    a loss of power, or a second process on a file system without locks, is found when the folder is opened again, and
    dropped with all that follows.

    Args:
        folder: Where; made if need be.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images.u8"
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        self.pieces: list[Piece] = []
        journal = folder / "pieces.jsonl"
        kept = lines = 0
        if self.images.exists() and journal.exists():
            with self.images.open("rb") as pixels, journal.open("rb") as file:
                for piece, length in _intact(file.read(), pixels.read):
                    self.pieces.append(piece)
                    kept += _size(piece)
                    lines += length
        self._pixels, self._journal = self.images.open("ab"), journal.open("ab")
        self._pixels.truncate(kept)
        self._journal.truncate(lines)

    def __enter__(self) -> PartialDecode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pixels.close()
        self._journal.close()

    @property
    def done(self) -> Done:
        """What is decoded."""
        first, size, at = None, None, 0
        for piece in self.pieces:
            if first is None and piece["shape"][0]:
                bad = {position for position, _ in piece["bad"]}
                first = next(i for i in range(at, at + _positions(piece)) if i not in bad)
                size = Size(*piece["shape"][2:])
            at += _positions(piece)
        return Done(at, first, size, max((piece["peak"] for piece in self.pieces), default=0))

    @property
    def bad(self) -> list[UnreadableImage]:
        """The images that cannot be read."""
        return [UnreadableImage(position, reason) for piece in self.pieces for position, reason in piece["bad"]]

    @property
    def nbytes(self) -> int:
        """Size of the pixels so far."""
        return sum(map(_size, self.pieces))

    def add(self, chunk: Chunk) -> None:
        """Write a chunk.

        Raises:
            OSError: it cannot be written.
        """
        content = np.ascontiguousarray(chunk.pixels)
        piece: Piece = {
            "first": sum(map(_positions, self.pieces)),
            "shape": list(content.shape),
            "bad": [(position, reason) for position, reason in chunk.bad],
            "peak": chunk.peak,
            "digest": "",
        }
        piece["digest"] = _digest(piece, content.data)
        self._pixels.write(content.data)
        self._pixels.flush()
        self._journal.write(json.dumps(piece).encode() + b"\n")
        self._journal.flush()
        self.pieces.append(piece)

    def finish(self) -> tuple[Path, tuple[int, ...]]:
        """Give all pixels the largest number of channels, and see to it that they are on the disk.

        Returns:
            Their file and their shape. Until :meth:`seal` an interrupted decoding goes on from here.

        Raises:
            OSError: they cannot be written, or another process has written too, which no lock has kept away.
        """
        os.fsync(self._pixels.fileno())
        if os.fstat(self._pixels.fileno()).st_size != self.nbytes:
            raise OSError(errno.EBUSY, "another process decodes the same images, on a file system without locks")
        shapes = [piece["shape"] for piece in self.pieces if piece["shape"][0]]
        channels = max(shape[1] for shape in shapes)
        file = self.images
        if any(shape[1] < channels for shape in shapes):
            file = self.folder / "alike.u8"
            with self.images.open("rb") as old, file.open("wb") as new:
                for shape in shapes:
                    pixels = np.fromfile(old, np.uint8, int(np.prod(shape))).reshape(shape)
                    new.write(np.ascontiguousarray(to_channels(pixels, channels)).data)
                new.flush()
                os.fsync(new.fileno())
        return file, (sum(shape[0] for shape in shapes), channels, *shapes[0][2:])

    def seal(self, file: Path) -> None:
        """Leave nothing but the pixels, in the file that :meth:`finish` has named.

        Raises:
            OSError: the folder cannot be written.
        """
        self._pixels.close()
        self._journal.close()
        file.replace(self.images)
        (self.folder / "pieces.jsonl").unlink()

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _digest(piece: Piece, pixels: bytes | memoryview) -> str:
    digest = hashlib.sha256(pixels)
    digest.update(json.dumps([piece["first"], piece["shape"], piece["bad"], piece["peak"]]).encode())
    return digest.hexdigest()


def _intact(journal: bytes, read: Callable[[int], bytes]) -> Iterator[tuple[Piece, int]]:
    """The pieces whose pixels are as they were written, with the lengths of their lines, up to the first other one."""
    at = 0
    for line in journal.splitlines(keepends=True):
        try:
            piece = parse_json(line, Piece, "", "")
        except UserError:
            return
        if not line.endswith(b"\n") or not 0 <= _size(piece) <= _LARGEST or piece["first"] != at:
            return
        if _digest(piece, read(_size(piece))) != piece["digest"]:
            return
        at += _positions(piece)
        yield piece, len(line)


def _size(piece: Piece) -> int:
    return math.prod(piece["shape"])


def _positions(piece: Piece) -> int:
    return piece["shape"][0] + len(piece["bad"])
