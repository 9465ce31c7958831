"""Images of a source that are not decoded yet: what every reader returns."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from PIL import Image

from rivals.base.errors import UserError
from rivals.base.images import to_pil
from rivals.data.imageset import Labels, Pixels
from rivals.data.splits import top_folder

# Formats of Pillow's for whose pixels it needs another program, or has no decoder.
NOT_DECODED = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))


def _nothing(index: int) -> bytes:
    return b""


@dataclass(frozen=True)
class Listing:
    """Images that are not decoded yet. It is a context manager, since it may hold a file open.

    Attributes:
        title: Name of the source in messages.
        names: Names of the images.
        labels: Their classes, int64 (N,), or None.
        classes: Names of the classes.
        stamp: What the file system says of the files: as long as it is the same, so are they.
        newest: When the last of them changed, in nanoseconds since 1970.
        read: The content of the file of image i; thread-safe. Not called if there are ``pixels``.
        pixels: uint8 (N, C, H, W), if no decoding is needed.
        close: Closes the file.
        whole: Reads each image of the source, those of other splits too; empty if no decoding is needed.
        skipped: Names of files of the source that are left out, since they are not images.
        special: Names of links, FIFOs, sockets and devices, which are never opened.
    """

    title: str
    names: list[str]
    labels: Labels | None
    classes: tuple[str, ...]
    stamp: str = ""
    newest: int = 0
    read: Callable[[int], bytes] = _nothing
    pixels: Pixels | None = None
    close: Callable[[], None] = lambda: None
    whole: Sequence[Callable[[], bytes]] = ()
    skipped: Sequence[str] = ()
    special: Sequence[str] = ()

    def open_image(self, index: int) -> Image.Image:
        """Image ``index``, not decoded yet; thread-safe."""
        return opened(self.read(index)) if self.pixels is None else to_pil(self.pixels[index])

    def __enter__(self) -> Listing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def from_arrays(title: str, images: Pixels, labels: Labels | None = None, classes: tuple[str, ...] = ()) -> Listing:
    """List images in memory, uint8 (N, C, H, W) with C 1 or 3."""
    names = [f"number {index}" for index in range(len(images))]
    return Listing(title, names, labels, classes, pixels=images)


def opened(content: bytes) -> Image.Image:
    """The image in the content of a file, not decoded yet."""
    if not content:
        raise ValueError("the file is empty")
    return Image.open(io.BytesIO(content))


@functools.cache
def suffixes() -> tuple[str, ...]:
    """The suffixes of the image files that this Pillow can decode."""
    known = Image.registered_extensions().items()
    return tuple(sorted(suffix for suffix, kind in known if kind in Image.OPEN and kind not in NOT_DECODED))


def is_image(name: str) -> bool:
    """Whether a file is taken for an image by its name."""
    return not is_hidden(name) and name.lower().endswith(suffixes())


def is_hidden(name: str) -> bool:
    """Whether a file is left out without a note."""
    return "/." in f"/{name}" or name.startswith("__MACOSX/")


def skipped_files(others: Iterable[str], inner: dict[str, str], chosen: Iterable[str]) -> list[str]:
    """The files that are neither images nor hidden, without those of splits that are not chosen."""
    others = list(others)
    if not others:
        return []
    elsewhere = {top_folder(name) for name in inner.values()} - {top_folder(inner[name]) for name in chosen}
    skipped = (name for name in others if not is_hidden(name) and name != "dataset.json")
    return sorted(name for name in skipped if top_folder(name) not in elsewhere - {""})


def no_images(where: str, others: list[str]) -> UserError:
    """The refusal of a source without images."""
    if not others:
        return UserError(f"the {where} is empty: put images into it, or into one subfolder per class")
    return UserError(
        f"the {where} holds no images, though {len(others)} other files such as '{min(others)}': "
        "put in images that Pillow reads, as png, jpg, webp or tif"
    )
