"""Pack images into one zip of PNG files, or into tar shards."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from rivals.base.errors import UserError
from rivals.base.files import explain_os_errors, whole_folder
from rivals.base.images import to_pil
from rivals.data.imageset import ImageSet
from rivals.data.load import LoadOptions, load
from rivals.data.parallel import parallel_map


def pack(
    source: str | Path,
    dest: str | Path,
    *,
    shards: int | None = None,
    **options: Unpack[LoadOptions],
) -> dict[str, Any]:
    """Load images as :func:`~rivals.data.load.load` does, and write them as a zip that loads to the same images.

    The zip holds ``00000/img00000000.png`` and so on, uncompressed, and a ``dataset.json`` in StyleGAN's convention,
    with ``classes``. With ``shards`` it is a folder of so many tars in WebDataset's layout, ``0000.tar`` and so on, of
    which each has an equal share of the images, in order, and a ``.cls`` with the class number beside each. The same
    images make the same files, byte for byte.

    Returns:
        ``path``, ``images``, ``size``, ``channels``, ``classes`` (their names), ``bytes`` and ``hash``.

    Raises:
        UserError: ``dest`` exists, is no .zip or cannot be written, or the images cannot be loaded, or are fewer than
            the shards.
    """
    dest = Path(dest)
    if shards is None and dest.suffix.lower() != ".zip":
        raise UserError(f"cannot pack into '{dest}': give a name that ends in .zip, or --shards N for a folder of tars")
    if shards is not None and (shards < 1 or dest.suffix.lower() in (".zip", ".tar")):
        what = f"{shards} shards" if shards < 1 else f"shards into '{dest}'"
        raise UserError(f"cannot pack {what}: give 1 or more, and the name of a folder for them")
    if dest.exists():
        raise UserError(f"'{dest}' exists already: remove it, or give another name")
    images = load(source, **options)
    if shards is not None and shards > len(images):
        raise UserError(f"{len(images)} images do not fill {shards} shards: take fewer")
    if shards is not None:
        with whole_folder(dest) as folder, explain_os_errors(dest):
            write_shards(images, folder, shards)
    else:
        _write_whole_zip(images, dest)
    files = sorted(dest.iterdir()) if dest.is_dir() else [dest]
    return {
        "path": str(dest),
        "images": len(images),
        "size": images.size.written,
        "channels": images.channels,
        "classes": list(images.classes),
        "bytes": sum(file.stat().st_size for file in files),
        "hash": images.hash,
    }


def _write_whole_zip(images: ImageSet, dest: Path) -> None:
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


def _write(images: ImageSet, file: io.BufferedWriter) -> None:
    names = [f"{index // 1000:05d}/img{index:08d}.png" for index in range(len(images))]
    labels = None
    if images.labels is not None:
        labels = [[name, label] for name, label in zip(names, images.labels.tolist(), strict=True)]

    with zipfile.ZipFile(file, "w") as archive:
        for name, content in zip(names, _pngs(images, range(len(images))), strict=True):
            archive.writestr(zipfile.ZipInfo(name), content)  # dated 1980, for equal bytes
        description = {"labels": labels, "classes": list(images.classes)}
        archive.writestr(zipfile.ZipInfo("dataset.json"), json.dumps(description))


def write_shards(images: ImageSet, folder: Path, count: int) -> None:
    """Write images into ``count`` tars of a folder, with a ``dataset.json`` that names the classes."""
    digits = max(4, len(str(count - 1)))
    for number in range(count):
        indices = range(len(images) * number // count, len(images) * (number + 1) // count)
        with (folder / f"{number:0{digits}}.tar").open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for index, content in zip(indices, _pngs(images, indices), strict=True):
                    _add(tar, f"img{index:08d}.png", content)
                    if images.labels is not None:
                        _add(tar, f"img{index:08d}.cls", str(images.labels[index]).encode())
            file.flush()
            os.fsync(file.fileno())
    if images.labels is not None:
        description = {"labels": None, "classes": list(images.classes)}
        (folder / "dataset.json").write_text(json.dumps(description))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # dated 1970 and owned by nobody, for equal bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _pngs(images: ImageSet, indices: range) -> Iterator[bytes]:
    def png(index: int) -> bytes:
        content = io.BytesIO()
        to_pil(images.images[index]).save(content, "png")
        return content.getvalue()

    return parallel_map(png, indices)
