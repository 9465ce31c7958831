"""Where the files in a tar are: its headers, read without unpacking anything to the disk.

Tars that others made are read in bounded memory. Names decide nothing but classes, so absolute ones and ``..`` do no
harm. Links and devices are not followed or opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rivals.base.errors import UserError
from rivals.data.archive import MOST_BYTES

BLOCK = 512
_MOST_NAME = 1 << 20  # bytes of an extended header, which holds a name
_BUFFER = 1 << 20  # read ahead: most members are small
# Types of headers (POSIX.1-2001; GNU tar).
_FILES, _LONG_NAME, _LONG_LINK, _EXTENDED, _GLOBAL, _SPARSE = (b"0", b"\0", b"7"), b"L", b"K", b"x", b"g", b"S"
_FOLDER = b"5"
_EMPTY = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders and FIFOs: no content follows


class Member(NamedTuple):
    """A file in a tar: its name, the place of its content in bytes, and whether it is a link or device instead."""

    name: str
    offset: int
    size: int
    special: bool = False


def open_tar(path: Path) -> BinaryIO:
    """Open a tar to read.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # never waits for a FIFO
    except FileNotFoundError:
        raise UserError(f"there is no shard '{path}': check the name, and that all shards were copied") from None
    except OSError as error:
        raise UserError(f"cannot read the shard '{path}': {error.strerror or error}: check it") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise UserError(f"'{path}' is no file: give a tar")
    return os.fdopen(file, "rb", _BUFFER)


def read_members(path: Path, file: BinaryIO) -> Iterator[Member]:
    """The files of a tar in order, without its folders. ``file`` may be read and moved in between.

    Raises:
        UserError: it is cut short, damaged, compressed or no tar; the message names the byte.
    """
    end = os.fstat(file.fileno()).st_size
    at, extended = 0, _Extended()
    while True:
        header = _read(file, at, BLOCK)
        if len(header) < BLOCK:
            raise _cut(path, end, "before its end mark")
        if not any(header):
            _check_end(path, file, at)
            return
        try:
            kind, name, size = _parse(header)
        except ValueError as error:
            raise _damaged(path, at, str(error)) from None
        start = at + BLOCK
        if kind in (_LONG_NAME, _LONG_LINK, _EXTENDED, _GLOBAL):
            if size > _MOST_NAME:
                raise _damaged(path, at, f"an extended header of {size:,} bytes")
            content = _read(file, start, size)
            if len(content) < size:
                raise _cut(path, end, f"in the header at byte {at:,}")
            try:
                extended = extended.with_header(kind, content)
            except ValueError as error:
                raise _damaged(path, at, str(error)) from None
            at = start + _padded(size)
            continue
        name, size = extended.name or name, size if extended.size is None else extended.size
        if kind == _SPARSE or extended.sparse:
            raise UserError(f"'{name}' of the shard '{path}' is stored as a sparse file: make the tar without --sparse")
        holds = kind in _FILES
        if holds and start + size > end:
            raise _cut(path, end, f"in '{name}', which begins at byte {start:,} and has {size:,} bytes")
        if holds and size > MOST_BYTES:
            raise _damaged(path, at, f"'{name}' has {size:,} bytes, more than {MOST_BYTES:,}")
        if kind != _FOLDER and not (holds and name.endswith("/")):
            yield Member(name, start, size, special=not holds)
        at, extended = start + (0 if kind in _EMPTY else _padded(size)), _Extended()


def _check_end(path: Path, file: BinaryIO, at: int) -> None:
    """Check that nothing follows the end mark. A hole that a download or a disk has left looks like one.

    Raises:
        UserError: something does.
    """
    file.seek(at)
    while block := file.read(_BUFFER):
        if block.count(0) < len(block):
            raise UserError(
                f"the shard '{path}' goes on after an end mark at byte {at:,}: it has a hole of zeros, so copy it "
                "again; or it is several tars one after the other, so name each by itself"
            )


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


class _Extended(NamedTuple):
    """What extended headers say of the next file."""

    name: str = ""
    size: int | None = None
    sparse: bool = False

    def with_header(self, kind: bytes, content: bytes) -> _Extended:
        """Together with one more extended header.

        Raises:
            ValueError: it is damaged.
        """
        if kind == _LONG_NAME:
            return self._replace(name=_text(content))
        if kind != _EXTENDED:
            return self  # the target of a link, or what a whole archive has in common
        known = dict(_records(content))
        size = known.get("size")
        if size is not None and not (size.isascii() and size.isdigit() and len(size) < 20):
            raise ValueError(f"the size '{size[:20]}' in an extended header")
        return _Extended(
            known.get("path", self.name),
            self.size if size is None else int(size),
            self.sparse or any(key.startswith("GNU.sparse.") for key in known),
        )


def _records(content: bytes) -> Iterator[tuple[str, str]]:
    """The records ``LENGTH KEY=VALUE`` of a pax header."""
    at = 0
    while at < len(content) and content[at]:
        digits, space, _ = content[at : at + 20].partition(b" ")
        length = int(digits) if digits.isdigit() and space else 0
        key, equals, value = content[at + len(digits) + 1 : at + length].partition(b"=")
        if not equals or at + length > len(content) or not value.endswith(b"\n"):
            raise ValueError("an extended header that cannot be read")
        yield _text(key), _text(value[:-1])
        at += length


def _parse(header: bytes) -> tuple[bytes, str, int]:
    """Type, name and size of a header.

    Raises:
        ValueError: it is none.
    """
    expected = _number(header[148:156])
    # The sum of all bytes, with its own field taken as blanks; of old programs, of bytes with a sign.
    total = sum(header) - sum(header[148:156]) + 8 * 0x20
    negative = sum(byte > 127 for byte in header) - sum(byte > 127 for byte in header[148:156])
    if expected not in (total, total - 256 * negative):
        raise ValueError("a header whose checksum is wrong")
    size = _number(header[124:136])
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
        name = f"{prefix}/{name}"
    return header[156:157], name, size


def _number(field: bytes) -> int:
    """An octal number in ASCII; in base 256 if its first byte says so."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise ValueError("a header with a number that is none")
    return int(digits, 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _cut(path: Path, end: int, where: str) -> UserError:
    return UserError(f"the shard '{path}' is cut short: it ends at byte {end:,}, {where}: copy it again")


def _damaged(path: Path, at: int, what: str) -> UserError:
    if at == 0:
        return UserError(f"'{path}' is no tar, or a compressed one: give plain tars, as gzip -d makes them")
    return UserError(f"the shard '{path}' is damaged at byte {at:,} ({what}): copy it again")
