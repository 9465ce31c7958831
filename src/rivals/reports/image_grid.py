"""Grids of images, folders of single images, and animations."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from rivals.base.errors import UserError
from rivals.base.files import explain_os_errors, whole_folder, write_atomically
from rivals.base.images import to_pil
from rivals.base.size import Size

Images = npt.NDArray[np.uint8]

BACKGROUND = 48  # the gray between images: darker than most photos, lighter than the black background of digits
GAP = 2  # pixels between images
# Formats by suffix, with the options of Pillow's that write them.
PICTURES: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".webp": {"format": "WEBP", "lossless": True},
    ".bmp": {"format": "BMP"},
    ".tif": {"format": "TIFF"},
    ".tiff": {"format": "TIFF"},
}
ANIMATIONS: dict[str, dict[str, Any]] = {
    ".gif": {"format": "GIF"},
    ".webp": {"format": "WEBP", "lossless": True},
    ".apng": {"format": "PNG"},
    ".png": {"format": "PNG"},
}
CHECKER = ((255, 204), 8)  # the two grays seen through alpha, and the side of a square in pixels


def columns_for(n: int) -> int:
    """The number of columns of a nearly square grid of ``n`` images, with a full last row if possible."""
    square = math.ceil(math.sqrt(n))
    return next((c for c in range(square, int(1.5 * square) + 1) if n % c == 0), square)


def scale_for(side: int, columns: int) -> int:
    """The integer factor that enlarges a longer side of ``side`` pixels to 64, or to 256 if there are few images."""
    cell = min(256, max(64, 512 // columns))
    return max(1, cell // side)


def make_grid(images: Images, columns: int | None = None, gap: int = GAP, scale: int | None = None) -> Image.Image:
    """Arrange images in a grid, row by row.

    Args:
        images: uint8 (N, C, H, W), C 1 (gray), 3 (RGB) or 4 (RGBA, shown over a checkerboard).
        columns: Images in a row; nearly square by default.
        gap: Pixels between images; there is none around the grid.
        scale: Integer factor of enlargement; small images are enlarged by default.

    Returns:
        A picture of ``columns * W * scale + (columns - 1) * gap`` by ``rows * H * scale + (rows - 1) * gap``
        pixels, of mode ``L`` for gray images and ``RGB`` for the others.

    Raises:
        UserError: the images have another type or shape, or a number is out of range.
    """
    _check(images)
    n, channels, height, width = images.shape
    columns = columns_for(n) if columns is None else columns
    if columns < 1 or gap < 0 or (scale is not None and scale < 1):
        raise UserError(f"a grid of {columns} columns, gap {gap}, scale {scale}: give 1 or more, 0 or more, 1 or more")
    scale = scale_for(max(height, width), columns) if scale is None else scale
    height, width, rows = height * scale, width * scale, math.ceil(n / columns)

    tiles = images.transpose(0, 2, 3, 1).repeat(scale, axis=1).repeat(scale, axis=2)
    if channels == 4:
        tiles = _over_checkerboard(tiles)
    canvas = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, tiles.shape[-1]), BACKGROUND, np.uint8
    )
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    return to_pil(canvas.transpose(2, 0, 1))


def split_grid(path: Path, n: int, size: Size) -> Images:
    """Read back the images of a grid that :func:`make_grid` made with its defaults.

    Args:
        path: The PNG.
        n: Number of images in it.
        size: Their size.

    Returns:
        uint8 (n, C, *size), C 1 or 3, bit for bit unless they had alpha.

    Raises:
        UserError: the file cannot be read, or has another size.
    """
    columns = columns_for(n)
    scale = scale_for(size.longer, columns)
    height, width, rows = size.height * scale, size.width * scale, math.ceil(n / columns)
    try:
        with Image.open(path) as opened:
            pixels = np.asarray(opened)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"the sample grid '{path}' cannot be read ({error}): leave it out") from None
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.shape[:2] != (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP):
        raise UserError(f"the sample grid '{path}' does not hold {n} images of {size} px: it has another size")
    tiles = [
        pixels[top : top + height : scale, left : left + width : scale]
        for top in range(0, rows * (height + GAP), height + GAP)
        for left in range(0, columns * (width + GAP), width + GAP)
    ]
    return np.ascontiguousarray(np.stack(tiles[:n]).transpose(0, 3, 1, 2))


def check_suffix(path: Path, formats: Mapping[str, Mapping[str, Any]]) -> str:
    """The suffix of a path, in lower case, if it names one of the formats.

    Raises:
        UserError: it does not.
    """
    suffix = path.suffix.lower()
    if suffix not in formats:
        raise UserError(f"cannot write '{path}': give a name that ends in {', '.join(formats)}")
    return suffix


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a picture in the format that the path's suffix names, one of ``PICTURES``.

    Raises:
        UserError: the suffix names another one, or the file cannot be written.
    """
    file = io.BytesIO()
    image.save(file, **PICTURES[check_suffix(path, PICTURES)])
    write_atomically(path, file.getvalue())


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG atomically.

    Raises:
        UserError: it cannot be written.
    """
    write_atomically(path, _png(image))


def save_folder(images: Images, folder: Path, names: Sequence[str] = ()) -> None:
    """Write each of the images, uint8 (N, C, H, W), to a PNG of its own, by name or ``000000.png``, ``000001.png``, ...

    Raises:
        UserError: the folder exists and is not empty, or cannot be written.
    """
    _check(images)
    with explain_os_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"'{folder}' exists already and is not empty: choose another folder")
    with whole_folder(folder) as place, explain_os_errors(folder):
        for name, image in zip(names or [f"{i:06d}" for i in range(len(images))], images, strict=True):
            (place / f"{name}.png").write_bytes(_png(to_pil(image)))


def save_animation(frames: Sequence[Image.Image], path: Path, milliseconds: int = 60) -> None:
    """Write frames of one size as an animation that loops, in the format that the path's suffix names.

    Args:
        frames: The frames.
        path: The file; its suffix is one of ``ANIMATIONS``.
        milliseconds: Per frame; GIF counts in tens, and browsers slow down below 20.

    Raises:
        UserError: there are no frames, they differ in size, the time is too short, the suffix names another format, or
            the file cannot be written.
    """
    options = ANIMATIONS[check_suffix(path, ANIMATIONS)]
    sizes = {frame.size for frame in frames}
    if len(sizes) != 1:
        raise UserError(
            f"an animation needs frames of one size, these {len(frames)} have {len(sizes)}: give frames of one size"
        )
    if milliseconds < 20:
        raise UserError(f"{milliseconds} ms a frame is faster than browsers play: give 20 or more")
    file = io.BytesIO()
    first, *rest = frames
    first.save(file, save_all=True, append_images=rest, duration=milliseconds, loop=0, **options)
    write_atomically(path, file.getvalue())


def _check(images: Images) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3, 4) or 0 in images.shape:
        raise UserError(
            f"images of type {images.dtype} and shape {images.shape} cannot be shown: "
            "give uint8 (N, C, H, W) with C 1, 3 or 4 and no empty dimension"
        )


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    # Run-length matches alone: as small as zlib's default for enlarged pixels, and 8 times as fast.
    image.save(file, "PNG", compress_type=zlib.Z_RLE)
    return file.getvalue()


def _over_checkerboard(tiles: Images) -> Images:
    """Composite RGBA tiles (N, H, W, 4) over gray squares: RGB (N, H, W, 3), rounded to nearest."""
    (light, dark), side = CHECKER
    rows, columns = (np.arange(length) // side for length in tiles.shape[1:3])
    board = np.where((rows[:, None] + columns) % 2, dark, light).astype(np.uint16)[:, :, None]
    alpha = tiles[..., 3:].astype(np.uint16)
    mixed: Images = ((tiles[..., :3] * alpha + board * (255 - alpha) + 127) // 255).astype(np.uint8)
    return mixed
