"""Training images that are kept aside, on which a run is steered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rivals.base.errors import UserError

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet

HELD_OUT = 1000  # at most, by default


def keep_some_aside(images: ImageSet, count: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """The images to train on, and ``count`` others; 0 for a tenth of them, at most 1,000.

    Raises:
        UserError: there are too few.
    """
    from rivals.data.splits import hold_out

    count = count or min(HELD_OUT, len(images) // 10)
    if not 0 < count <= len(images) // 2:
        raise UserError(
            f"'{images.name}' has {len(images)} images, of which {count} would be held out: give more images, or a "
            "smaller --hold-out"
        )
    return hold_out(images, count, seed)


def check_same_shape(images: ImageSet, test: ImageSet) -> None:
    """Refuse test images of another shape.

    Raises:
        UserError: they are.
    """
    ours, theirs = (" x ".join(map(str, (each.channels, *each.size))) for each in (images, test))
    if ours != theirs:
        raise UserError(
            f"the test images of '{images.name}' are {theirs}, the training images {ours}: make them alike, or set "
            "--size"
        )
