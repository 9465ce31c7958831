"""A set of square images, decoded: what every source becomes and every consumer takes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rivals.base.errors import UserError

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

_BLOCK = 1 << 24  # bytes hashed at a time


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size and one number of channels, with their labels if there are any.

    ``images`` is uint8 (N, C, H, W), H = W, C being 1 (grey), 3 (colour) or 4 (colour with alpha); it may be
    a memory map. ``labels`` is int64 (N,), indices into ``classes``, or None, and then ``classes`` is empty.

    Raises:
        ValueError: the arrays are of another type or form.
    """

    name: str
    split: str
    images: Pixels
    labels: Labels | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[2] != shape[3] or shape[1] not in (1, 3, 4):
            raise ValueError(f"images are uint8 (N, C, H, H) with C 1, 3 or 4, not {self.images.dtype} {shape}")
        if not shape[0]:
            raise ValueError("an image set holds at least one image")
        if (self.labels is None) != (not self.classes):
            raise ValueError("labels and classes come together")
        if self.labels is not None and (self.labels.dtype != np.int64 or self.labels.shape != shape[:1]):
            raise ValueError(f"labels are int64 ({shape[0]},), not {self.labels.dtype} {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Height and width, in pixels."""
        return int(self.images.shape[2])

    @property
    def channels(self) -> int:
        """1 (grey), 3 (colour) or 4 (colour with alpha)."""
        return int(self.images.shape[1])

    @cached_property
    def hash(self) -> str:
        """What the images and labels are, in 16 hexadecimal digits; worked out once."""
        return content_hash(self.images, self.labels)


def content_hash(images: Pixels, labels: Labels | None = None) -> str:
    """16 hexadecimal digits (BLAKE2b) for images (N, C, H, W) and labels (N,), read in blocks."""
    digest = hashlib.blake2b(repr(images.shape).encode(), digest_size=8)
    step = max(1, _BLOCK // images[0].nbytes)
    for start in range(0, len(images), step):
        digest.update(np.ascontiguousarray(images[start : start + step]).data)
    if labels is not None:
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def require_classes(images: ImageSet) -> int:
    """The number of classes of a set that something conditional, or a classifier, is to learn from.

    :func:`~rivals.data.load.load` accepts a set without classes or with a single one, since a GAN that is not
    conditional can learn from it. Call this where classes are wanted.

    Raises:
        UserError: there are no labels, or all images are of one class.
    """
    if images.labels is None:
        raise UserError(
            f"'{images.name}' has no classes, and two at least are needed: put its images into one sub-folder per class"
        )
    present = np.unique(images.labels)
    if len(present) < 2:
        raise UserError(
            f"'{images.name}' has one class only ('{images.classes[present[0]]}'), "
            "and two at least are needed: put its images into one sub-folder per class"
        )
    return len(images.classes)
