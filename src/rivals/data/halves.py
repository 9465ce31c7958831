"""Images that hold two side by side, as pix2pix's data sets do: a listing of their left or right halves."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from functools import partial
from typing import Literal

from PIL import ImageOps

from rivals.base.errors import UserError
from rivals.data.listing import Listing, opened
from rivals.data.pixel_modes import load_stored

Half = Literal["left", "right"]


def half_of(listing: Listing, half: Half) -> Listing:
    """The listing of one half of each image.

    Raises:
        UserError: the images are not in files.
    """
    if listing.pixels is not None:
        raise UserError(f"{listing.title} has no images side by side: name a folder or a zip of such")

    def read(index: int) -> bytes:
        return _cut(lambda: listing.read(index), half)

    return dataclasses.replace(
        listing,
        title=f"the {half} halves of {listing.title}",
        stamp=repr((listing.stamp, half)),
        read=read,
        whole=[partial(_cut, each, half) for each in listing.whole],
    )


def _cut(read: Callable[[], bytes], half: Half) -> bytes:
    """One half of the image in a file, as a PNG.

    Raises:
        ValueError: it is not twice as wide as high, or its mode is none that a PNG can have.
    """
    image = opened(read())
    load_stored(image)
    ImageOps.exif_transpose(image, in_place=True)
    width, height = image.size
    if width != 2 * height:
        raise ValueError(f"it is {width} x {height}, and two squares side by side are twice as wide as high")
    left = 0 if half == "left" else height
    part = image.crop((left, 0, left + height, height))
    if part.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        part = part.convert("RGB")
    file = io.BytesIO()
    part.save(file, "PNG", compress_level=1)
    return file.getvalue()
