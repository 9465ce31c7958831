"""Decoded images with labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.data.mapped_pixels import MappedPixels, digests
from rivals.data.selection import Selection

Pixels = npt.NDArray[np.uint8]
Images = Pixels | MappedPixels | Selection
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size and one number of channels, with labels if there are any.

    Attributes:
        images: uint8 (N, C, H, W), C 1 (gray), 3 (color) or 4 (color and alpha); in memory, or read
            from a file or from other images where they are indexed.
        labels: int64 (N,), indices into ``classes``; None without classes.
        white: The value that was read as white in gray image files of more than 8 bits; None if there were none.

    Raises:
        ValueError: the arrays have another dtype or shape.
    """

    name: str
    split: str
    images: Images
    labels: Labels | None = None
    classes: tuple[str, ...] = ()
    white: int | None = None

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[1] not in (1, 3, 4):
            raise ValueError(f"images are uint8 (N, C, H, W) with C 1, 3 or 4, not {self.images.dtype} {shape}")
        if not shape[0]:
            raise ValueError("an image set holds at least one image")
        if (self.labels is None) != (not self.classes):
            raise ValueError("labels and classes come together")
        if self.labels is not None and (self.labels.dtype != np.int64 or self.labels.shape != shape[:1]):
            raise ValueError(f"labels are int64 ({shape[0]},), not {self.labels.dtype} {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> Size:
        """Height and width, in pixels."""
        return Size(*self.images.shape[2:])

    @property
    def channels(self) -> int:
        """1 (gray), 3 (color) or 4 (color with alpha)."""
        return int(self.images.shape[1])

    @cached_property
    def hash(self) -> str:
        """Content hash of images and labels, 16 hexadecimal digits."""
        return content_hash(self.images, self.labels)


def content_hash(images: Images, labels: Labels | None = None) -> str:
    """16 hexadecimal digits (BLAKE2b) of images (N, C, H, W) and labels (N,).

    Those of a file have the digests of their blocks: they need not be read, and will not be used if they differ.
    """
    blocks = images.digests if isinstance(images, MappedPixels) else digests(images)
    whole = hashlib.blake2b(repr(tuple(images.shape)).encode(), digest_size=8)
    for block in blocks:
        whole.update(block.encode())
    if labels is not None:
        whole.update(labels.astype("<i8").tobytes())
    return whole.hexdigest()


def require_classes(images: ImageSet) -> int:
    """The number of classes, for a conditional GAN or a classifier.

    :func:`~rivals.data.load.load` accepts images without classes or of a single class, which suffice for an
    unconditional GAN.

    Raises:
        UserError: there are no labels, or only one class.
    """
    if images.labels is None:
        raise UserError(
            f"'{images.name}' has no classes, and two at least are needed: put its images into one subfolder per class"
        )
    present = np.unique(images.labels)
    if len(present) < 2:
        raise UserError(
            f"'{images.name}' has one class only ('{images.classes[present[0]]}'), "
            "and two at least are needed: put its images into one subfolder per class"
        )
    return len(images.classes)
