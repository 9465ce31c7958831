"""Gaussian, shot and impulse noise. Images are (H, W, C) in [0, 1]; results are clipped by the caller."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[Any]


def gaussian(x: Image, deviation: float, random: np.random.Generator) -> Image:
    """Normal noise of a standard deviation."""
    return x + random.normal(scale=deviation, size=x.shape)


def shot(x: Image, photons: float, random: np.random.Generator) -> Image:
    """Poisson noise: white is so many photons."""
    made: Image = random.poisson(x * photons) / photons
    return made


def impulse(x: Image, amount: float, random: np.random.Generator) -> Image:
    """A share of the values is set to 0 or 1, as likely as not: salt and pepper."""
    hit, salt = random.random(x.shape) < amount, random.random(x.shape) < 0.5
    return np.where(hit, salt.astype(x.dtype), x)
