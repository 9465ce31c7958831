"""Training images that are kept aside, on which a run is steered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rivals.base.errors import UserError
from rivals.base.size import resizing

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


def check_unchanged(stored: Mapping[str, Any], name: str, now: str | None) -> None:
    """Refuse to resume a run with other images than it is judged by.

    Args:
        stored: Of the run; empty for a new one.
        name: Its entry on these images: test or held_out.
        now: The hash of those that are there; None if there are none.

    Raises:
        UserError: they differ.
    """
    if stored and (stored.get(name) or {}).get("hash") != now:
        what = name.replace("_", "-")
        raise UserError(f"the {what} images are not those that the run began with: restore them, to resume")


def check_same_shape(images: ImageSet, test: ImageSet) -> None:
    """Refuse test images of another shape.

    Raises:
        UserError: they are.
    """
    ours, theirs = (" x ".join(map(str, (each.channels, *each.size))) for each in (images, test))
    if ours != theirs:
        resized = f", or add {resizing(images.size, images.size, test.size)}" if images.size != test.size else ""
        raise UserError(
            f"the test images of '{images.name}' are {theirs}, the training images {ours}: make them alike{resized}"
        )
