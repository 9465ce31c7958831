"""The size of images: height and width in pixels, and how it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rivals.base.errors import UserError

_PATTERN = re.compile(r"\s*([-+]?\d{1,9})(?:\s*[xX×]\s*([-+]?\d{1,9}))?\s*")
SHOWN = 40  # characters of a wrong text
SMALLEST, LARGEST = 8, 1024  # sides of images to learn from


@dataclass(frozen=True)
class Size:
    """Height and width in pixels.

    Written ``64`` for a square and ``96x64`` for 96 pixels of width and 64 of height, as image programs and the
    data-set tool of StyleGAN do. Iterating gives the height first, as the shape of a tensor does.
    """

    height: int
    width: int

    @classmethod
    def parse(cls, value: int | str | Size) -> Size:
        """Parse the written form; a number is the side of a square.

        Raises:
            UserError: the text is of another form.
        """
        if isinstance(value, Size):
            return value
        match = None if isinstance(value, bool) else _PATTERN.fullmatch(str(value))
        if match is None:
            shown = str(value) if len(str(value)) <= SHOWN else f"{str(value)[:SHOWN]}..."
            raise UserError(
                f"'{shown}' is not a size of images: write the side of squares in pixels, such as 64, or "
                "WIDTHxHEIGHT, such as 96x64"
            )
        width = int(match[1])
        return cls(width if match[2] is None else int(match[2]), width)

    def __str__(self) -> str:
        return str(self.written)

    def __iter__(self) -> Iterator[int]:
        return iter((self.height, self.width))

    @property
    def written(self) -> int | str:
        """As JSON has it: the side of a square, or such as ``96x64``."""
        return self.width if self.is_square else f"{self.width}x{self.height}"

    @property
    def is_square(self) -> bool:
        """Whether height and width are equal."""
        return self.height == self.width

    @property
    def is_usable(self) -> bool:
        """Whether networks can learn from such images."""
        return SMALLEST <= self.shorter <= self.longer <= LARGEST

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def shorter(self) -> int:
        """The shorter side."""
        return min(self.height, self.width)

    @property
    def longer(self) -> int:
        """The longer side."""
        return max(self.height, self.width)


def check_size(size: Size | None) -> None:
    """Check a size that images are resized to.

    Raises:
        UserError: a side is below 8 or above 1024.
    """
    if size is not None and not size.is_usable:
        what = "small" if size.shorter < SMALLEST else "large"
        raise UserError(f"--size {size} is too {what}: take sides of {SMALLEST} to {LARGEST} pixels")


def cropped(size: Size, like: Size) -> Size:
    """The largest part of images of ``size`` that has the proportions of ``like``, to the nearest pixel."""
    height = (2 * size.width * like.height + like.width) // (2 * like.width)
    width = (2 * size.height * like.width + like.height) // (2 * like.height)
    return Size(min(size.height, max(1, height)), min(size.width, max(1, width)))


def resizing(size: Size, *images: Size) -> str:
    """The flags that bring images to a size: ``--size 64``, and ``--crop`` if some have other proportions."""
    return f"--size {size}" + ("" if all(cropped(each, size) == each for each in images) else " --crop")


AnySize = int | str | Size
"""A size, or what :meth:`Size.parse` makes one of."""
