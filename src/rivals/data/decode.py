"""Decode image files of any mode, orientation and bit depth into uint8 arrays of one size, in several threads."""

from __future__ import annotations

import contextlib
import errno
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from rivals.base.errors import UserError
from rivals.base.size import LARGEST, SMALLEST, Size, cropped, resizing
from rivals.data.imageset import Pixels
from rivals.data.listing import Listing
from rivals.data.parallel import parallel_map
from rivals.data.pixel_modes import AboveWhiteError, Peak, to_chw, to_standard_mode, white_of

SQUARE = Size(1, 1)
MOST_PIXELS = 250_000_000  # of one image: above the 200 megapixels of phones
LARGE_PIXELS = 1 << 25  # of an image that is decoded alone, as each takes 100 MB or more
_CHUNK = 32  # images per task: enough to hide the overhead of threads, few enough for large images

_one_large = threading.Lock()


# Of a disk, a network or a process, not of a file: they may pass.
_PASSING = {
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "ENETDOWN", "ECONNRESET", "EMFILE", "ENFILE", "ENOMEM")
    if hasattr(errno, name)
}


class ReadFailed(UserError):
    """A file could not be read for a reason that may pass."""


class UnreadableImage(NamedTuple):
    """An image that cannot be read: its position in the listing, and why."""

    position: int
    reason: str


class Chunk(NamedTuple):
    """Consecutive images, uint8 (n, C, H, W), and the unreadable ones among them.

    ``peak`` is the largest value of the listing's gray images of more than 8 bits, or 0 if none has come up.
    """

    pixels: Pixels
    bad: list[UnreadableImage]
    peak: int = 0


class Done(NamedTuple):
    """What an earlier process has decoded of a listing: its first images.

    Attributes:
        images: Their number, with those that cannot be read.
        first: Position of the first that can be read, None if none can.
        size: Size of that, None without one.
        peak: As of :class:`Chunk`.
    """

    images: int = 0
    first: int | None = None
    size: Size | None = None
    peak: int = 0


def to_channels(pixels: Pixels, channels: int) -> Pixels:
    """Images (n, C, H, W) with more channels: gray is repeated, and a new alpha is opaque."""
    if pixels.shape[1] == 1 and channels > 1:
        pixels = np.repeat(pixels, 3, axis=1)
    if pixels.shape[1] == 3 and channels == 4:
        pixels = np.concatenate([pixels, np.full_like(pixels[:, :1], 255)], axis=1)
    return pixels


class _Limits:
    """Pillow's settings while images are decoded; those of the process come back after the last of several threads."""

    def __init__(self) -> None:
        self.lock, self.users, self.before = threading.Lock(), 0, contextlib.ExitStack()

    def enter(self) -> None:
        with self.lock:
            if not self.users:
                self.before.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                self.before.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
                Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow warns above it, and refuses above its double
            self.users += 1

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.before.close()


_limits = _Limits()


@contextlib.contextmanager
def strict_limits() -> Iterator[None]:
    """Ignore Pillow's warnings, and refuse images of more than ``MOST_PIXELS`` by their header."""
    _limits.enter()
    try:
        yield
    finally:
        _limits.leave()


_NOTHING = Done()


def decode(
    listing: Listing, *, size: Size | None, crop: bool, skip_bad: bool, white: int | None = None, done: Done = _NOTHING
) -> Iterator[Chunk]:
    """Decode a listing in order; each chunk has the largest number of channels of its images.

    Alpha is kept if a pixel is not opaque; a palette image is gray if all its pixels are.

    Args:
        listing: The images.
        size: What to resize to, by Pillow's antialiased Lanczos filter; None keeps the size, which must be the same for
            all images.
        crop: Crop images of other proportions than ``size`` around their center; without a size, to squares.
        skip_bad: Skip unreadable images.
        white: The value of white in gray images of more than 8 bits; by their largest value if None.
        done: The images before those to decode.

    Raises:
        ReadFailed: a file cannot be read for a reason that may pass.
        UserError: an image cannot be read and ``skip_bad`` is false, or none of them can; an image has other
            proportions than ``size`` and ``crop`` is false; one holds a value above ``white``; or, without ``size``,
            the images have several sizes or one out of bounds.
    """

    peak = Peak(listing, white)
    peak.value = done.peak

    def work(indices: range) -> list[tuple[int, Pixels | UnreadableImage]]:
        return [(index, _decode_one(listing, index, size, crop, peak)) for index in indices]

    count = len(listing.names)
    first = None if done.first is None or done.size is None else (listing.names[done.first], done.size)
    bad: UnreadableImage | None = None
    for results in parallel_map(work, (range(at, min(at + _CHUNK, count)) for at in range(done.images, count, _CHUNK))):
        chunk = Chunk(np.empty(0, np.uint8), [])
        images: list[Pixels] = []
        for index, result in results:
            name = listing.names[index]
            if isinstance(result, UnreadableImage):
                if not skip_bad:
                    raise UserError(
                        f"cannot read the image '{name}' of {listing.title} ({result.reason}): "
                        "replace or remove it, or leave such images out with --skip-bad"
                    )
                bad = bad or result
                chunk.bad.append(result)
                continue
            own = Size(*result.shape[1:])
            if first is None:
                first = name, own
                _check_own_size(listing, own)
            if own != first[1]:
                cut = " when cut to squares" if crop else ""
                least = _within_limits(min(own, first[1], key=lambda each: each.area))
                raise UserError(
                    f"the images of {listing.title} differ in size{cut} "
                    f"('{first[0]}' is {_shown(first[1])}, '{name}' is {_shown(own)}): choose one with --size, as in "
                    f"{resizing(least, own, first[1])}"
                )
            images.append(result)
        if images:
            channels = max(len(image) for image in images)
            chunk = chunk._replace(pixels=np.concatenate([to_channels(image[None], channels) for image in images]))
        yield chunk._replace(peak=peak.value)
    if first is None and bad is not None:
        raise UserError(
            f"none of the {count} images of {listing.title} can be read "
            f"('{listing.names[bad.position]}': {bad.reason}): check where they come from"
        )


