"""Zips that others made: every entry is read whole or refused in one line, and never unpacks to more than it may."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path

from rivals.base.errors import UserError

MOST_BYTES = 1 << 30  # of an unpacked image
MOST_RATIO = 200  # of its unpacked to its packed size, once it is larger than FREE_BYTES
FREE_BYTES = 1 << 25
_STEP = 1 << 16  # bytes read at a time, as an entry may be longer than its header says
# BZIP2 packs 45 MB into 40 bytes, and Python unpacks no less than 4,096 of them at once.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)
_ENCRYPTED = 0x1
# All that Python's zipfile raises for damaged archives. NotImplementedError, for unknown versions, is a RuntimeError.
_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError, OverflowError)


class EntryError(Exception):
    """An entry that cannot be read, and why."""


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip.

    Raises:
        UserError: it is no zip, is damaged, or cannot be read.
    """
    if not path.is_file():
        raise UserError(f"'{path}' is neither a folder nor a zip: give one, or a name")
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        if path.suffix.lower() == ".zip":
            raise UserError(f"'{path}' is cut short, or no zip: copy or download it again") from None
        raise UserError(f"'{path}' is neither a folder nor a zip: give one, or a name") from None
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror or error}: check it, or copy it again") from None
    except _ERRORS as error:
        raise UserError(f"'{path}' is damaged, or needs another program ({_text(error)}): make the zip anew") from None


def read_entry(archive: zipfile.ZipFile, name: str, most: int = MOST_BYTES) -> bytes:
    """The unpacked bytes of an entry.

    Args:
        archive: The zip.
        name: Of the entry.
        most: Largest size in bytes.

    Raises:
        EntryError: it is damaged, encrypted, packed by another method, or unpacks to more than it may.
        OSError: the disk cannot be read.
    """
    entry = archive.getinfo(name)
    if entry.flag_bits & _ENCRYPTED:
        raise EntryError("it is encrypted: make the zip without a password")
    if entry.compress_type not in _METHODS:
        raise EntryError(f"it is packed by method {entry.compress_type}: pack it by deflate")
    parts: list[bytes] = []
    size = 0
    try:
        with archive.open(entry) as file:
            while part := file.read(_STEP):
                parts.append(part)
                size += len(part)
                if size > most or size > max(FREE_BYTES, MOST_RATIO * entry.compress_size):
                    raise EntryError(f"it unpacks to more than {size:,} bytes, from {entry.compress_size:,}")
    except _ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of the zip
        raise EntryError(_text(error)) from None
    return b"".join(parts)


def _text(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())
