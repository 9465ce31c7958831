"""Pack images into one zip of PNG files."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rivals.base.errors import UserError
from rivals.base.files import explain_os_errors
from rivals.base.images import to_pil
from rivals.data.imageset import ImageSet
from rivals.data.load import load, to_stderr
from rivals.data.parallel import parallel_map


def pack(
    source: str | Path,
    dest: str | Path,
    *,
    split: str = "train",
    size: int | None = None,
    crop: bool = False,
    skip_bad: bool = False,
    white: int | None = None,
    on_note: Callable[[str], None] = to_stderr,
) -> dict[str, Any]:
    """Load images as :func:`~rivals.data.load.load` does, and write them as a zip that loads to the same images.

    The zip holds ``00000/img00000000.png`` and so on, uncompressed, and a ``dataset.json`` in StyleGAN's convention,
    with ``classes``. The same images make the same zip, byte for byte.

    Returns:
        ``path``, ``images``, ``size``, ``channels``, ``classes`` (their names), ``bytes`` and ``hash``.

    Raises:
        UserError: ``dest`` exists, is no .zip or cannot be written, or the images cannot be loaded.
    """
    dest = Path(dest)
    if dest.suffix.lower() != ".zip":
        raise UserError(f"cannot pack into '{dest}': give a name that ends in .zip")
    if dest.exists():
        raise UserError(f"'{dest}' exists already: remove it, or give another name")
    images = load(source, split=split, size=size, crop=crop, skip_bad=skip_bad, white=white, on_note=on_note)
    temporary = dest.with_name(f".{dest.name}.{os.getpid()}")
    with explain_os_errors(dest):
        dest.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                _write(images, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(dest)
        finally:
            temporary.unlink(missing_ok=True)
    return {
        "path": str(dest),
        "images": len(images),
        "size": images.size,
        "channels": images.channels,
        "classes": list(images.classes),
        "bytes": dest.stat().st_size,
        "hash": images.hash,
    }


def _write(images: ImageSet, file: io.BufferedWriter) -> None:
    names = [f"{index // 1000:05d}/img{index:08d}.png" for index in range(len(images))]
    labels = None
    if images.labels is not None:
        labels = [[name, label] for name, label in zip(names, images.labels.tolist(), strict=True)]

    def png(index: int) -> bytes:
        content = io.BytesIO()
        to_pil(images.images[index]).save(content, "png")
        return content.getvalue()

    with zipfile.ZipFile(file, "w") as archive:
        for name, content in zip(names, parallel_map(png, range(len(images))), strict=True):
            archive.writestr(zipfile.ZipInfo(name), content)  # dated 1980, for equal bytes
        description = {"labels": labels, "classes": list(images.classes)}
        archive.writestr(zipfile.ZipInfo("dataset.json"), json.dumps(description))
