"""Readers of folders, zips and shards: a :class:`Listing` of images that are opened one by one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Container
from functools import partial
from pathlib import Path

from rivals.base.errors import UserError
from rivals.base.files import stat_stamp
from rivals.base.typed_json import read_small_file
from rivals.data.archive import MOST_BYTES, EntryError, open_zip, read_entry
from rivals.data.listing import Listing, is_image, no_images, skipped_files
from rivals.data.shards import expand, from_shards, is_pattern
from rivals.data.splits import MOST_DESCRIPTION, select_split, wrapper_of

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")


def from_path(path: Path, split: str = "train", only: Callable[[str], bool] | None = None, title: str = "") -> Listing:
    """List the images in a folder or a zip, sorted by name.

    Images at the top have no classes; else the top-level subfolders are the classes, sorted by name, or by value if
    all are whole numbers. A ``dataset.json`` at the top takes precedence:
    ``{"labels": [[file, class], ...], "classes": [name, ...]}``, StyleGAN's convention, where ``labels`` may be null
    and ``classes`` absent. If all subfolders have names of splits (:func:`rivals.data.splits.split_of`), they are
    splits, not classes. Hidden files are ignored; files without the suffix of an image are left out and listed. A
    source with one top-level folder that holds several subfolders, splits or a ``dataset.json`` is read as if it were
    that folder; likewise a split with one folder that holds several.

    A folder without images that holds ``.tar`` files is a set of shards, sorted by name, and so is a single one or a
    pattern: :func:`rivals.data.shards.from_shards`.

    Args:
        path: The folder or zip, a tar, or a pattern as ``shards/{000..127}.tar``.
        split: A source without splits has only ``train``; ``all`` is everything.
        only: Filter of names.
        title: Name of the source in messages; by default its path.

    Raises:
        UserError: the path does not exist, cannot be read, is unsafe or holds no images; ``dataset.json`` does not
            match the files; or there is no such split.
    """
    title = title or f"'{path}'"
    if path.is_dir():
        return _from_folder(path, split, only, title)
    if not path.exists() and is_pattern(str(path)):
        return from_shards(title, [Path(each) for each in expand(str(path))], split, only)
    if not path.exists():
        raise UserError(f"there is no folder, zip or shard '{path}': check the path")
    if path.name.lower().endswith(COMPRESSED):
        raise UserError(f"'{path}' is a compressed tar: unpack it into a plain .tar, as gzip -d does, or into a folder")
    if path.suffix.lower() == ".tar":
        return from_shards(title, [path], split, only)
    return _from_zip(path, split, only, title)


def _from_folder(path: Path, split: str, only: Callable[[str], bool] | None, title: str) -> Listing:
    found, special = files_below(path)
    images = [name for name in found if is_image(name) and (only is None or only(name))]
    others = [name for name in found if not is_image(name)]
    shards = [name for name in others if name.lower().endswith(".tar")]
    if shards and not any(map(is_image, found)):
        beside = path / "dataset.json"
        try:
            described = read_small_file(beside, MOST_DESCRIPTION) if "dataset.json" in others else None
        except OSError as error:
            raise UserError(f"cannot read '{beside}': {error.strerror}") from None
        return from_shards(title, [path / name for name in shards], split, only, described, path)
    if not images:
        if compressed := next((name for name in others if name.lower().endswith(COMPRESSED)), None):
            raise UserError(
                f"the folder {title} holds no images but compressed tars such as '{compressed}': unpack them into "
                "plain .tar files, as gzip -d does"
            )
        raise no_images(f"folder {title}", others + special)
    wrapper = _wrapper(images, others)
    description = f"{wrapper}dataset.json"
    try:
        described = read_small_file(path / description, MOST_DESCRIPTION) if description in others else None
        inner = {name: name.removeprefix(wrapper) for name in sorted(images)}
        names, labels, classes = select_split(title, inner, split, described)
    except OSError as error:
        raise UserError(f"cannot read '{error.filename}': {error.strerror}") from None
    # A broken link is reported, or skipped, when it is decoded.
    stamps = [stat_stamp(path / name) for name in names]

    def read(name: str) -> bytes:
        return read_small_file(path / name, MOST_BYTES)

    skipped = skipped_files([name.removeprefix(wrapper) for name in others], inner, names)
    return Listing(
        title,
        names,
        labels,
        classes,
        stamp=repr((str(path.resolve()), names, stamps)),
        newest=max(max(each[1:3]) for each in stamps),
        read=lambda i: read(names[i]),
        whole=[partial(read, name) for name in inner],
        skipped=skipped,
        special=special,
    )


def files_below(path: Path) -> tuple[list[str], list[str]]:
    """Relative names of the files in and below a folder, following links, without hidden ones; sorted.

    Returns:
        Those of files and of broken links; and those of FIFOs, sockets and devices, which are not to be opened.

    Raises:
        UserError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read the folder '{error.filename}': {error.strerror}") from None

    found: list[str] = []
    above: dict[str, frozenset[str]] = {}  # the real places of the folders around each folder
    for folder, below, files in os.walk(path, onerror=refuse, followlinks=True):
        real, around = os.path.realpath(folder), above.pop(folder, frozenset())
        if real in around:  # a cycle of links
            below.clear()
            continue
        below[:] = sorted(name for name in below if not name.startswith("."))
        above |= dict.fromkeys((f"{folder}{os.sep}{name}" for name in below), around | {real})
        inside = Path(folder).relative_to(path)
        found += [(inside / name).as_posix() for name in files if not name.startswith(".")]
    special = sorted(name for name in found if _is_special(path / name))
    return sorted({*found} - {*special}), special


