"""Folders, zips and arrays of images under one face: a list of names that can be opened one by one."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from PIL import Image

from rivals.base.errors import UserError
from rivals.base.files import state
from rivals.data.arrange import arrange
from rivals.data.imageset import Labels, Pixels

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class Listing:
    """Images that are not decoded yet.

    ``image(i)`` opens the i-th one, which is called ``names[i]``; it may be called from several threads.
    ``ready`` holds the pixels, uint8 (N, C, H, W), where they need no decoding; else ``identity`` says what is
    decoded: two listings of the same identity give the same pixels. A listing is a context manager, since it
    may hold a file open.
    """

    title: str
    names: list[str]
    labels: Labels | None
    classes: tuple[str, ...]
    identity: str
    image: Callable[[int], Image.Image]
    ready: Pixels | None = None
    close: Callable[[], None] = lambda: None

    def __enter__(self) -> Listing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def from_arrays(title: str, images: Pixels, labels: Labels | None = None, classes: tuple[str, ...] = ()) -> Listing:
    """A listing of pixels that are in memory: uint8 (N, C, H, W), C being 1 or 3."""

    def image(index: int) -> Image.Image:
        pixels = images[index]
        return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0).copy())

    names = [f"number {index}" for index in range(len(images))]
    return Listing(title, names, labels, classes, "", image, ready=images)


def from_path(path: Path, split: str = "train", only: Callable[[str], bool] = lambda name: True) -> Listing:
    """A listing of the images in a folder or a zip, in the order of their names.

    Images that lie directly in it have no classes; else the sub-folders are the classes, in the order of
    their names, and images that lie deeper belong to the uppermost one. A ``dataset.json`` at the top goes
    before that: ``{"labels": [[file, class], ...], "classes": [name, ...]}``, StyleGAN's convention; ``labels``
    may be null and ``classes`` absent. Sub-folders called ``train`` and ``test`` (or ``val``, ``valid``,
    ``validation``), if there are no others, are no classes but splits. Hidden files, and files that are no
    images by their suffix, are passed over. A folder of several sub-folders, or with a ``dataset.json``, that was
    zipped together with its own name counts as if it had been zipped without.

    Args:
        path: the folder or zip.
        split: the split; a source without splits has ``train`` only; ``all`` is everything.
        only: which of the names to keep.

    Raises:
        UserError: there is no such thing, it cannot be read, it is unsafe, it holds no images, its
            ``dataset.json`` does not describe it, or it has no such split.
    """
    if path.is_dir():
        return _from_folder(path, split, only)
    if not path.exists():
        raise UserError(f"there is no folder or zip '{path}': check the path")
    return _from_zip(path, split, only)


def _from_folder(path: Path, split: str, only: Callable[[str], bool]) -> Listing:
    title = f"'{path}'"
    images: list[str] = []
    others: list[str] = []
    for name in _walk(path):
        if _is_image(name) and only(name):
            images.append(name)
        else:
            others.append(name)
    if not images:
        raise _no_images(f"folder {title}", others)
    description = path / "dataset.json"
    try:
        described = description.read_bytes() if "dataset.json" in others else None
        names, labels, classes = arrange(title, {name: name for name in sorted(images)}, split, described)
    except OSError as error:
        raise UserError(f"cannot read '{error.filename}': {error.strerror}") from None
    # A link to nowhere is met again where it is read, and may be skipped there.
    content = [(name, *state(path / name)) for name in names]

    def image(index: int) -> Image.Image:
        return _opened((path / names[index]).read_bytes())

    return Listing(title, names, labels, classes, repr((str(path.resolve()), content)), image)


def _walk(path: Path) -> list[str]:
    """The files in a folder and, links followed, below it, as names within it; hidden ones left out."""

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read the folder '{error.filename}': {error.strerror}") from None

    found: list[str] = []
    seen: set[str] = set()
    for folder, below, files in os.walk(path, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link led back to where we have been
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        inside = Path(folder).relative_to(path)
        found += [(inside / name).as_posix() for name in files if not name.startswith(".")]
    return found


def _from_zip(path: Path, split: str, only: Callable[[str], bool]) -> Listing:
    title = f"'{path}'"
    try:
        stat = path.stat()
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        if path.suffix.lower() == ".zip":
            raise UserError(f"{title} is cut short, or no zip: copy or download it again") from None
        raise UserError(f"{title} is neither a folder nor a zip: give one, or a name") from None
    except OSError as error:
        raise UserError(f"cannot read {title}: {error.strerror}") from None
    try:
        entries = [name for name in archive.namelist() if not name.endswith("/")]
        for name in entries:
            top, *below = name.replace("\\", "/").split("/")
            if top in ("", "..") or ":" in top or ".." in below:
                raise UserError(f"{title} is not safe, its entry '{name}' points outside of it: make it again without")
        images = sorted(name for name in entries if _is_image(name) and only(name))
        if not images:
            raise _no_images(f"zip {title}", entries)
        wrapper = _wrapper(images, entries)
        description = f"{wrapper}dataset.json"
        names, labels, classes = arrange(
            title,
            {name: name[len(wrapper) :] for name in images},
            split,
            archive.read(description) if description in entries else None,
        )
    except BaseException as error:
        archive.close()
        if isinstance(error, zipfile.BadZipFile):
            raise UserError(f"{title} is damaged ({error}): copy or download it again") from None
        raise

    def image(index: int) -> Image.Image:
        return _opened(archive.read(names[index]))

    identity = repr((str(path.resolve()), stat.st_size, stat.st_mtime_ns, names))
    return Listing(title, names, labels, classes, identity, image, close=archive.close)


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise ValueError("the file is empty")
    return Image.open(io.BytesIO(content))


def _is_image(name: str) -> bool:
    hidden = "/." in f"/{name}" or name.startswith("__MACOSX/")
    return not hidden and name.lower().endswith(SUFFIXES)


def _no_images(where: str, others: list[str]) -> UserError:
    if not others:
        return UserError(f"the {where} is empty: put images into it, or into one sub-folder per class")
    kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
    return UserError(
        f"the {where} holds no images, though {len(others)} other files such as '{min(others)}': "
        f"put in images, of the kinds {kinds}"
    )


def _wrapper(images: list[str], entries: list[str]) -> str:
    """The one folder, with its slash, that a zip was made of; empty if it is not plainly such a zip."""
    top = images[0].partition("/")[0] + "/"
    if not all(name.startswith(top) for name in images):
        return ""
    folders = {name[len(top) :].rpartition("/")[0].partition("/")[0] for name in images}
    return top if f"{top}dataset.json" in entries or (len(folders) > 1 and "" not in folders) else ""
