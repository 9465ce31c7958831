"""Support size: how many different images a generator has, from near-duplicates among its samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.metrics.feature_checks import checked

_BLOCK = 2048  # points whose distances to all others are in memory at a time


@dataclass(frozen=True)
class SupportSize:
    """An estimate of the support size.

    Attributes:
        value: The effective number of different images; infinite without duplicates.
        low: Lower end of its 95% interval: Garwood's (1936) for the mean of a Poisson count, widened by how much more
            the count of pairs varies, since pairs share images (the variance of a U-statistic, Hoeffding 1948).
        high: Upper end.
        duplicates: Pairs of near-duplicates.
        pairs: Pairs of images.
        batch_size: A sample of this many images contains duplicates with a probability of about 1/2.
        threshold: The distance up to which two images are near-duplicates.
    """

    value: float
    low: float
    high: float
    duplicates: int
    pairs: int
    batch_size: float
    threshold: float


def support_size(points: Tensor, threshold: float) -> SupportSize:
    """The birthday paradox test (Arora & Zhang 2017): duplicates among s samples mean a support of about s^2.

    The paper finds the batch size at which half of the batches contain duplicates. Here all pairs are counted: two
    samples are duplicates with probability ``1 / value``; for a uniform distribution over N images, the value is N. For
    other distributions the value counts the frequent images only, so it is a lower bound.

    Args:
        points: Images as points (n, d), in a space where small distances mean that images look the same.
        threshold: Largest distance of near-duplicates; :func:`duplicate_distance` gives one from real images.

    Raises:
        UserError: fewer than two points, or a value that is not finite.
    """
    points = checked(points, "generated", 2, "since one has no pairs")
    from scipy.stats import chi2

    n = len(points)
    degrees = _duplicates_of_each(points, threshold)
    duplicates, pairs = int(degrees.sum()) // 2, n * (n - 1) // 2
    excess = _overdispersion(degrees, n)
    # Garwood's interval, of the count in units in which its variance is its mean.
    counted = duplicates / excess
    least = excess * float(chi2.ppf(0.025, 2 * counted)) / 2 if duplicates else 0.0
    most = excess * float(chi2.ppf(0.975, 2 * counted + 2)) / 2
    value = pairs / duplicates if duplicates else math.inf
    # s samples have no duplicates with a probability of about exp(-s^2 / 2 value).
    batch_size = math.sqrt(2 * math.log(2) * value)
    high = pairs / least if least else math.inf
    return SupportSize(value, pairs / most, high, duplicates, pairs, batch_size, threshold)


def _overdispersion(degrees: Tensor, n: int) -> float:
    """The variance of the number of duplicate pairs over its mean, at least 1.

    ``C(n, 2) (2 (n - 2) zeta + p (1 - p))`` over ``C(n, 2) p``, with the share p of pairs that are duplicates, and
    zeta the covariance of two pairs that share an image.

    Args:
        degrees: How many duplicates each image has, (n,).
        n: Number of images.
    """
    p = float(degrees.sum()) / (n * (n - 1))
    if not p or n < 3:
        return 1.0
    both = float((degrees * (degrees - 1)).sum()) / (n * (n - 1) * (n - 2))  # two others are duplicates of it
    return max(1.0, 2 * (n - 2) * (both - p**2) / p + 1 - p)


def duplicate_distance(real: Tensor) -> float:
    """The smallest distance between two real points (n, d): closer images are closer than any two of the data.

    Raises:
        UserError: two of them are the same, there are fewer than two, or a value is not finite.
    """
    real = checked(real, "real", 2, "since one has no pairs")
    nearest = min(float(block.min()) for block in _pair_distances(real) if block.numel())
    if nearest == 0:
        raise UserError("two real images are the same, so no distance marks duplicates: remove exact copies first")
    return nearest


def _duplicates_of_each(points: Tensor, threshold: float) -> Tensor:
    """How many others are within the threshold of each point, (n,)."""
    x = points.float()
    found = [
        (torch.cdist(block, x, compute_mode="donot_use_mm_for_euclid_dist") <= threshold).sum(1) - 1
        for block in torch.split(x, _BLOCK)
    ]
    return torch.cat(found).double()


def _pair_distances(points: Tensor) -> Iterator[Tensor]:
    """The distances of all pairs, each once, in blocks (k,)."""
    x = points.float()
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK]
        # Exact differences: by a matrix product, rounding would exceed the distance of near-duplicates.
        distances = torch.cdist(block, x[start:], compute_mode="donot_use_mm_for_euclid_dist")
        later = torch.ones_like(distances, dtype=torch.bool).triu(1)
        yield distances[later]
