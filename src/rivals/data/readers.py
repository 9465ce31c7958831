"""Readers of folders, zips and arrays: a :class:`Listing` of images that are opened one by one."""

from __future__ import annotations

import functools
import io
import os
import stat
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from PIL import Image

from rivals.base.errors import UserError
from rivals.base.files import stat_key
from rivals.base.images import to_pil
from rivals.base.typed_json import read_small_file
from rivals.data.archive import MOST_BYTES, EntryError, open_zip, read_entry
from rivals.data.imageset import Labels, Pixels
from rivals.data.splits import MOST_DESCRIPTION, select_split, top_folder, wrapper_of

# Formats of Pillow's for whose pixels it needs another program, or has no decoder.
NOT_DECODED = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))


@dataclass(frozen=True)
class Listing:
    """Images that are not decoded yet. It is a context manager, since it may hold a file open.

    Attributes:
        title: Name of the source in messages.
        names: Names of the images.
        labels: Their classes, int64 (N,), or None.
        classes: Names of the classes.
        identity: What is decoded: listings of the same identity have the same pixels.
        open_image: Opens image i; thread-safe.
        pixels: uint8 (N, C, H, W), if no decoding is needed.
        close: Closes the file.
        whole: Opens each image of the source, those of other splits too; empty if no decoding is needed.
        skipped: Names of files of the source that are left out, since they are not images.
        special: Names of FIFOs, sockets and devices, which are never opened.
    """

    title: str
    names: list[str]
    labels: Labels | None
    classes: tuple[str, ...]
    identity: str
    open_image: Callable[[int], Image.Image]
    pixels: Pixels | None = None
    close: Callable[[], None] = lambda: None
    whole: Sequence[Callable[[], Image.Image]] = ()
    skipped: Sequence[str] = ()
    special: Sequence[str] = ()

    def __enter__(self) -> Listing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def from_arrays(title: str, images: Pixels, labels: Labels | None = None, classes: tuple[str, ...] = ()) -> Listing:
    """List images in memory, uint8 (N, C, H, W) with C 1 or 3."""

    def open_image(index: int) -> Image.Image:
        return to_pil(images[index])

    names = [f"number {index}" for index in range(len(images))]
    return Listing(title, names, labels, classes, "", open_image, pixels=images)


def from_path(path: Path, split: str = "train", only: Callable[[str], bool] = lambda name: True) -> Listing:
    """List the images in a folder or a zip, sorted by name.

    Images at the top have no classes; else the top-level subfolders are the classes, sorted by name, or by value if
    all are whole numbers. A ``dataset.json`` at the top takes precedence:
    ``{"labels": [[file, class], ...], "classes": [name, ...]}``, StyleGAN's convention, where ``labels`` may be null
    and ``classes`` absent. If all subfolders have names of splits (:func:`rivals.data.splits.split_of`), they are
    splits, not classes. Hidden files are ignored; files without the suffix of an image are left out and listed. A
    source with one top-level folder that holds several subfolders, splits or a ``dataset.json`` is read as if it were
    that folder; likewise a split with one folder that holds several.

    Args:
        path: The folder or zip.
        split: A source without splits has only ``train``; ``all`` is everything.
        only: Filter of names.

    Raises:
        UserError: the path does not exist, cannot be read, is unsafe or holds no images; ``dataset.json`` does not
            match the files; or there is no such split.
    """
    if path.is_dir():
        return _from_folder(path, split, only)
    if not path.exists():
        raise UserError(f"there is no folder or zip '{path}': check the path")
    return _from_zip(path, split, only)


def _from_folder(path: Path, split: str, only: Callable[[str], bool]) -> Listing:
    title = f"'{path}'"
    found = _walk(path)
    special = [name for name in found if _is_special(path / name)]
    found = sorted({*found} - {*special})
    images = [name for name in found if _is_image(name) and only(name)]
    others = [name for name in found if not _is_image(name)]
    if not images:
        raise _no_images(f"folder {title}", others + special)
    wrapper = _wrapper(images, others)
    description = f"{wrapper}dataset.json"
    try:
        described = read_small_file(path / description, MOST_DESCRIPTION) if description in others else None
        inner = {name: name.removeprefix(wrapper) for name in sorted(images)}
        names, labels, classes = select_split(title, inner, split, described)
    except OSError as error:
        raise UserError(f"cannot read '{error.filename}': {error.strerror}") from None
    # A broken link is reported, or skipped, when it is decoded.
    content = [(name, *stat_key(path / name)) for name in names]

    def open_file(name: str) -> Image.Image:
        return _opened(read_small_file(path / name, MOST_BYTES))

    skipped = _skipped([name.removeprefix(wrapper) for name in others], inner, names)
    identity, whole = repr((str(path.resolve()), content)), [partial(open_file, name) for name in inner]
    return Listing(
        title,
        names,
        labels,
        classes,
        identity,
        lambda i: open_file(names[i]),
        whole=whole,
        skipped=skipped,
        special=special,
    )


