"""Sheets of images: many small pictures on one, folders of single ones, and films."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from rivals.base.errors import UserError
from rivals.base.files import explained, write_atomically

Images = npt.NDArray[np.uint8]

GROUND = 48  # the grey between images: darker than most pictures, lighter than the black ground of digits
GAP = 2  # pixels between neighbours
CHECKER = ((255, 204), 8)  # the two greys seen through alpha, and the side of a square in pixels


def columns_for(n: int) -> int:
    """How many columns lay ``n`` images out nearly square, with a full last row if one can be had for it."""
    square = math.ceil(math.sqrt(n))
    return next((c for c in range(square, int(1.5 * square) + 1) if n % c == 0), square)


def scale_for(size: int, columns: int) -> int:
    """The whole factor that makes images of ``size`` pixels legible: cells of 64 pixels, of 256 when few."""
    cell = min(256, max(64, 512 // columns))
    return max(1, cell // size)


def grid(images: Images, columns: int | None = None, gap: int = GAP, scale: int | None = None) -> Image.Image:
    """Lay images out on one sheet, row by row.

    Args:
        images: uint8 (N, C, H, W), C 1 (grey), 3 (RGB) or 4 (RGBA, shown over a checkerboard).
        columns: images in a row; nearly square by default.
        gap: pixels between neighbours; there is none around the sheet.
        scale: whole factor by which each pixel is repeated; small images are enlarged by default.

    Returns:
        A sheet of ``columns * W * scale + (columns - 1) * gap`` by ``rows * H * scale + (rows - 1) * gap``
        pixels, of mode ``L`` for grey images and ``RGB`` for the others.

    Raises:
        UserError: images of another type or shape, or a number out of range.
    """
    _check(images)
    n, channels, height, width = images.shape
    columns = columns_for(n) if columns is None else columns
    if columns < 1 or gap < 0 or (scale is not None and scale < 1):
        raise UserError(f"a sheet of {columns} columns, gap {gap}, scale {scale}: give 1 or more, 0 or more, 1 or more")
    scale = scale_for(max(height, width), columns) if scale is None else scale
    height, width, rows = height * scale, width * scale, math.ceil(n / columns)

    tiles = images.transpose(0, 2, 3, 1).repeat(scale, axis=1).repeat(scale, axis=2)
    if channels == 4:
        tiles = _over_checkerboard(tiles)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, tiles.shape[-1]), GROUND, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return picture(sheet.transpose(2, 0, 1))


def cut(path: Path, n: int, size: int) -> Images:
    """The images of a sheet that :func:`grid` laid out by its defaults and :func:`save_png` wrote.

    Args:
        path: The sheet.
        n: How many images there are on it.
        size: Their side, in pixels.

    Returns:
        uint8 (n, C, size, size), C 1 or 3, bit for bit unless they had alpha.

    Raises:
        UserError: the sheet cannot be read, or is of another size.
    """
    columns = columns_for(n)
    scale = scale_for(size, columns)
    side, rows = size * scale, math.ceil(n / columns)
    try:
        with Image.open(path) as opened:
            pixels = np.asarray(opened)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"the sheet '{path}' cannot be read ({error}): leave it out") from None
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.shape[:2] != (rows * (side + GAP) - GAP, columns * (side + GAP) - GAP):
        raise UserError(f"the sheet '{path}' does not hold {n} images of {size} px: it is of another size")
    tiles = [
        pixels[top : top + side : scale, left : left + side : scale]
        for top in range(0, rows * (side + GAP), side + GAP)
        for left in range(0, columns * (side + GAP), side + GAP)
    ]
    return np.ascontiguousarray(np.stack(tiles[:n]).transpose(0, 3, 1, 2))


def picture(image: Images) -> Image.Image:
    """One uint8 image (C, H, W), C 1, 3 or 4, as a picture; alpha is kept."""
    return Image.fromarray(np.ascontiguousarray(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)))


def save_png(image: Image.Image, path: Path) -> None:
    """Write a picture as PNG, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    write_atomically(path, _png(image))


def save_folder(images: Images, folder: Path) -> None:
    """Write each of the images, uint8 (N, C, H, W), to a PNG of its own: ``000000.png``, ``000001.png``, ...

    Raises:
        UserError: the folder exists and is not empty, or cannot be written.
    """
    _check(images)
    with explained(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"'{folder}' exists already and is not empty: choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            (folder / f"{i:06d}.png").write_bytes(_png(picture(image)))


def save_gif(frames: Sequence[Image.Image], path: Path, milliseconds: int = 60) -> None:
    """Write frames of one size as a film that starts over at its end.

    Args:
        milliseconds: how long each frame stays; GIF counts in tens, and browsers slow down below 20.

    Raises:
        UserError: no frames, frames of several sizes, too short a stay, or the file cannot be written.
    """
    sizes = {frame.size for frame in frames}
    if len(sizes) != 1:
        raise UserError(
            f"a film needs frames of one size, these {len(frames)} have {len(sizes)}: give one or more alike"
        )
    if milliseconds < 20:
        raise UserError(f"{milliseconds} ms a frame is faster than a GIF can play: give 20 or more")
    file = io.BytesIO()
    first, *rest = frames
    first.save(file, "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)
    write_atomically(path, file.getvalue())


def _check(images: Images) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3, 4) or 0 in images.shape:
        raise UserError(
            f"images of type {images.dtype} and shape {images.shape} cannot be drawn: "
            "give uint8 (N, C, H, W) with C 1, 3 or 4 and nothing empty"
        )


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _over_checkerboard(tiles: Images) -> Images:
    """Lay RGBA tiles (N, H, W, 4) over grey squares: RGB (N, H, W, 3), rounded to nearest."""
    (light, dark), side = CHECKER
    rows, columns = (np.arange(length) // side for length in tiles.shape[1:3])
    board = np.where((rows[:, None] + columns) % 2, dark, light).astype(np.uint16)[:, :, None]
    alpha = tiles[..., 3:].astype(np.uint16)
    mixed: Images = ((tiles[..., :3] * alpha + board * (255 - alpha) + 127) // 255).astype(np.uint8)
    return mixed
