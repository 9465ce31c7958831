"""Sources in object stores: copied into the cache once, then read from there.

Any store for which fsspec has a file system: ``s3://``, ``gs://``, ``az://``, ``hf://``, ``https://``, ``file://``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from rivals.base.errors import UserError
from rivals.base.files import explain_os_errors, make_folder
from rivals.base.hashing import key_hash
from rivals.data.cache_folder import cache_folder, exclusive
from rivals.data.listing import is_image
from rivals.data.parallel import parallel_map
from rivals.data.progress_notes import ProgressNotes
from rivals.data.shards import expand, is_pattern

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_FRESH_SECONDS = 10.0  # for which a store is not asked again whether anything has changed: a command lists a set often
# What stores say of a file that changes with its content; S3, GCS, Azure, Hugging Face, HTTP, local.
_VERSION = (
    *("ETag", "etag", "md5Hash", "content_md5", "generation", "LastModified", "last_modified", "mtime", "updated"),
    *("blob_id", "xet_hash", "lfs", "Last-Modified", "Content-MD5", "Digest", "created"),
)
_RESERVE = 1 << 28  # bytes of the disk that are left free

Note = Callable[[str], None]

_asked: dict[tuple[Path, str], float] = {}


@dataclass(frozen=True)
class _Object:
    """A file in a store.

    Attributes:
        path: There.
        name: In the copy.
        size: In bytes; None if the store does not tell it.
        version: What changes with its content; empty if nothing does.
    """

    path: str
    name: str
    size: int | None
    version: str


def is_url(source: object) -> bool:
    """Whether a source is in a store."""
    return isinstance(source, str) and bool(_URL.match(source))


def _bare(url: str) -> str:
    """An address without its query, which may be a signature."""
    return url.partition("?")[0] if url.startswith(("http://", "https://")) else url


def url_name(url: str) -> str:
    """How such a source is called for short."""
    path = PurePosixPath(_URL.sub("", _bare(url)).strip("/"))
    name = re.sub(r"\{[^{}]*\}", "", path.stem if path.suffix.lower() in (".tar", ".zip") else path.name).strip("-_.")
    return name or path.parent.name or "data"


def local_copy(url: str, on_note: Note) -> list[Path]:
    """Where the copy of a source is: the folder, the zip or the shards.

    Only what is new or has changed is copied, so a copying that was stopped goes on where it was. Of several processes
    of a machine, one copies.

    Raises:
        UserError: a package is missing, the store cannot be read, has no such files, or the disk is too small for them.
    """
    folder = cache_folder() / "remote" / key_hash(url)
    with _explained(url):
        system, path = _open_store(url)
        names = expand(path) if is_pattern(path) else None
        if time.monotonic() - _asked.get((folder, url), -_FRESH_SECONDS) >= _FRESH_SECONDS:
            system.invalidate_cache()  # of listings, in a process that lives for long
            objects = list(_objects(system, path, names))
            if not objects:
                raise UserError(f"there are no images, shards or zip at '{url}': check the address")
            with explain_os_errors(folder), exclusive(cache_folder() / "locks", folder.name):
                _copy(system, url, objects, folder, on_note)
            _asked[folder, url] = time.monotonic()
    if names is not None:
        root = _root(path)
        return [folder / "files" / name.removeprefix(root) for name in names]
    single = folder / "files" / PurePosixPath(_bare(path)).name
    return [single if single.is_file() else folder / "files"]


def _open_store(url: str) -> tuple[Any, str]:
    """The file system of a store, and the path in it."""
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations
    except ImportError:
        raise UserError(f"to read '{url}' needs fsspec: pip install 'rivals[stores]'") from None
    protocol = url.partition("://")[0].lower()
    try:
        system, path = url_to_fs(url)
    except ImportError:
        package = str(known_implementations.get(protocol, {}).get("class", protocol)).partition(".")[0]
        fix = "'rivals[stores]'" if package == "s3fs" else package
        raise UserError(f"to read '{url}' needs {package}, which is missing: pip install {fix}") from None
    except ValueError:
        raise UserError(
            f"'{protocol}://' is no known kind of store: take s3://, gs://, az://, hf:// or https://"
        ) from None
    return system, str(path)


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    """Say in one line what a store says. The packages behind fsspec raise errors of their own, of any type."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"'{url}' is not there ({_text(error)}): check the address") from None
    except Exception as error:
        raise UserError(
            f"cannot read '{url}' ({type(error).__name__}: {_text(error)}): check the address, the network and the "
            "credentials"
        ) from None