def _walk(path: Path) -> list[str]:
    """Relative names of all files in and below a folder, following links, without hidden ones."""

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read the folder '{error.filename}': {error.strerror}") from None

    found: list[str] = []
    seen: set[str] = set()
    for folder, below, files in os.walk(path, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a cycle of links
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        inside = Path(folder).relative_to(path)
        found += [(inside / name).as_posix() for name in files if not name.startswith(".")]
    return found


def _is_special(path: Path) -> bool:
    """Whether a path is a FIFO, a socket or a device, which would wait or never end when it is read."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # a broken link, among others: reported, or skipped, when it is decoded
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _from_zip(path: Path, split: str, only: Callable[[str], bool]) -> Listing:
    title = f"'{path}'"
    archive = open_zip(path)
    try:
        # Some programs of Windows write backslashes between folders.
        entries = {name.replace("\\", "/"): name for name in archive.namelist() if not name.endswith(("/", "\\"))}
        for name in entries:
            top, *below = name.split("/")
            if top in ("", "..") or ":" in top or ".." in below:
                raise UserError(f"{title} is not safe, its entry '{name}' points outside of it: make it again without")
        images = sorted(name for name in entries if _is_image(name) and only(name))
        others = [name for name in entries if not _is_image(name)]
        if not images:
            raise _no_images(f"zip {title}", others)
        wrapper = _wrapper(images, entries)
        described = entries.get(f"{wrapper}dataset.json")
        inner = {name: name.removeprefix(wrapper) for name in images}
        content = read_entry(archive, described, MOST_DESCRIPTION) if described else None
        names, labels, classes = select_split(title, inner, split, content)
        skipped = _skipped([name.removeprefix(wrapper) for name in others], inner, names)
    except BaseException as error:
        archive.close()
        if isinstance(error, EntryError):
            raise UserError(f"the dataset.json of {title} cannot be read: {error}: make the zip anew") from None
        raise

    def open_file(name: str) -> Image.Image:
        return _opened(read_entry(archive, entries[name]))

    identity = repr((str(path.resolve()), *stat_key(path), names))
    whole = [partial(open_file, name) for name in inner]
    return Listing(
        title,
        names,
        labels,
        classes,
        identity,
        lambda i: open_file(names[i]),
        close=archive.close,
        whole=whole,
        skipped=skipped,
    )


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise ValueError("the file is empty")
    return Image.open(io.BytesIO(content))


@functools.cache
def suffixes() -> tuple[str, ...]:
    """The suffixes of the image files that this Pillow can decode."""
    known = Image.registered_extensions().items()
    return tuple(sorted(suffix for suffix, kind in known if kind in Image.OPEN and kind not in NOT_DECODED))


def _is_image(name: str) -> bool:
    return not _is_hidden(name) and name.lower().endswith(suffixes())


def _is_hidden(name: str) -> bool:
    return "/." in f"/{name}" or name.startswith("__MACOSX/")


def _skipped(others: Iterable[str], inner: dict[str, str], chosen: Iterable[str]) -> list[str]:
    """The files that are neither images nor hidden, without those of splits that are not chosen."""
    elsewhere = {top_folder(name) for name in inner.values()} - {top_folder(inner[name]) for name in chosen}
    skipped = (name for name in others if not _is_hidden(name) and name != "dataset.json")
    return sorted(name for name in skipped if top_folder(name) not in elsewhere - {""})


def _no_images(where: str, others: list[str]) -> UserError:
    if not others:
        return UserError(f"the {where} is empty: put images into it, or into one subfolder per class")
    return UserError(
        f"the {where} holds no images, though {len(others)} other files such as '{min(others)}': "
        "put in images that Pillow reads, as png, jpg, webp or tif"
    )


def _wrapper(images: list[str], entries: Container[str]) -> str:
    """The folder, with a slash, that a source wraps (see :func:`from_path`); empty if there is none."""
    top = images[0].partition("/")[0] + "/"
    if f"{top}dataset.json" in entries and all(name.startswith(top) for name in images):
        return top
    return wrapper_of(images)
