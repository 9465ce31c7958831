"""The size of images: height and width in pixels, and how it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rivals.base.errors import UserError

_PATTERN = re.compile(r"\s*([-+]?\d{1,9})(?:\s*[xX×]\s*([-+]?\d{1,9}))?\s*")
SHOWN = 40  # characters of a wrong text


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


AnySize = int | str | Size
"""A size, or what :meth:`Size.parse` makes one of."""
