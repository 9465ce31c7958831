"""``data ls`` and ``data pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rivals.recipes.options import DataOptions


def data_ls() -> list[dict[str, Any]]:
    """The data sets that have a name: where each was found, or what to do to have it."""
    from rivals.data.builtin import catalog

    return catalog()


def data_pack(source: str, dest: Path, *, split: str = "train", **settings: Any) -> dict[str, Any]:
    """Pack images into one zip that any command takes as its data.

    Args:
        source: A data set's name, a folder of images (subfolders are classes) or a zip.
        dest: The zip to write.
        split: train or test, for a data set that has a name.
        **settings: Any field of :class:`rivals.DataOptions`, such as ``size=32``.
    """
    from rivals.data.pack import pack

    return pack(source, dest, split=split, **vars(DataOptions().changed(**settings)))
