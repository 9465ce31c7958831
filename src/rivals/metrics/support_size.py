"""Support size: how many different images a generator has, from near-duplicates among its samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rivals.base.errors import UserError

_BLOCK = 2048  # points whose distances to all others are in memory at a time


@dataclass(frozen=True)
class SupportSize:
    """An estimate of the support size.

    Attributes:
        value: The effective number of different images; infinite without duplicates.
        low: Lower end of its 95% interval, exact for counts of rare events (Garwood 1936).
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
        UserError: fewer than two points.
    """
    if points.ndim != 2 or len(points) < 2:
        raise UserError(f"points of shape {tuple(points.shape)} have no pairs: give (n, d), n of 2 or more")
    from scipy.stats import chi2

    duplicates = sum(int((block <= threshold).sum()) for block in _pair_distances(points))
    pairs = len(points) * (len(points) - 1) // 2
    # Garwood's interval for the mean of a Poisson count.
    least = float(chi2.ppf(0.025, 2 * duplicates)) / 2 if duplicates else 0.0
    most = float(chi2.ppf(0.975, 2 * duplicates + 2)) / 2
    value = pairs / duplicates if duplicates else math.inf
    # s samples have no duplicates with a probability of about exp(-s^2 / 2 value).
    batch_size = math.sqrt(2 * math.log(2) * value)
    high = pairs / least if least else math.inf
    return SupportSize(value, pairs / most, high, duplicates, pairs, batch_size, threshold)


def duplicate_distance(real: Tensor) -> float:
    """The smallest distance between two real points (n, d): closer images are closer than any two of the data.

    Raises:
        UserError: two of them are the same, or there are fewer than two.
    """
    if real.ndim != 2 or len(real) < 2:
        raise UserError(f"points of shape {tuple(real.shape)} have no pairs: give (n, d), n of 2 or more")
    nearest = min(float(block.min()) for block in _pair_distances(real) if block.numel())
    if nearest == 0:
        raise UserError("two real images are the same, so no distance marks duplicates: remove exact copies first")
    return nearest


def _pair_distances(points: Tensor) -> Iterator[Tensor]:
    """The distances of all pairs, each once, in blocks (k,)."""
    x = points.float()
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK]
        # Exact differences: by a matrix product, rounding would exceed the distance of near-duplicates.
        distances = torch.cdist(block, x[start:], compute_mode="donot_use_mm_for_euclid_dist")
        later = torch.ones_like(distances, dtype=torch.bool).triu(1)
        yield distances[later]
