"""Snow, frost and fog. Images are (H, W, C) in [0, 1]; results are clipped by the caller."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rivals.data.corruptions.blur import enlarge, smear

Image = npt.NDArray[Any]

GRAY = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue in a gray value
ICE = np.array([0.86, 0.93, 1.0])  # the tint of frost
FROST_DECAY = 1.8  # of its texture: rough enough for crystals


def snow(x: Image, parameters: tuple[float, ...], random: np.random.Generator) -> Image:
    """Normal noise, enlarged, cut off below a threshold and smeared, over a whitened image; and once more, turned."""
    mean, deviation, factor, threshold, radius, sigma, share = parameters
    layer = enlarge(random.normal(mean, deviation, size=(*x.shape[:2], 1)), factor)
    layer = np.where(layer < threshold, 0, layer)
    layer = smear(np.round(np.clip(layer, 0, 1) * 255) / 255, radius, sigma, random.uniform(-135, -45))
    whitened = np.maximum(x, _gray(x) * 1.5 + 0.5)
    return share * x + (1 - share) * whitened + layer + np.rot90(layer, 2)


def frost(x: Image, parameters: tuple[float, float], random: np.random.Generator) -> Image:
    """A weighted sum of the image and frost.

    The authors paste photographs of frost, which are not theirs to give away; here it is a synthetic texture: ridges of
    fractal noise, like crystals, tinted as ice, of about the photographs' brightness.
    """
    share, strength = parameters
    size = _power_of_two(max(x.shape[:2]))
    noise = plasma_fractal(size, FROST_DECAY, random)[: x.shape[0], : x.shape[1], None]
    ridges = (1 - np.abs(2 * noise - 1)) ** 2
    texture = 0.25 + 0.75 * ridges
    frosted: Image = share * x + strength * texture * (ICE if x.shape[2] == 3 else _gray(ICE[None, None])[..., :1])
    return frosted


def fog(x: Image, parameters: tuple[float, float], random: np.random.Generator) -> Image:
    """Fractal noise is added, and the sum scaled back to the image's brightest value."""
    amount, decay = parameters
    noise = plasma_fractal(_power_of_two(max(x.shape[:2])), decay, random)
    brightest = x.max()
    foggy: Image = (x + amount * noise[: x.shape[0], : x.shape[1], None]) * brightest / (brightest + amount)
    return foggy


def plasma_fractal(size: int, decay: float, random: np.random.Generator) -> Image:
    """Fractal noise (size, size) in [0, 1] by the diamond-square algorithm, on a torus.

    Args:
        size: A power of two.
        decay: By what factor the noise shrinks where the distance of points is halved.
        random: Draws it.
    """
    height = np.zeros((size, size))
    step, wobble = size, 100.0
    while step >= 2:
        half = step // 2
        corners = height[::step, ::step]
        # The middle of each square: the mean of its four corners and noise
        total = corners + np.roll(corners, -1, 0)
        total = total + np.roll(total, -1, 1)
        centers = total / 4 + wobble * random.uniform(-wobble, wobble, total.shape)
        height[half::step, half::step] = centers
        # The middle of each edge: the mean of its two ends and the two centers beside it, and noise
        upper = centers + np.roll(centers, 1, 0) + corners + np.roll(corners, -1, 1)
        height[::step, half::step] = upper / 4 + wobble * random.uniform(-wobble, wobble, upper.shape)
        left = centers + np.roll(centers, 1, 1) + corners + np.roll(corners, -1, 0)
        height[half::step, ::step] = left / 4 + wobble * random.uniform(-wobble, wobble, left.shape)
        step, wobble = half, wobble / decay
    height -= height.min()
    scaled: Image = height / height.max()
    return scaled


def _gray(x: Image) -> Image:
    return x if x.shape[2] == 1 else (x @ GRAY)[..., None]


def _power_of_two(side: int) -> int:
    return 1 << max(side - 1, 1).bit_length()
