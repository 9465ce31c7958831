"""Brightness, contrast, elastic transform, pixelation and JPEG. Images are (H, W, C) in [0, 1]; the caller clips."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from scipy import ndimage

Image = npt.NDArray[Any]


def brightness(x: Image, amount: float, random: np.random.Generator) -> Image:
    """The value of HSV is raised: the largest channel by that amount, others in proportion."""
    value = x.max(2, keepdims=True)
    raised = np.minimum(value + amount, 1)
    bright: Image = np.where(value > 0, x * raised / np.where(value > 0, value, 1), raised)
    return bright


def contrast(x: Image, share: float, random: np.random.Generator) -> Image:
    """Each channel is drawn toward its mean, to a share of its distance."""
    mean = x.mean((0, 1), keepdims=True)
    drawn: Image = (x - mean) * share + mean
    return drawn


def elastic(x: Image, parameters: tuple[float, float, float], random: np.random.Generator) -> Image:
    """A random affine map, and then a smooth random displacement.

    Args:
        x: The image.
        parameters: How far the displacement goes; how smooth it is; how far three points are moved by the affine map.
        random: Draws them.
    """
    amount, sigma, reach = parameters
    height, width = x.shape[:2]
    center, third = np.array([height, width]) // 2, min(height, width) // 3
    before = np.array([center + third, [center[0] + third, center[1] - third], center - third], dtype=np.float64)
    after = before + random.uniform(-reach, reach, before.shape)
    # The map from where points went to where they came from, x first as in images' coordinates
    there, ones = np.column_stack([after, np.ones(3)]), np.ones((height, width))
    inverse = np.linalg.solve(there, before).T
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    source_x, source_y = np.einsum("ij,jhw->ihw", inverse, np.stack([columns, rows, ones]))
    warped = _at(x, source_y, source_x, "mirror")
    moves = [
        amount * ndimage.gaussian_filter(random.uniform(-1, 1, (height, width)), sigma, mode="reflect", truncate=3)
        for _ in range(2)
    ]
    return _at(warped, rows + moves[1], columns + moves[0], "reflect")


def pixelate(x: Image, share: float, random: np.random.Generator) -> Image:
    """Made smaller, and back, by means over boxes."""
    height, width = x.shape[:2]
    small = _to_pillow(x).resize((int(width * share), int(height * share)), Pillow.Resampling.BOX)
    return _from_pillow(small.resize((width, height), Pillow.Resampling.BOX))


def jpeg(x: Image, quality: int, random: np.random.Generator) -> Image:
    """Compressed by JPEG."""
    buffer = io.BytesIO()
    _to_pillow(x).save(buffer, "JPEG", quality=quality)
    with Pillow.open(buffer) as opened:
        return _from_pillow(opened)


def _at(x: Image, rows: Image, columns: Image, mode: str) -> Image:
    channels = [ndimage.map_coordinates(each, [rows, columns], order=1, mode=mode) for each in x.transpose(2, 0, 1)]
    return np.stack(channels, 2)


def _to_pillow(x: Image) -> Pillow.Image:
    pixels = np.round(x * 255).astype(np.uint8)
    return Pillow.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _from_pillow(image: Pillow.Image) -> Image:
    pixels = np.asarray(image, dtype=np.float64) / 255
    return pixels[..., None] if pixels.ndim == 2 else pixels
