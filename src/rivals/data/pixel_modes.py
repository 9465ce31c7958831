"""Images of any mode, orientation and bit depth as 8-bit gray or color."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from rivals.data.imageset import Pixels
from rivals.data.listing import Listing, opened

UPPER = 16  # values of the upper 8 of 16 bits that an image of 12 bits does not exceed


def bits_of(peak: int) -> int:
    """The usual number of bits per pixel whose values reach ``peak``, such as 12 for 3,000."""
    return next(bits for bits in (8, 10, 12, 14, 16, 24, 32) if peak < 2**bits)


def white_of(peak: int) -> int:
    """The value of white in that many bits."""
    return int(2 ** bits_of(peak) - 1)


class AboveWhiteError(Exception):
    """An image holds a value above the white level that was given."""

    def __init__(self, brightest: int) -> None:
        super().__init__(brightest)
        self.brightest = brightest


class Peak:
    """The largest value of a source's gray images of more than 8 bits, found when the first of them comes up.

    Cameras and scanners store 10 to 14 bits in files of 16. One scale for all images, also those of other splits, keeps
    their brightness comparable. If ``white`` is given, it is the scale, and ``value`` the largest of the images so far.
    """

    def __init__(self, listing: Listing, white: int | None = None) -> None:
        self.listing, self.given, self.value, self.lock = listing, white, 0, threading.Lock()

    def white(self, brightest: int) -> int:
        """The value of white for an image with this largest value.

        Raises:
            AboveWhiteError: it is above the white that was given.
        """
        if self.given is None:
            return white_of(max(self.find(), brightest))
        with self.lock:
            self.value = max(self.value, brightest, 1)
        if brightest > self.given:
            raise AboveWhiteError(brightest)
        return self.given

    def find(self) -> int:
        """The value; the first call opens all images of the source."""
        with self.lock:
            if not self.value:
                self.value = max(1, self._scan())
            return self.value

    def _scan(self) -> int:
        peak = 0
        for read in self.listing.whole:
            with contextlib.suppress(Exception):  # what cannot be read is reported when it is decoded
                image = opened(read())
                if _is_deep(image):
                    peak = max(peak, int(np.asarray(image).max()))
            if 2**15 <= peak < 2**16:
                break  # 16 bits, whatever the others hold
        return peak


def _is_deep(image: Image.Image) -> bool:
    """Whether an image is gray with more than 8 bits."""
    return image.mode == "I" or image.mode.startswith("I;16")


def to_standard_mode(image: Image.Image, peak: Peak) -> Image.Image:
    """The first frame, upright, as L, LA, RGB or RGBA.

    Raises:
        ValueError: it cannot be had without losing what it shows.
    """
    load_stored(image)
    ImageOps.exif_transpose(image, in_place=True)
    mode, alpha = image.mode, "transparency" in image.info
    if mode in ("RGB", "L") and not alpha:
        return image
    if mode == "F":
        values = np.asarray(image)
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError("floating-point values outside [0, 1]")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if _is_deep(image):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0:
            raise ValueError(f"negative pixel values, down to {values.min():,}")
        white = peak.white(int(values.max()))
        gray = Image.fromarray(((510 * values + white) // (2 * white)).astype(np.uint8))  # 255 / white, rounded
        if not alpha:
            return gray
        opaque = Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8))
        return Image.merge("LA", (gray, opaque))
    if mode in ("1", "L", "LA", "La"):
        return image.convert("LA" if alpha or mode != "1" else "L")
    image = image.convert("RGBA" if alpha or mode in ("PA", "RGBA", "RGBa") else "RGB")
    if mode in ("P", "PA"):
        values = np.asarray(image)
        if (values[..., :1] == values[..., 1:3]).all():
            return image.convert("LA" if image.mode == "RGBA" else "L")
    return image


def load_stored(image: Image.Image) -> None:
    """Decode an image of a file, with a look at how the file stores it: afterward Pillow does not tell.

    Raises:
        ValueError: its values cannot be had.
    """
    stored = _stored_mode(image)
    image.load()
    if stored in ("L;2", "L;4") and "transparency" in image.info:  # in units of the file, and the pixels are scaled
        image.info["transparency"] *= {"L;2": 85, "L;4": 17}[stored]
    if ";16" in stored and image.mode in ("LA", "RGB", "RGBA"):
        _check_upper_bits(image, gray=stored.startswith("LA"))


def _stored_mode(image: Image.Image) -> str:
    """How the file stores its pixels, in Pillow's words, such as ``RGB;16B``; empty if it does not tell."""
    tiles: Any = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _check_upper_bits(image: Image.Image, *, gray: bool) -> None:
    """Refuse what Pillow reads as the upper 8 of 16 bits, where the values are in the lower ones.

    Raises:
        ValueError: they are; or it is gray, whose scale is that of the whole source.
    """
    if gray:
        raise ValueError("gray of 16 bits with transparency: save it without, or with 8 bits")
    brightest = int(np.asarray(image)[..., :3].max())
    if 0 < brightest < UPPER:
        raise ValueError(
            f"color of 16 bits whose values end below {256 * UPPER:,}, and only the upper 8 bits are read: scale the "
            "values to 16 bits, or save 8"
        )


def to_chw(image: Image.Image) -> Pixels:
    """L, LA, RGB or RGBA as (C, H, W), without alpha if it is opaque everywhere."""
    pixels: Pixels = np.asarray(image)
    if pixels.ndim == 2:
        return pixels[None]
    pixels = pixels.transpose(2, 0, 1)
    if len(pixels) == 3:
        return pixels
    if (pixels[-1] == 255).all():
        return pixels[:-1]
    return pixels if len(pixels) == 4 else pixels[[0, 0, 0, 1]]
