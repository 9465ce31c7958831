"""The Frechet distance that infinitely many generated images would have."""

from __future__ import annotations

import numpy as np
import torch

from rivals.base.errors import UserError
from rivals.base.seeds import generator
from rivals.metrics.estimate import Estimate
from rivals.metrics.features import Features, alike, checked, count
from rivals.metrics.frechet import Moments, frechet_distance, moments_of


def frechet_infinity(real: Features | Moments, fake: Features, sizes: int = 15, seed: int = 0) -> Estimate:
    """The Frechet distance freed of its bias from few generated images (Chong & Forsyth 2020, sec. 4).

    The bias is nearly proportional to 1/N, and another one for each generator. The distance is measured on random
    subsets of ``sizes`` sizes, evenly spaced from a tenth of the images to all of them; a line in 1/N is fitted to
    them, and its intercept is the value. No subset is smaller than twice the dimensions, since near those the bias is
    no line in 1/N. The bias of the real set's size stays, alike for all generators.

    Args:
        real: Features (n, d) or their moments.
        fake: Features (m, d); the paper has 50,000.
        sizes: How many, 3 or more.
        seed: Of the subsets.

    Returns:
        The intercept, and its standard error by the fit alone. It may be below 0 where the distance is 0.

    Raises:
        UserError: fewer generated images than four times their dimensions, or different dimensions.
    """
    if sizes < 3:
        raise UserError(f"{sizes} sizes make no line with an error: take 3 or more, the paper's 15")
    y = checked(fake, "fake", 2 * sizes, "for subsets of different sizes")
    if not isinstance(real, Moments):
        x, y = alike(checked(real, "real", 2, "since one has no covariance"), y)
        real = moments_of(x)
    elif len(real.mean) != y.shape[1]:
        raise UserError(f"real features have {len(real.mean)} dimensions and fake ones {y.shape[1]}: take one layer")
    mean, cov = real.mean, real.cov
    d = y.shape[1]
    if len(y) < 4 * d:
        raise UserError(
            f"{count(len(y))} of {d} dimensions are too few to extrapolate: give {4 * d} or more, or take the plain "
            "distance"
        )
    source = generator(seed, "frechet_infinity")
    numbers = [int(n) for n in np.linspace(max(len(y) // 10, 2 * d), len(y), sizes)]
    found = []
    for number in numbers:
        part = moments_of(y[torch.randperm(len(y), generator=source)[:number].to(y.device)])
        found.append(frechet_distance(mean, cov, part.mean, part.cov))
    return _intercept(1 / np.array(numbers), np.array(found))


def _intercept(x: np.ndarray, y: np.ndarray) -> Estimate:
    """Of the line of least squares through (n,) points, with its standard error."""
    apart = x - x.mean()
    slope = (apart * y).sum() / (apart**2).sum()
    value = y.mean() - slope * x.mean()
    variance = ((y - value - slope * x) ** 2).sum() / (len(x) - 2)
    return Estimate(float(value), float((variance * (1 / len(x) + x.mean() ** 2 / (apart**2).sum())) ** 0.5))
