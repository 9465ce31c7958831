"""FID-infinity: the Fréchet distance extrapolated to infinitely many generated images."""

from __future__ import annotations

import numpy as np
import torch

from rivals.base.errors import UserError
from rivals.base.rng import generator
from rivals.metrics.feature_checks import Features, checked, count, same_dtype
from rivals.metrics.frechet import Moments, frechet_distance, moments_of
from rivals.metrics.results import Estimate


def frechet_infinity(real: Features | Moments, fake: Features, sizes: int = 15, seed: int = 0) -> Estimate:
    """The Fréchet distance without its bias from the number of generated images (Chong & Forsyth 2020, sec. 4).

    The bias is nearly proportional to 1/N, with a factor that depends on the generator. The distance is computed on
    random subsets of ``sizes`` sizes, evenly spaced from a tenth of the images to all; the value is the intercept of a
    line fitted in 1/N. The bias from the number of real images remains; it is the same for all generators.

    Args:
        real: Features (n, d), or their moments.
        fake: Features (m, d); 50,000 in the paper.
        sizes: Subset sizes, 3 or more.
        seed: Seed of the subsets.

    Returns:
        The intercept, and its standard error from the fit alone. It may be negative where the distance is near 0.

    Raises:
        UserError: fewer generated images than four times their dimensions, or different dimensions.
    """
    if sizes < 3:
        raise UserError(f"{sizes} sizes do not determine a line and its error: take 3 or more, such as the paper's 15")
    y = checked(fake, "fake", 2 * sizes, "for subsets of different sizes")
    if not isinstance(real, Moments):
        x, y = same_dtype(checked(real, "real", 2, "since one has no covariance"), y)
        real = moments_of(x)
    elif len(real.mean) != y.shape[1]:
        raise UserError(f"real features have {len(real.mean)} dimensions and fake ones {y.shape[1]}: take one layer")
    mean, cov = real.mean, real.cov
    d = y.shape[1]
    if len(y) < 4 * d:
        raise UserError(
            f"{count(len(y))} of {d} dimensions are too few to extrapolate: give {4 * d} or more, or take fd"
        )
    source = generator(seed, "frechet_infinity")
    # Not below 2 d: near d images the covariance is close to singular, and the bias is not linear in 1/N.
    numbers = [int(n) for n in np.linspace(max(len(y) // 10, 2 * d), len(y), sizes)]
    found = []
    for number in numbers:
        part = moments_of(y[torch.randperm(len(y), generator=source)[:number].to(y.device)])
        found.append(frechet_distance(mean, cov, part.mean, part.cov))
    return _intercept(1 / np.array(numbers), np.array(found))


def _intercept(x: np.ndarray, y: np.ndarray) -> Estimate:
    """Intercept of the least-squares line through (n,) points, with its standard error."""
    centered = x - x.mean()
    slope = (centered * y).sum() / (centered**2).sum()
    value = y.mean() - slope * x.mean()
    variance = ((y - value - slope * x) ** 2).sum() / (len(x) - 2)
    return Estimate(float(value), float((variance * (1 / len(x) + x.mean() ** 2 / (centered**2).sum())) ** 0.5))
