"""Image files to pixels: any mode, orientation or bit depth becomes uint8 squares, in several threads."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rivals.base.errors import UserError
from rivals.data.imageset import Pixels
from rivals.data.sources import Listing

SMALLEST, LARGEST = 8, 1024
_CHUNK = 32  # images a task: enough to hide the cost of handing over, few enough for large images

A = TypeVar("A")
B = TypeVar("B")


class Bad(NamedTuple):
    """An image that cannot be read: its place in the listing, and why."""

    place: int
    reason: str


class Chunk(NamedTuple):
    """Some images in a row, uint8 (n, C, S, S), and those that had to be left out among them."""

    pixels: Pixels
    bad: list[Bad]


def check_size(size: int | None) -> None:
    """Refuse a size that no network here is made for.

    Raises:
        UserError: it is below 8 or above 1024.
    """
    if size is not None and not SMALLEST <= size <= LARGEST:
        what = "small" if size < SMALLEST else "large"
        raise UserError(f"--size {size} is too {what}: take a number of pixels from {SMALLEST} to {LARGEST}")


def promote(pixels: Pixels, channels: int) -> Pixels:
    """Images (n, C, H, W) as such with more channels: grey is repeated, a new alpha is opaque."""
    if pixels.shape[1] == 1 and channels > 1:
        pixels = np.repeat(pixels, 3, axis=1)
    if pixels.shape[1] == 3 and channels == 4:
        pixels = np.concatenate([pixels, np.full_like(pixels[:, :1], 255)], axis=1)
    return pixels


def in_order(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """``map`` in a few threads that run only a little ahead of the consumer, so that memory stays bounded."""
    workers = min(8, os.cpu_count() or 1)
    pending: deque[Future[B]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def strict_limits() -> Iterator[None]:
    """Silence Pillow's remarks, but for the one on images of suspiciously many pixels: make that an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(listing: Listing, *, size: int | None, crop: bool, skip_bad: bool) -> Iterator[Chunk]:
    """The pixels of a listing, in order, each chunk with the channels of its richest image.

    Alpha counts if a pixel of the outcome is not opaque; a palette image is grey if all its pixels are.

    Args:
        listing: the images.
        size: height and width to resize to, by Pillow's Lanczos filter, which averages when it shrinks; None
            leaves the images as they are, and then they must all be of one size.
        crop: cut the largest square out of the centre of images that are not square.
        skip_bad: leave out images that cannot be read.

    Raises:
        UserError: an image cannot be read and ``skip_bad`` is false, or none of them can; an image is no
            square and ``crop`` is false; the images are of several sizes, or of one out of bounds, and
            ``size`` is None.
    """

    def work(indices: range) -> list[tuple[int, Pixels | Bad]]:
        return [(index, _one(listing, index, size, crop)) for index in indices]

    count = len(listing.names)
    first: tuple[str, int] | None = None
    bad: Bad | None = None
    for results in in_order(work, (range(at, min(at + _CHUNK, count)) for at in range(0, count, _CHUNK))):
        chunk = Chunk(np.empty(0, np.uint8), [])
        images: list[Pixels] = []
        for index, result in results:
            name = listing.names[index]
            if isinstance(result, Bad):
                if not skip_bad:
                    raise UserError(
                        f"cannot read the image '{name}' of {listing.title} ({result.reason}): "
                        "replace or remove it, or leave such images out with --skip-bad"
                    )
                bad = bad or result
                chunk.bad.append(result)
                continue
            side = result.shape[-1]
            if first is None:
                first = name, side
                _check_side(listing, side)
            if side != first[1]:
                cut = " when cut to squares" if crop else ""
                raise UserError(
                    f"the images of {listing.title} differ in size{cut} "
                    f"('{first[0]}' is {first[1]} x {first[1]}, '{name}' is {side} x {side}): "
                    f"choose one with --size, as in --size {min(side, first[1])}"
                )
            images.append(result)
        if images:
            channels = max(len(image) for image in images)
            chunk = chunk._replace(pixels=np.concatenate([promote(image[None], channels) for image in images]))
        yield chunk
    if first is None and bad is not None:
        raise UserError(
            f"none of the {count} images of {listing.title} can be read "
            f"('{listing.names[bad.place]}': {bad.reason}): check where they come from"
        )


def _check_side(listing: Listing, side: int) -> None:
    if not SMALLEST <= side <= LARGEST:
        raise UserError(
            f"the images of {listing.title} are {side} x {side}, and a side of {SMALLEST} to {LARGEST} can be used: "
            f"resize them with --size, as in --size {min(max(side, SMALLEST), LARGEST)}"
        )


def _one(listing: Listing, index: int, size: int | None, crop: bool) -> Pixels | Bad:
    """One image as uint8 (C, S, S), or why it cannot be read."""
    try:
        image = _plain(listing.image(index))
    except UnidentifiedImageError:
        return Bad(index, "not an image, whatever its name says")
    # Foreign bytes make decoders raise nearly anything there is; all of it means the same to us.
    except Exception as error:
        reason = isinstance(error, OSError) and error.strerror
        return Bad(index, " ".join((reason or str(error) or type(error).__name__).split()))
    width, height = image.size
    if width != height:
        if not crop:
            raise UserError(
                f"the image '{listing.names[index]}' of {listing.title} is {width} x {height}, not square: "
                "cut out the centre of such images with --crop"
            )
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if size is not None and image.width != size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return _planes(image)


def _plain(image: Image.Image) -> Image.Image:
    """The first frame, upright, as L, LA, RGB or RGBA."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    mode, alpha = image.mode, "transparency" in image.info
    if mode in ("RGB", "L") and not alpha:
        return image
    if mode == "F":
        values = np.asarray(image)
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError("floating-point values outside [0, 1]")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if mode == "I" or mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # the nearest of 0, 257, ... 65535
        if not alpha:
            return grey
        opaque = Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8))
        return Image.merge("LA", (grey, opaque))
    if mode in ("1", "L", "LA", "La"):
        return image.convert("LA" if alpha or mode != "1" else "L")
    image = image.convert("RGBA" if alpha or mode in ("PA", "RGBA", "RGBa") else "RGB")
    if mode in ("P", "PA"):
        values = np.asarray(image)
        if (values[..., :1] == values[..., 1:3]).all():
            return image.convert("LA" if image.mode == "RGBA" else "L")
    return image


def _planes(image: Image.Image) -> Pixels:
    """L, LA, RGB or RGBA as (C, H, W), without an alpha that is opaque everywhere."""
    pixels: Pixels = np.asarray(image)
    if pixels.ndim == 2:
        return pixels[None]
    pixels = pixels.transpose(2, 0, 1)
    if len(pixels) == 3:
        return pixels
    if (pixels[-1] == 255).all():
        return pixels[:-1]
    return pixels if len(pixels) == 4 else pixels[[0, 0, 0, 1]]