def _check_own_size(listing: Listing, size: Size) -> None:
    if not size.is_usable:
        raise UserError(
            f"the images of {listing.title} are {_shown(size)}, and sides of {SMALLEST} to {LARGEST} can be used: "
            f"resize them with --size, as in {resizing(_within_limits(size), size)}"
        )


def _within_limits(size: Size) -> Size:
    """The nearest size of the same proportions that can be used, as far as there is one."""
    factor = min(max(1.0, SMALLEST / size.shorter), LARGEST / size.longer)
    return Size(*(max(SMALLEST, round(factor * side)) for side in size))


def _shown(size: Size) -> str:
    return f"{size.width} x {size.height}"


def _decode_one(listing: Listing, index: int, size: Size | None, crop: bool, peak: Peak) -> Pixels | UnreadableImage:
    """One image as uint8 (C, H, W), or why it cannot be read."""
    try:
        image = listing.open_image(index)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _PASSING:
            raise ReadFailed(
                f"cannot read '{listing.names[index]}' of {listing.title} ({error.strerror}), which may pass: check "
                "the disk or the network, and run the command again, which goes on from here"
            ) from None
        return UnreadableImage(index, _reason(error))
    if image.width * image.height <= LARGE_PIXELS:
        return _standard(listing, index, image, size, crop, peak)
    whole = _upright(image)
    if size is not None:
        # JPEG decodes at 1/2, 1/4 or 1/8 of the size; four times the target leaves enough for the Lanczos filter.
        image.draft(None, (4 * size.width, 4 * size.height))
    with _one_large:
        return _standard(listing, index, image, size, crop, peak, whole)


def _upright(image: Image.Image) -> Size:
    """The size of the picture, which a camera may have turned by a quarter."""
    turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return Size(image.width, image.height) if turned else Size(image.height, image.width)


def _standard(
    listing: Listing,
    index: int,
    image: Image.Image,
    size: Size | None,
    crop: bool,
    peak: Peak,
    whole: Size | None = None,
) -> Pixels | UnreadableImage:
    """As :func:`_decode_one`, of an opened image; ``whole`` is its size, where it is decoded at a smaller one."""
    try:
        image = to_standard_mode(image, peak)
    except AboveWhiteError as error:
        raise UserError(
            f"the image '{listing.names[index]}' of {listing.title} holds values up to {error.brightest:,}, above "
            f"{peak.given:,}, the white level of the training images or of --white: scale the values to that range, or "
            f"train and evaluate with --white {white_of(error.brightest)}"
        ) from None
    except Exception as error:
        return UnreadableImage(index, _reason(error))
    own = kept = Size(image.height, image.width)
    whole = whole or own
    if (size or crop) and cropped(whole, size or SQUARE) != whole:
        if not crop:
            assert size is not None
            what = "not square" if size.is_square else f"which are not the proportions of {_shown(size)}"
            raise UserError(
                f"the image '{listing.names[index]}' of {listing.title} is {_shown(whole)}, {what}: cut out the center "
                "of such images with --crop"
            )
        kept = cropped(own, size or SQUARE)
        left, top = (own.width - kept.width) // 2, (own.height - kept.height) // 2
        image = image.crop((left, top, left + kept.width, top + kept.height))
    if size is not None and kept != size:
        image = image.resize((size.width, size.height), Image.Resampling.LANCZOS)
    return to_chw(image)


def _reason(error: Exception) -> str:
    """Why an image cannot be read. Damaged files make decoders raise nearly any exception."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image, despite its name"
    reason = isinstance(error, OSError) and error.strerror
    return " ".join((reason or str(error) or type(error).__name__).split())
