"""``data ls`` and ``data pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def data_ls() -> list[dict[str, Any]]:
    """The data sets that have a name: where each was found, or what to do to have it."""
    from rivals.data.catalogue import catalogue

    return catalogue()


def data_pack(
    source: str,
    dest: Path,
    *,
    split: str = "train",
    size: int | None = None,
    crop: bool = False,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Pack images into one zip that any verb takes as its data.

    Args:
        source: A data set's name, a folder of images (sub-folders are classes) or a zip.
        dest: The zip to write.
        split: train or test, for a data set that has a name.
        size: Side to resize the images to, in pixels; as they are if none is given.
        crop: Crop rectangles to their central square.
        skip_bad: Leave unreadable images out instead of stopping.
    """
    from rivals.data.pack import pack

    return pack(source, dest, split=split, size=size, crop=crop, skip_bad=skip_bad)