def _text(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _root(pattern: str) -> str:
    """The folder, with a slash, that all names of a pattern share."""
    return pattern[: pattern.index("{")].rpartition("/")[0] + "/"


def _objects(system: Any, path: str, names: Sequence[str] | None) -> Iterator[_Object]:
    """The files of a source that are of use: those of a pattern, the file itself, or what is below the folder."""
    if names is not None:
        root = _root(path)
        for name in names:
            yield _object(system.info(name), name, name.removeprefix(root))
    elif system.isfile(path):
        yield _object(system.info(path), path, PurePosixPath(_bare(path)).name)
    else:
        root = path.rstrip("/") + "/"
        for found, info in sorted(system.find(path, detail=True).items()):
            name = found.removeprefix(root)
            if is_image(name) or name.lower().endswith(".tar") or PurePosixPath(name).name == "dataset.json":
                yield _object(info, found, name)


def _object(info: dict[str, Any], path: str, name: str) -> _Object:
    if ".." in PurePosixPath(name).parts or name.startswith("/") or "\0" in name:
        raise UserError(f"the name '{path}' in the store points out of its folder: rename it")
    known = {key: str(info[key]) for key in _VERSION if info.get(key) is not None}
    size = info.get("size")
    return _Object(path, name, None if size is None else int(size), repr(sorted(known.items())) if known else "")


def _copy(system: Any, url: str, objects: Sequence[_Object], folder: Path, on_note: Note) -> None:
    """Copy what is new or has changed; drop what is gone. A line in ``copied.jsonl`` follows each finished file."""
    files, journal = folder / "files", folder / "copied.jsonl"
    make_folder(files, parents=True)
    (folder / "about.json").write_text(json.dumps({"title": _bare(url)}))
    copied = dict(_read_journal(journal))
    current = {each.name for each in objects}
    for old in [path for path in files.rglob("*") if path.is_file()]:
        if old.relative_to(files).as_posix() not in current:
            old.unlink()
    missing = [each for each in objects if copied.get(each.name) != each.version or not _is_whole(files, each)]
    if not all(each.version for each in objects):
        on_note(f"'{_bare(url)}' does not tell when its files change: their copies are compared by size alone")
    total, done = sum(each.size or 0 for each in missing), 0
    if total > (free := shutil.disk_usage(folder).free - _RESERVE):
        raise UserError(
            f"'{url}' has {total / 1e9:.1f} GB to copy, and {max(free, 0) / 1e9:.1f} GB are free in {cache_folder()}: "
            "make room, or choose another place with --cache"
        )
    notes = ProgressNotes(on_note, f"copied {{done}} of {total // 1_000_000:,} MB of '{url}'", total // 1_000_000)
    with journal.open("a") as lines:
        for each in parallel_map(partial(_copy_one, system, files), missing):
            lines.write(json.dumps([each.name, each.version]) + "\n")
            lines.flush()
            done += each.size or 0
            notes.show(done // 1_000_000)
    os.utime(folder)


def _copy_one(system: Any, files: Path, each: _Object) -> _Object:
    dest = files / each.name
    dest.parent.mkdir(parents=True, exist_ok=True)
    part = dest.with_name(f".{dest.name}.part")
    system.get_file(each.path, str(part))
    if each.size is not None and part.stat().st_size != each.size:
        raise OSError(f"'{each.path}' has {part.stat().st_size:,} bytes instead of {each.size:,}")
    part.replace(dest)
    return each


def _is_whole(files: Path, each: _Object) -> bool:
    with contextlib.suppress(OSError):
        return (files / each.name).stat().st_size == each.size or each.size is None
    return False


def _read_journal(journal: Path) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(OSError):
        for line in journal.read_text().splitlines():
            with contextlib.suppress(ValueError):  # half a line, of a copying that was killed
                name, version = json.loads(line)
                yield str(name), str(version)
