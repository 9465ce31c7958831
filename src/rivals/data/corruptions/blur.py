"""Defocus, glass, motion and zoom blur. Images are (H, W, C) in [0, 1]; results are clipped by the caller."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Image = npt.NDArray[Any]


def defocus(x: Image, parameters: tuple[float, float], random: np.random.Generator) -> Image:
    """Convolution with a disk of a radius, its edge smoothed by a Gaussian filter of 3 taps, or 5 above radius 8."""
    radius, sigma = parameters
    reach, taps = (8, 1) if radius <= 8 else (int(radius), 2)
    place = np.arange(-reach, reach + 1)
    disk = (place[:, None] ** 2 + place**2 <= radius**2).astype(np.float64)
    edge = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * sigma**2))
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, edge / edge.sum(), axis=axis, mode="mirror")
    disk /= disk.sum()
    return np.stack([ndimage.correlate(channel, disk, mode="mirror") for channel in x.transpose(2, 0, 1)], 2)


def glass(x: Image, parameters: tuple[float, int, int], random: np.random.Generator) -> Image:
    """Blurred, pixels replaced by random ones up to a distance away, several times, and blurred again."""
    sigma, reach, rounds = parameters
    x = (_gaussian(x, sigma) * 255).astype(np.uint8)
    height, width = x.shape[:2]
    for _ in range(rounds):
        moves = random.integers(-reach, reach, size=(height, width, 2))
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                # The paper swaps the two; the authors' code, whose arrays are views, copies one to the other, and so
                # did those that it made.
                dx, dy = moves[row, column]
                x[row, column] = x[row + dy, column + dx]
    return _gaussian(x / 255, sigma)


def motion(x: Image, parameters: tuple[float, float], random: np.random.Generator) -> Image:
    """Smeared along a random direction, up to 45 degrees from the horizontal."""
    radius, sigma = parameters
    return smear(x, radius, sigma, random.uniform(-45, 45))


def smear(x: Image, radius: float, sigma: float, angle: float) -> Image:
    """ImageMagick's motion blur: the mean along a ray, weighted by one half of a Gaussian; edges are repeated.

    Args:
        x: (H, W, C).
        radius: The ray has 2 radius + 1 pixels.
        sigma: Of the Gaussian, in pixels.
        angle: In degrees.
    """
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    height, width = x.shape[:2]
    total = np.zeros_like(x)
    for step, weight in zip(steps, weights, strict=True):
        down, across = math.ceil(step * sin - 0.5), math.ceil(step * cos - 0.5)
        rows = np.clip(np.arange(height) + down, 0, height - 1)
        columns = np.clip(np.arange(width) + across, 0, width - 1)
        total += weight * x[rows[:, None], columns]
    return total


def zoom(x: Image, parameters: tuple[float, float], random: np.random.Generator) -> Image:
    """The mean of the image and of enlargements of its middle, from 1 up to a factor, in steps."""
    end, step = parameters
    factors = np.arange(1, end, step)
    total = x.copy()
    for factor in factors:
        total += enlarge(x, float(factor))
    return total / (len(factors) + 1)


def enlarge(x: Image, factor: float) -> Image:
    """The middle of an image (H, W, C), enlarged to its size."""
    height, width = x.shape[:2]
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    large = ndimage.zoom(x[top : top + rows, left : left + columns], (factor, factor, 1), order=1)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    middle: Image = large[top : top + height, left : left + width]
    return middle


def _gaussian(x: Image, sigma: float) -> Image:
    blurred: Image = ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")
    return blurred