def _is_special(path: Path) -> bool:
    """Whether a path is a FIFO, a socket or a device, which would wait or never end when it is read."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # a broken link, among others: reported, or skipped, when it is decoded
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _from_zip(path: Path, split: str, only: Callable[[str], bool] | None, title: str) -> Listing:
    archive = open_zip(path)
    try:
        # Some programs of Windows write backslashes between folders.
        entries = {name.replace("\\", "/"): name for name in archive.namelist() if not name.endswith(("/", "\\"))}
        for name in entries:
            top, *below = name.split("/")
            if top in ("", "..") or ":" in top or ".." in below:
                raise UserError(f"{title} is not safe, its entry '{name}' points outside of it: make it again without")
        images = sorted(name for name in entries if is_image(name) and (only is None or only(name)))
        others = [name for name in entries if not is_image(name)]
        if not images:
            raise no_images(f"zip {title}", others)
        wrapper = _wrapper(images, entries)
        described = entries.get(f"{wrapper}dataset.json")
        inner = {name: name.removeprefix(wrapper) for name in images}
        content = read_entry(archive, described, MOST_DESCRIPTION) if described else None
        names, labels, classes = select_split(title, inner, split, content)
        skipped = skipped_files([name.removeprefix(wrapper) for name in others], inner, names)
    except BaseException as error:
        archive.close()
        if isinstance(error, EntryError):
            raise UserError(f"the dataset.json of {title} cannot be read: {error}: make the zip anew") from None
        raise

    def read(name: str) -> bytes:
        return read_entry(archive, entries[name])

    stamp = stat_stamp(path)
    return Listing(
        title,
        names,
        labels,
        classes,
        stamp=repr((str(path.resolve()), stamp, names)),
        newest=max(stamp[1:3]),
        read=lambda i: read(names[i]),
        close=archive.close,
        whole=[partial(read, name) for name in inner],
        skipped=skipped,
    )


def _wrapper(images: list[str], entries: Container[str]) -> str:
    """The folder, with a slash, that a source wraps (see :func:`from_path`); empty if there is none."""
    top = images[0].partition("/")[0] + "/"
    if f"{top}dataset.json" in entries and all(name.startswith(top) for name in images):
        return top
    return wrapper_of(images)
